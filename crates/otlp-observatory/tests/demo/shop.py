"""A shop with a fault in each of its routes, and its worker. It needs no packages: it sends OTLP/JSON itself.

Usage: shop.py ENDPOINT

Prints its URL. GET / returns the routes, one a line; a request of a route causes its fault and sends what an instrumented
service would.
"""

import json
import os
import sys
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MS = 1_000_000
SERVER, CLIENT, PRODUCER, CONSUMER = 2, 3, 4, 5
ERROR = {"code": 2, "message": "it failed"}
STACK = 'Traceback (most recent call last):\n  File "/app/orders.py", line 12, in load\n    raise ValueError'


def attributes(values):
    def value(one):
        return {"stringValue": one} if isinstance(one, str) else {"intValue": str(one)}

    return [{"key": key, "value": value(one)} for key, one in values.items()]


def send(signal, group, scope, items, service):
    resource = {"attributes": attributes({"service.name": service} if service else {})}
    plural = {"traces": "resourceSpans", "logs": "resourceLogs", "metrics": "resourceMetrics"}[signal]
    document = {plural: [{"resource": resource, group: [{scope: items}]}]}
    request = urllib.request.Request(
        f"{sys.argv[1]}/v1/{signal}", json.dumps(document).encode(), {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request).read()


def send_spans(spans, service="shop"):
    send("traces", "scopeSpans", "spans", spans, service)


def send_log(severity, body):
    record = {"timeUnixNano": str(time.time_ns()), "severityNumber": severity, "body": {"stringValue": body}}
    send("logs", "scopeLogs", "logRecords", [record], "shop")


class Trace:
    """A trace that ends now, or `ago` milliseconds ago."""

    def __init__(self, ago=0):
        self.id = os.urandom(16).hex()
        self.end = time.time_ns() - ago * MS

    def span(self, name, parent=None, kind=1, ms=1, shift=0, failed=False, raised=None, **values):
        end = self.end + shift * MS
        span = {
            "traceId": self.id,
            "spanId": os.urandom(8).hex(),
            "parentSpanId": parent["spanId"] if parent else "",
            "name": name,
            "kind": kind,
            "startTimeUnixNano": str(end - ms * MS),
            "endTimeUnixNano": str(end),
            "attributes": attributes({key.replace("__", "."): value for key, value in values.items()}),
        }
        if failed or raised:
            span["status"] = ERROR
        if raised:
            exception = dict(zip(("exception.type", "exception.message", "exception.stacktrace"), raised))
            span["events"] = [
                {"name": "exception", "timeUnixNano": str(end), "attributes": attributes(exception)}
            ]
        return span

    def request(self, route, status=200, **more):
        values = {"http__request__method": "GET", "http__route": route, "http__response__status_code": status}
        return self.span(f"GET {route}", kind=SERVER, **values, **{"ms": 40, **more})

    def statement(self, parent, text, **more):
        values = {"db__system__name": "postgresql", "db__query__text": text}
        return self.span("SELECT", parent, CLIENT, **values, **more)

    def call(self, parent, **more):
        return self.span("GET", parent, CLIENT, server__address="pay.example", **more)

    def task(self, name, message, parent=None, **more):
        values = {"messaging__system": "celery", "messaging__operation__type": "process"}
        values |= {"messaging__message__id": message, "celery__task_name": name}
        return self.span("celery.run", parent, CONSUMER, **values, **more)


def exception():
    send_spans([Trace().request("/orders", 500, raised=("ValueError", "no order 7", STACK))])


def failed_statement():
    trace = Trace()
    root = trace.request("/invoices", 500, failed=True)
    send_spans([trace.statement(root, "SELECT broken", failed=True), root])


def n_plus_one_statements():
    trace = Trace()
    root = trace.request("/authors")
    one = "SELECT name FROM author WHERE id = {}"
    send_spans([*(trace.statement(root, one.format(id)) for id in range(20)), root])


def n_plus_one_calls():
    trace = Trace()
    root = trace.request("/prices")
    send_spans([*(trace.call(root) for _ in range(7)), root])


def slow_statement():
    trace = Trace()
    root = trace.request("/search", ms=160)
    send_spans([trace.statement(root, "SELECT a FROM b WHERE c = 'x'", ms=150), root])


def slow_request():
    send_spans([Trace().request("/report", ms=1500)])


def slow_call():
    trace = Trace()
    root = trace.request("/pay", ms=1300)
    send_spans([trace.call(root, ms=1200), root])


def slow_task():
    send_spans([Trace().task("report.write", os.urandom(8).hex(), ms=3000)], "worker")


def failed_task():
    raised = ("SMTPError", "refused", STACK)
    send_spans([Trace().task("mail.send", os.urandom(8).hex(), raised=raised)], "worker")


def poison_message():
    message = os.urandom(8).hex()
    for ago in (3000, 2000, 1000, 0):
        send_spans([Trace(ago).task("mail.parse", message, failed=True)], "worker")


def duplicate_message():
    message = os.urandom(8).hex()
    for ago in (1000, 0):
        send_spans([Trace(ago).task("mail.count", message)], "worker")


def retry_storm():
    trace = Trace()
    root = trace.request("/ship")
    send_spans([*(trace.call(root, failed=True) for _ in range(5)), trace.call(root), root])


def pool_exhausted():
    message = "QueuePool limit of size 5 overflow 10 reached, connection timed out"
    send_spans([Trace().request("/stock", 500, raised=("TimeoutError", message, ""))])


def pool_exhausted_in_the_log():
    send_log(13, "pool timed out while waiting for an open connection")


def pool_wait():
    trace = Trace()
    root = trace.request("/cart", ms=100)
    send_spans([trace.span("pool.acquire", root, ms=80), root])


def status_without_error():
    send_spans([Trace().request("/login", 500)])


def error_without_status():
    send_spans([Trace().request("/missing", 404, failed=True)])


def hidden_failure():
    trace = Trace()
    root = trace.request("/hidden")
    send_spans([trace.statement(root, "SELECT 1", failed=True), root])


def queue_delay():
    trace = Trace()
    root = trace.request("/subscribe", ms=10, shift=-4000)
    sent = trace.span("send", root, PRODUCER, shift=-4000)
    send_spans([sent, root])
    send_spans([trace.task("mail.welcome", os.urandom(8).hex(), sent)], "worker")


def lost_parent():
    trace = Trace()
    send_spans([trace.span("step", {"spanId": os.urandom(8).hex()})])


def clock_behind(shift=-5000):
    trace = Trace(ago=6000)
    root = trace.request("/clock")
    call = trace.call(root)
    send_spans([call, root])
    send_spans([trace.span("GET /pay", call, SERVER, shift=shift)], "pay" if shift < 0 else "bank")


def clock_ahead():
    clock_behind(5000)


def unnamed_service():
    send_spans([Trace().span("unnamed step")], "")


def error_in_the_log():
    send_log(17, "cannot write order 12")


def pool_timeouts_in_metrics():
    now = time.time_ns()
    attribute = attributes({"db.client.connection.pool.name": "main"})
    points = [
        {
            "asInt": str(value),
            "startTimeUnixNano": str(now - 10_000 * MS),
            "timeUnixNano": str(now + index * 1000 * MS),
            "attributes": attribute,
        }
        for index, value in enumerate((0, 2, 5))
    ]
    total = {"dataPoints": points, "aggregationTemporality": 2, "isMonotonic": True}
    metric = {"name": "db.client.connection.timeouts", "sum": total}
    send("metrics", "scopeMetrics", "metrics", [metric], "shop")


FAULTS = [
    exception,
    failed_statement,
    n_plus_one_statements,
    n_plus_one_calls,
    slow_statement,
    slow_request,
    slow_call,
    slow_task,
    failed_task,
    poison_message,
    duplicate_message,
    retry_storm,
    pool_exhausted,
    pool_exhausted_in_the_log,
    pool_wait,
    pool_timeouts_in_metrics,
    status_without_error,
    error_without_status,
    hidden_failure,
    queue_delay,
    lost_parent,
    clock_behind,
    clock_ahead,
    unnamed_service,
    error_in_the_log,
]
ROUTES = {f"/{fault.__name__}": fault for fault in FAULTS}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        fault = ROUTES.get(self.path)
        if fault:
            fault()
        self.send_response(200 if fault or self.path == "/" else 404)
        self.end_headers()
        self.wfile.write("\n".join(ROUTES).encode() if self.path == "/" else b"done\n")

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
