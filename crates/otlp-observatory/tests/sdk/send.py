"""Sends spans, log records and metrics with the OpenTelemetry SDK for Python, and prints the id of their trace.

Usage: send.py http/protobuf|http/json|grpc ENDPOINT
"""

import faulthandler
import logging
import sys
from importlib import import_module

from opentelemetry import context, trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

PACKAGES = {
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http",
    "http/json": "opentelemetry.exporter.otlp.json.http",
    "grpc": "opentelemetry.exporter.otlp.proto.grpc",
}
ATTRIBUTES = {
    "text": "grüße\n\"quoted\"",
    "mail": "alice@example.com",
    "integer": -42,
    "large": 2**62,
    "number": 0.25,
    "whole": 3.0,
    "flag": True,
    "texts": ["a", "b"],
    "integers": [1, 2],
    "numbers": [0.5, 1.5],
    "flags": [True, False],
    "bytes": b"\x00\xff",
}
LINKED = SpanContext(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7, True, TraceFlags(1))


def exporter(protocol, endpoint, signal):
    module, name = {
        "traces": ("trace_exporter", "OTLPSpanExporter"),
        "metrics": ("metric_exporter", "OTLPMetricExporter"),
        "logs": ("_log_exporter", "OTLPLogExporter"),
    }[signal]
    make = getattr(import_module(f"{PACKAGES[protocol]}.{module}"), name)
    if protocol == "grpc":
        return make(endpoint=endpoint, insecure=True)
    return make(endpoint=f"{endpoint}/v1/{signal}")


def send_traces(provider):
    tracer = provider.get_tracer("send.py", "1.2.3")
    with tracer.start_as_current_span(
        "root", kind=SpanKind.SERVER, attributes=ATTRIBUTES, links=[Link(LINKED, {"why": "retry"})]
    ) as root:
        root.add_event("noticed", {"count": 7})
        try:
            with tracer.start_as_current_span("child", kind=SpanKind.CLIENT):
                raise ValueError("no such article")
        except ValueError:
            pass
        root.set_status(Status(StatusCode.OK))
        return root


def send_log(provider, span):
    provider.get_logger("send.py").emit(
        LogRecord(
            timestamp=1_795_342_907_000_000_001,
            context=trace.set_span_in_context(span, context.Context()),
            severity_number=SeverityNumber.WARN,
            severity_text="WARN",
            body={"said": "hello", "to": ["bob@example.com", 2]},
            attributes=ATTRIBUTES,
            event_name="greeting",
        )
    )


def send_metrics(provider, span):
    meter = provider.get_meter("send.py")
    current = trace.set_span_in_context(span, context.Context())
    meter.create_counter("sent.total", unit="{thing}", description="Things").add(5, {"kind": "a"}, current)
    meter.create_up_down_counter("sent.open").add(-2, {"kind": "a"}, current)
    meter.create_gauge("sent.level", unit="Cel").set(36.6, {"kind": "a"}, current)
    histogram = meter.create_histogram("sent.duration", unit="s", explicit_bucket_boundaries_advisory=[0.1, 1.0])
    for value in (0.05, 0.5, 5.0):
        histogram.record(value, {"kind": "a"}, current)


def main():
    # Exits after 30 seconds if something hangs.
    faulthandler.dump_traceback_later(30, exit=True)
    # Exporters log errors and do not raise them.
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    protocol, endpoint = sys.argv[1:]
    service = "python-" + protocol.replace("/", "-")
    resource = Resource({"service.name": service, "cores": 2})
    traces = TracerProvider(resource=resource)
    traces.add_span_processor(BatchSpanProcessor(exporter(protocol, endpoint, "traces")))
    logs = LoggerProvider(resource=resource)
    logs.add_log_record_processor(SimpleLogRecordProcessor(exporter(protocol, endpoint, "logs")))
    metrics = MeterProvider([PeriodicExportingMetricReader(exporter(protocol, endpoint, "metrics"))], resource)

    root = send_traces(traces)
    send_log(logs, root)
    send_metrics(metrics, root)
    for provider in (traces, logs, metrics):
        provider.shutdown()
    print(trace.format_trace_id(root.get_span_context().trace_id))


main()
