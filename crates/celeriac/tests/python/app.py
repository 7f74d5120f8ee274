"""The Celery application of the tests: the tasks of a worker and, through console.py, a client.

The environment sets the server's address and the visibility time-out.
"""

import ctypes
import json
import os
import signal
import sys
import time

import redis
from celery import Celery, group
from celery.signals import worker_process_init
from kombu import Exchange, Queue
from kombu.common import Broadcast

URL = os.environ["TEST_CELERY_BROKER"]

app = Celery("app", broker=URL, backend=os.environ.get("TEST_CELERY_BACKEND", URL))
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        "visibility_timeout": int(os.environ.get("TEST_CELERY_VISIBILITY_TIMEOUT", "3600")),
    },
    task_acks_late=os.environ.get("TEST_CELERY_ACKS_LATE") == "1",
    task_track_started=True,
    worker_hijack_root_logger=True,
)

if "TEST_CELERY_RESULT_SERIALIZER" in os.environ:
    app.conf.result_serializer = os.environ["TEST_CELERY_RESULT_SERIALIZER"]
    app.conf.result_accept_content = [app.conf.result_serializer]
if "TEST_CELERY_RESULT_COMPRESSION" in os.environ:
    app.conf.result_compression = os.environ["TEST_CELERY_RESULT_COMPRESSION"]

if os.environ.get("TEST_CELERY_EXCHANGES") == "1":
    app.conf.task_queues = [
        Queue("celery"),
        Queue("tq", Exchange("topics", type="topic"), routing_key="a.*"),
        Queue("dq", Exchange("direct", type="direct"), routing_key="key"),
        Broadcast("bcast"),
    ]

# Further settings, as a JSON object.
app.conf.update(json.loads(os.environ.get("TEST_CELERY_SETTINGS", "{}")))

store = redis.Redis.from_url(URL)


@worker_process_init.connect
def die_with_the_worker(**_):
    """Makes the children of a killed worker exit with it."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def trace():
    """Records spans of sends and runs from now on, in the list `spans`."""
    from opentelemetry import trace
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

    class Exporter(SpanExporter):
        def export(self, spans):
            for span in spans:
                described = {
                    "span": span.name,
                    "trace_id": format(span.context.trace_id, "032x"),
                    "span_id": format(span.context.span_id, "016x"),
                    "parent_span_id": span.parent and format(span.parent.span_id, "016x"),
                }
                store.rpush("spans", json.dumps(described))
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Exporter()))
    trace.set_tracer_provider(provider)
    CeleryInstrumentor().instrument()


if os.environ.get("TEST_CELERY_TRACES") == "1":
    trace()


class OutOfStock(Exception):
    """An exception that only this application defines."""


@app.task(name="add")
def add(a, b):
    return a + b


@app.task(name="total")
def total(numbers):
    return sum(numbers)


@app.task(name="pass")
def pass_on(value):
    return value


@app.task(name="echo")
def echo(*args, **kwargs):
    return {"args": list(args), "kwargs": kwargs}


@app.task(name="no_number")
def no_number():
    return float("nan")


@app.task(name="note")
def note(line):
    """Appends a line to the list `journal`."""
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


@app.task(name="describe", bind=True)
def describe(self, *args, **kwargs):
    """Returns the contents of its own message."""
    request = self.request
    return {
        "args": args,
        "kwargs": kwargs,
        "headers": request.headers,
        "retries": request.retries,
        "timelimit": request.timelimit,
        "priority": request.delivery_info["priority"],
    }


@app.task(name="relay")
def relay(queue):
    """Sends `add` to a queue."""
    return add.apply_async([2, 3], queue=queue).id


@app.task(name="sleeps")
def sleeps(seconds):
    time.sleep(seconds)


@app.task(name="count", ignore_result=True)
def count(number):
    """Counts its runs, and all runs on this side."""
    with store.pipeline() as pipeline:
        pipeline.hincrby("runs", number, 1).hincrby("sides", "python", 1).execute()


@app.task(name="work", bind=True)
def work(self, task, seconds):
    """Takes the given time, or none if the message was redelivered."""
    store.rpush("journal", f"{task} begins")
    if not self.request.delivery_info.get("redelivered"):
        time.sleep(seconds)
    store.rpush("journal", f"{task} ends")


@app.task(name="replace_by_group", bind=True)
def replace_by_group(self, count):
    """Replaces itself by a group of `add`, on the default queue."""
    return self.replace(group([add.s(number, number) for number in range(count)]))
