//! What the export thread tells about itself: the SDK metrics of the semantic conventions 1.44 (in development there),
//! `otel.sdk.*`. They are read from counters when metrics are collected, so that recording pays nothing for them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use opentelemetry::trace::SpanContext;

use super::frame::Batch;
use super::queue::Queue;
use crate::config::{Destination, Otlp, Protocol, Signal};
use crate::metrics::{Durations, SECONDS};
use crate::otlp::{Accepted, SendError};

const COMPONENT_NAME: &str = "otel.component.name";
const COMPONENT_TYPE: &str = "otel.component.type";
const ERROR_TYPE: &str = "error.type";

/// What became of a signal's entries at its exporter.
#[derive(Debug)]
pub(crate) struct Exported {
    signal: Signal,
    attributes: Vec<KeyValue>,
    /// By `error.type`; `None` is success.
    counts: Mutex<BTreeMap<Option<&'static str>, u64>>,
    durations: OnceLock<Durations>,
}

impl Exported {
    pub(crate) fn new(signal: Signal, destination: &Destination) -> Self {
        let mut attributes = component(exporter_type(signal, destination));
        if let Destination::Otlp(otlp) = destination {
            attributes.extend(server(otlp));
        }
        Self {
            signal,
            attributes,
            counts: Mutex::default(),
            durations: OnceLock::new(),
        }
    }

    /// Takes the outcome of one export of `items` entries.
    pub(crate) fn note(&self, result: &Result<Accepted, SendError>, items: u64, took: Duration) {
        let (failed, error_type) = match result {
            Ok(accepted) => (accepted.rejected.min(items), Some("rejected")),
            Err(error) => (items, Some(error.error_type)),
        };
        {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            for (key, count) in [(None, items - failed), (error_type, failed)] {
                if count > 0 {
                    *counts.entry(key).or_default() += count;
                }
            }
        }
        if let Some(durations) = self.durations.get() {
            let error_type = result.as_ref().err().map(|error| error.error_type);
            let attributes = self.attributes(error_type);
            // Exports are in no trace.
            durations.record(took.as_secs_f64(), &attributes, &SpanContext::NONE);
        }
    }

    /// Makes the instruments.
    pub(crate) fn observe(self: &Arc<Self>, meter: &Meter) {
        let (name, unit) = match self.signal {
            Signal::Traces => ("otel.sdk.exporter.span.exported", "{span}"),
            Signal::Logs => ("otel.sdk.exporter.log.exported", "{log_record}"),
            Signal::Metrics => ("otel.sdk.exporter.metric_data_point.exported", "{data_point}"),
        };
        let exported = Arc::clone(self);
        meter
            .u64_observable_counter(name)
            .with_unit(unit)
            .with_description("What the exporter is done with, delivered or, with an error.type, lost.")
            .with_callback(move |observer| {
                let counts = exported.counts.lock().unwrap_or_else(PoisonError::into_inner);
                for (error_type, count) in counts.iter() {
                    observer.observe(*count, &exported.attributes(*error_type));
                }
            })
            .build();
        self.durations.get_or_init(|| {
            Durations::new(
                meter,
                "otel.sdk.exporter.operation.duration",
                "One export with its retries.",
                &SECONDS,
            )
        });
    }

    fn attributes(&self, error_type: Option<&'static str>) -> Vec<KeyValue> {
        with_error(&self.attributes, error_type)
    }
}

/// Makes the instruments of a queue, which is a batching processor in the terms of the conventions.
pub(crate) fn observe_queue(meter: &Meter, signal: Signal, queue: &Arc<Queue<Batch>>) {
    let (processor, unit, [processed, size, capacity]) = match signal {
        Signal::Logs => (
            "batching_log_processor",
            "{log_record}",
            [
                "otel.sdk.processor.log.processed",
                "otel.sdk.processor.log.queue.size",
                "otel.sdk.processor.log.queue.capacity",
            ],
        ),
        _ => (
            "batching_span_processor",
            "{span}",
            [
                "otel.sdk.processor.span.processed",
                "otel.sdk.processor.span.queue.size",
                "otel.sdk.processor.span.queue.capacity",
            ],
        ),
    };
    let attributes = component(processor);
    let (of_queue, plain) = (Arc::clone(queue), attributes.clone());
    meter
        .u64_observable_counter(processed)
        .with_unit(unit)
        .with_description("What left the queue for the exporter or, with an error.type, was dropped.")
        .with_callback(move |observer| {
            let counts = of_queue.counts();
            observer.observe(counts.taken, &plain);
            for (count, error_type) in [(counts.dropped, "queue_full"), (counts.late, "already_shutdown")] {
                if count > 0 {
                    observer.observe(count, &with_error(&plain, Some(error_type)));
                }
            }
        })
        .build();
    let (of_queue, plain) = (Arc::clone(queue), attributes.clone());
    meter
        .i64_observable_up_down_counter(size)
        .with_unit(unit)
        .with_description("What waits in the queue.")
        .with_callback(move |observer| observer.observe(number(of_queue.len()), &plain))
        .build();
    let of_queue = Arc::clone(queue);
    meter
        .i64_observable_up_down_counter(capacity)
        .with_unit(unit)
        .with_description("The most that waits in the queue.")
        .with_callback(move |observer| observer.observe(number(of_queue.capacity()), &attributes))
        .build();
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// There is one component of each type in a process.
fn component(component_type: &'static str) -> Vec<KeyValue> {
    vec![
        KeyValue::new(COMPONENT_TYPE, component_type),
        KeyValue::new(COMPONENT_NAME, format!("{component_type}/0")),
    ]
}

fn with_error(attributes: &[KeyValue], error_type: Option<&'static str>) -> Vec<KeyValue> {
    let mut attributes = attributes.to_vec();
    attributes.extend(error_type.map(|error_type| KeyValue::new(ERROR_TYPE, error_type)));
    attributes
}

fn server(otlp: &Otlp) -> Vec<KeyValue> {
    let Ok(uri) = otlp.endpoint.parse::<http::Uri>() else {
        return Vec::new();
    };
    let port = uri.port_u16().unwrap_or(match uri.scheme_str() {
        Some("https") => 443,
        _ => 80,
    });
    uri.host()
        .map(|host| {
            vec![
                KeyValue::new("server.address", host.to_owned()),
                KeyValue::new("server.port", i64::from(port)),
            ]
        })
        .unwrap_or_default()
}

fn exporter_type(signal: Signal, destination: &Destination) -> &'static str {
    let protocol = match destination {
        Destination::Otlp(otlp) => Some(otlp.protocol),
        _ => None,
    };
    match (signal, protocol) {
        (Signal::Traces, Some(Protocol::Grpc)) => "otlp_grpc_span_exporter",
        (Signal::Traces, Some(Protocol::HttpProtobuf)) => "otlp_http_span_exporter",
        (Signal::Traces, Some(Protocol::HttpJson)) => "otlp_http_json_span_exporter",
        (Signal::Traces, None) => "console_span_exporter",
        (Signal::Logs, Some(Protocol::Grpc)) => "otlp_grpc_log_exporter",
        (Signal::Logs, Some(Protocol::HttpProtobuf)) => "otlp_http_log_exporter",
        (Signal::Logs, Some(Protocol::HttpJson)) => "otlp_http_json_log_exporter",
        (Signal::Logs, None) => "console_log_exporter",
        (Signal::Metrics, Some(Protocol::Grpc)) => "otlp_grpc_metric_exporter",
        (Signal::Metrics, Some(Protocol::HttpProtobuf)) => "otlp_http_metric_exporter",
        (Signal::Metrics, Some(Protocol::HttpJson)) => "otlp_http_json_metric_exporter",
        (Signal::Metrics, None) => "console_metric_exporter",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(exported: &Exported) -> Vec<(Option<&'static str>, u64)> {
        let counts = exported.counts.lock().unwrap();
        counts.iter().map(|(key, count)| (*key, *count)).collect()
    }

    #[test]
    fn exports_are_counted_by_what_became_of_them() {
        let exported = Exported::new(Signal::Traces, &Destination::Console);
        let accepted = |rejected| {
            Ok(Accepted {
                rejected,
                message: None,
            })
        };
        let failed = Err(SendError {
            error_type: "503",
            retry_after: None,
            message: String::new(),
        });
        for result in [accepted(0), accepted(3), accepted(100), failed] {
            exported.note(&result, 10, Duration::ZERO);
        }
        assert_eq!(
            counts(&exported),
            [(None, 17), (Some("503"), 10), (Some("rejected"), 13)]
        );
    }
}
