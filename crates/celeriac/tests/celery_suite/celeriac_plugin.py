"""A pytest plugin for Celery's integration suite: the fixtures that start a worker start a Rust worker.

The environment sets the program of the worker (without it, Celery's own worker runs) and its log file, the share of
the tests to run (`0/4` is the first quarter), and the file to which the outcomes are appended.
"""

import contextlib
import gc
import json
import os
import subprocess

from celery.contrib.testing import worker
from celery.result import allow_join_result
from celery.utils.nodenames import anon_nodename

SHARE, SHARES = map(int, os.environ["SUITE_SHARE"].split("/"))

# Tests that wait for more than two minutes. Each of them is a separate share.
SLOW = {
    "test_disabling_flag_allow_error_cb_on_chord_header",
    "test_enabling_flag_allow_error_cb_on_chord_header",
    "test_flag_allow_error_cb_on_chord_header_on_upgraded_chord",
}

# Celery's clients unsubscribe from a result when it is garbage collected. When that happens within another call of
# redis-py, the process waits for its own lock, so garbage is collected between tests.
gc.disable()


@contextlib.contextmanager
def start_worker(app, concurrency=1, hostname=None, ping_task_timeout=10.0, **_):
    """Replaces `celery.contrib.testing.worker.start_worker`, which the fixtures call."""
    app.finalize()
    app.set_current()
    app.set_default()
    command = [os.environ["SUITE_WORKER"], app.conf.broker_url, hostname or anon_nodename(), str(concurrency)]
    with open(os.environ["SUITE_WORKER_LOG"], "ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        from celery.contrib.testing.tasks import ping

        with allow_join_result():
            assert ping.delay().get(timeout=ping_task_timeout) == "pong"
        yield process
    finally:
        process.terminate()
        process.wait(timeout=10)


if "SUITE_WORKER" in os.environ:
    worker.start_worker = start_worker


def pytest_collection_modifyitems(items):
    slow = [item for item in items if item.name in SLOW]
    others = [item for item in items if item.name not in SLOW]
    items[:] = slow[SHARE : SHARE + 1] or others[SHARE - len(slow) :: SHARES - len(slow)]


def pytest_runtest_logfinish():
    gc.collect()


def pytest_runtest_logreport(report):
    # Each test has a report for its setup, its call, its teardown and each subtest.
    outcome = {
        "test": report.nodeid,
        "outcome": report.outcome,
        "seconds": report.duration,
        "error": "" if report.passed else report.longreprtext,
    }
    with open(os.environ["SUITE_OUTCOMES"], "a") as file:
        file.write(json.dumps(outcome) + "\n")
