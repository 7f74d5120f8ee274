//! Metrics about the export itself: `otel.sdk.*` of the semantic conventions 1.44, which are in development.
//! The counters of the queues are read when metrics are collected, so they do not slow down recording.

use std::borrow::Cow;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter};
use opentelemetry::trace::SpanContext;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};

use crate::collector::{Collector, Protocol};
use crate::destination::Destination;
use crate::encode::Batch;
use crate::exemplar::Exemplars;
use crate::histogram::DurationHistogram;
use crate::queue::Queue;
use crate::signal::Signal;
use crate::span_counts::{ORIGINS, RESULTS, SpanCounts};
use crate::transport::{Accepted, SendError};

/// Bucket bounds of the durations of exports and collections, in seconds.
const DURATION_BOUNDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// Metrics about the exports of one signal.
#[derive(Debug)]
pub(crate) struct ExportCounts {
    signal: Signal,
    attributes: Vec<KeyValue>,
    /// `None` if the destination is not a collector.
    protocol: Option<Protocol>,
    /// Items whose export has not finished.
    in_flight: AtomicI64,
    instruments: OnceLock<Instruments>,
}

#[derive(Debug)]
struct Instruments {
    items: Counter<u64>,
    durations: DurationHistogram,
}

impl ExportCounts {
    pub(crate) fn new(signal: Signal, destination: &Destination) -> Self {
        let mut attributes = component(exporter_type(signal, destination));
        let mut protocol = None;
        if let Destination::Collector(collector) = destination {
            protocol = Some(collector.protocol);
            attributes.extend(server(collector).into_iter().flatten());
        }
        Self {
            signal,
            attributes,
            protocol,
            in_flight: AtomicI64::new(0),
            instruments: OnceLock::new(),
        }
    }

    /// Records the result and the duration of one export of `items` items.
    pub(super) fn record(&self, result: &Result<Accepted, SendError>, items: u64, duration: Duration) {
        let Some(instruments) = self.instruments.get() else {
            return;
        };
        let error_type = result.as_ref().err().map(|error| error.error_type.clone());
        let mut attributes = with_error(&self.attributes, error_type.clone());
        attributes.extend(self.status_code(error_type.as_deref()));
        // No span is active on the export thread.
        let span = &SpanContext::NONE;
        instruments
            .durations
            .record(duration.as_secs_f64(), &attributes, span);
        let (failed, error_type) = match result {
            Ok(accepted) => (accepted.rejected.min(items), Some("rejected".into())),
            Err(_) => (items, error_type),
        };
        for (count, error_type) in [(items - failed, None), (failed, error_type)] {
            if count > 0 {
                let attributes = with_error(&self.attributes, error_type);
                instruments.items.add(count, &attributes);
            }
        }
    }

    /// Counts `items` items as passed to the exporter.
    pub(super) fn begin(self: &Arc<Self>, items: u64) -> InFlight {
        let items = items.cast_signed();
        self.in_flight.fetch_add(items, Ordering::Relaxed);
        InFlight {
            counts: Arc::clone(self),
            items,
        }
    }

    /// Returns the status code of the response: an accepted request has the only one that OTLP allows.
    fn status_code(&self, error_type: Option<&str>) -> Option<KeyValue> {
        match self.protocol? {
            Protocol::Grpc => {
                let is_status =
                    |name: &&str| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
                let status = Some(error_type.unwrap_or("OK")).filter(is_status)?;
                Some(KeyValue::new("rpc.response.status_code", status.to_owned()))
            }
            _ => {
                let status: i64 = error_type.map_or(Some(200), |name| name.parse().ok())?;
                Some(KeyValue::new("http.response.status_code", status))
            }
        }
    }

    /// Creates the instruments. Earlier exports are not counted.
    pub(crate) fn observe(self: &Arc<Self>, meter: &Meter, exemplars: &Exemplars) {
        let (kind, unit) = match self.signal {
            Signal::Traces => ("span", "{span}"),
            Signal::Logs => ("log", "{log_record}"),
            Signal::Metrics => ("metric_data_point", "{data_point}"),
        };
        let counts = Arc::clone(self);
        meter
            .i64_observable_up_down_counter(format!("otel.sdk.exporter.{kind}.inflight"))
            .with_unit(unit)
            .with_description("Items passed to the exporter whose export has not finished.")
            .with_callback(move |observer| {
                observer.observe(counts.in_flight.load(Ordering::Relaxed), &counts.attributes);
            })
            .build();
        self.instruments.get_or_init(|| Instruments {
            items: meter
                .u64_counter(format!("otel.sdk.exporter.{kind}.exported"))
                .with_unit(unit)
                .with_description("Items whose export has finished; error.type is set if the export failed.")
                .build(),
            durations: DurationHistogram::new(
                meter,
                exemplars,
                "otel.sdk.exporter.operation.duration",
                "Duration of exporting a batch, retries included.",
                &DURATION_BOUNDS,
            ),
        });
    }
}

/// Items passed to the exporter. The rest counts as finished on drop, also after a panic.
#[derive(Debug)]
pub(super) struct InFlight {
    counts: Arc<ExportCounts>,
    items: i64,
}

impl InFlight {
    /// Counts the export of `items` items as finished.
    pub(super) fn finish(&mut self, items: u64) {
        let items = items.cast_signed();
        self.items -= items;
        self.counts.in_flight.fetch_sub(items, Ordering::Relaxed);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.counts.in_flight.fetch_sub(self.items, Ordering::Relaxed);
    }
}

/// Durations of the collections of a metric reader.
#[derive(Debug)]
pub(crate) struct CollectionTimes {
    attributes: Vec<KeyValue>,
    durations: OnceLock<DurationHistogram>,
}

impl CollectionTimes {
    pub(crate) fn new(component_type: &str) -> Self {
        Self {
            attributes: component(component_type.to_owned()),
            durations: OnceLock::new(),
        }
    }

    /// Creates the instrument. Earlier collections are not recorded.
    pub(crate) fn observe(&self, meter: &Meter, exemplars: &Exemplars) {
        self.durations.get_or_init(|| {
            DurationHistogram::new(
                meter,
                exemplars,
                "otel.sdk.metric_reader.collection.duration",
                "Duration of collecting metrics.",
                &DURATION_BOUNDS,
            )
        });
    }

    /// Records the duration of `collect`, which a panic of an instrument's callback may end.
    pub(super) fn measure(&self, collect: impl FnOnce() -> OTelSdkResult) -> OTelSdkResult {
        let mut collection = Collection {
            times: self,
            started: Instant::now(),
            error_type: Some("panic"),
        };
        let result = collect();
        collection.error_type = match &result {
            Ok(()) => None,
            Err(OTelSdkError::AlreadyShutdown) => Some("already_shutdown"),
            Err(OTelSdkError::Timeout(_)) => Some("timeout"),
            Err(_) => Some("_OTHER"),
        };
        result
    }
}

/// A running collection, which is recorded on drop.
struct Collection<'a> {
    times: &'a CollectionTimes,
    started: Instant,
    error_type: Option<&'static str>,
}

impl Drop for Collection<'_> {
    fn drop(&mut self) {
        if let Some(durations) = self.times.durations.get() {
            let attributes = with_error(&self.times.attributes, self.error_type.map(Into::into));
            durations.record(
                self.started.elapsed().as_secs_f64(),
                &attributes,
                &SpanContext::NONE,
            );
        }
    }
}

/// Creates the instruments of the spans; `queue` is the queue of the exported ones.
pub(crate) fn observe_spans(meter: &Meter, counts: &Arc<SpanCounts>, queue: Option<&Arc<Queue<Batch>>>) {
    let result = |index: usize| KeyValue::new("otel.span.sampling_result", RESULTS[index]);
    let observed = Arc::clone(counts);
    meter
        .u64_observable_counter("otel.sdk.span.started")
        .with_unit("{span}")
        .with_description("Started spans, sampled or not.")
        .with_callback(move |observer| {
            for (origin, sampled, count) in observed.started().filter(|(_, _, count)| *count > 0) {
                let origin = KeyValue::new("otel.span.parent.origin", ORIGINS[origin]);
                observer.observe(count, &[result(sampled), origin]);
            }
        })
        .build();
    let Some(queue) = queue else { return };
    let (counts, queue) = (Arc::clone(counts), Arc::clone(queue));
    meter
        .i64_observable_up_down_counter("otel.sdk.span.live")
        .with_unit("{span}")
        .with_description("Recording spans that have not ended.")
        .with_callback(move |observer| {
            for (sampled, count) in counts.live(queue.received()) {
                observer.observe(count, &[result(sampled)]);
            }
        })
        .build();
}

/// Creates the instruments of a queue, which the conventions call a batching processor.
pub(crate) fn observe_queue(meter: &Meter, signal: Signal, queue: &Arc<Queue<Batch>>) {
    let (kind, unit) = match signal {
        Signal::Logs => ("log", "{log_record}"),
        _ => ("span", "{span}"),
    };
    let attributes = component(format!("batching_{kind}_processor"));
    let name = |property| format!("otel.sdk.processor.{kind}.{property}");
    if signal == Signal::Logs {
        let created = Arc::clone(queue);
        meter
            .u64_observable_counter("otel.sdk.log.created")
            .with_unit(unit)
            // As in the SDK's instrument of this name: Prometheus exporters report descriptions that differ.
            .with_description("The number of log records submitted to the SDK.")
            .with_callback(move |observer| observer.observe(created.received(), &[]))
            .build();
    }
    let (observed, plain) = (Arc::clone(queue), attributes.clone());
    meter
        .u64_observable_counter(name("processed"))
        .with_unit(unit)
        .with_description("Items passed to the exporter, or dropped if error.type is set.")
        .with_callback(move |observer| {
            let counts = observed.counts();
            observer.observe(counts.taken, &plain);
            for (count, error_type) in [(counts.dropped, "queue_full"), (counts.late, "already_shutdown")] {
                if count > 0 {
                    observer.observe(count, &with_error(&plain, Some(error_type.into())));
                }
            }
        })
        .build();
    let observe = |property, description, read: fn(&Queue<Batch>) -> usize| {
        let (observed, plain) = (Arc::clone(queue), attributes.clone());
        meter
            .i64_observable_up_down_counter(name(property))
            .with_unit(unit)
            .with_description(description)
            .with_callback(move |observer| {
                observer.observe(i64::try_from(read(&observed)).unwrap_or(i64::MAX), &plain);
            })
            .build();
    };
    observe("queue.size", "Items in the queue.", Queue::len);
    observe(
        "queue.capacity",
        "Maximum number of items in the queue.",
        Queue::capacity,
    );
}

/// Returns the attributes of a component. A pipeline has one component of each type.
fn component(component_type: String) -> Vec<KeyValue> {
    let name = format!("{component_type}/0");
    vec![
        KeyValue::new("otel.component.type", component_type),
        KeyValue::new("otel.component.name", name),
    ]
}

fn with_error(attributes: &[KeyValue], error_type: Option<Cow<'static, str>>) -> Vec<KeyValue> {
    let mut attributes = attributes.to_vec();
    attributes.extend(error_type.map(|error_type| KeyValue::new("error.type", error_type)));
    attributes
}

/// Returns the attributes of the collector's server.
fn server(collector: &Collector) -> Option<[KeyValue; 2]> {
    let uri = collector.endpoint.parse::<http::Uri>().ok()?;
    let default_port = if uri.scheme_str() == Some("https") {
        443
    } else {
        80
    };
    Some([
        KeyValue::new("server.address", uri.host()?.to_owned()),
        KeyValue::new("server.port", i64::from(uri.port_u16().unwrap_or(default_port))),
    ])
}

fn exporter_type(signal: Signal, destination: &Destination) -> String {
    let output = match destination {
        Destination::Collector(collector) => match collector.protocol {
            Protocol::Grpc => "otlp_grpc",
            Protocol::HttpProtobuf => "otlp_http",
            Protocol::HttpJson => "otlp_http_json",
        },
        Destination::Custom(custom) => custom.name(),
    };
    let item = match signal {
        Signal::Traces => "span",
        Signal::Logs => "log",
        Signal::Metrics => "metric",
    };
    format!("{output}_{item}_exporter")
}

#[cfg(test)]
mod tests;
