"""The Celery application that the tests talk to: a worker's tasks and, through console.py, a client.

Where the server is and how long its messages stay reserved comes from the environment.
"""

import ctypes
import os
import signal
import sys
import time

import redis
from celery import Celery
from celery.signals import worker_process_init

URL = os.environ["TEST_CELERY_BROKER"]

app = Celery("app", broker=URL, backend=URL)
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        "visibility_timeout": int(os.environ.get("TEST_CELERY_VISIBILITY_TIMEOUT", "3600")),
    },
    task_acks_late=os.environ.get("TEST_CELERY_ACKS_LATE") == "1",
    task_track_started=True,
    worker_hijack_root_logger=True,
)

store = redis.Redis.from_url(URL)


@worker_process_init.connect
def die_with_the_worker(**_):
    """A worker that is killed must not leave its children behind."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


class OutOfStock(Exception):
    """An exception that no other side knows."""


@app.task(name="add")
def add(a, b):
    return a + b


@app.task(name="echo")
def echo(*args, **kwargs):
    return {"args": list(args), "kwargs": kwargs}


@app.task(name="note")
def note(line):
    """Writes a line into the list `journal`."""
    store.rpush("journal", line)


@app.task(name="broken")
def broken(text):
    raise OutOfStock(text)


@app.task(name="key_error")
def key_error(key):
    return {}[key]


@app.task(name="flaky", bind=True, max_retries=3)
def flaky(self, succeeds_at):
    """Fails until its attempt number `succeeds_at`, counted from 0."""
    if self.request.retries < succeeds_at:
        raise self.retry(exc=OutOfStock("not yet"), countdown=0.05)
    return self.request.retries


@app.task(name="header", bind=True)
def header(self, name):
    """A header of its own message."""
    return (self.request.headers or {}).get(name)


@app.task(name="sleeps")
def sleeps(seconds):
    time.sleep(seconds)


@app.task(name="count", ignore_result=True)
def count(number):
    """Counts its own run, and the runs on this side."""
    with store.pipeline() as pipeline:
        pipeline.hincrby("runs", number, 1).hincrby("sides", "python", 1).execute()


@app.task(name="work", bind=True)
def work(self, task, seconds):
    """Takes so long, unless somebody had it before."""
    store.rpush("journal", f"{task} begins")
    if not self.request.delivery_info.get("redelivered"):
        time.sleep(seconds)
    store.rpush("journal", f"{task} ends")
