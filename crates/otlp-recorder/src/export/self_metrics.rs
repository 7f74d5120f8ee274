//! Metrics about the export itself: `otel.sdk.*` of the semantic conventions 1.44, which are in development.
//! The counters of the queues are read when metrics are collected, so they do not slow down recording.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter};
use opentelemetry::trace::SpanContext;

use crate::collector::{Collector, Protocol};
use crate::destination::Destination;
use crate::encode::Batch;
use crate::exemplar::Exemplars;
use crate::histogram::DurationHistogram;
use crate::queue::Queue;
use crate::signal::Signal;
use crate::transport::{Accepted, SendError};

/// Bucket bounds of the export duration, in seconds.
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
    pub(crate) fn observe(&self, meter: &Meter, exemplars: &Exemplars) {
        let (name, unit) = match self.signal {
            Signal::Traces => ("otel.sdk.exporter.span.exported", "{span}"),
            Signal::Logs => ("otel.sdk.exporter.log.exported", "{log_record}"),
            Signal::Metrics => ("otel.sdk.exporter.metric_data_point.exported", "{data_point}"),
        };
        self.instruments.get_or_init(|| Instruments {
            items: meter
                .u64_counter(name)
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

/// Creates the instruments of a queue, which the conventions call a batching processor.
pub(crate) fn observe_queue(meter: &Meter, signal: Signal, queue: &Arc<Queue<Batch>>) {
    let (kind, unit) = match signal {
        Signal::Logs => ("log", "{log_record}"),
        _ => ("span", "{span}"),
    };
    let attributes = component(format!("batching_{kind}_processor"));
    let name = |property| format!("otel.sdk.processor.{kind}.{property}");
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
mod tests {
    use std::collections::BTreeMap;

    use opentelemetry::metrics::MeterProvider;
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::metrics::v1::{metric::Data, number_data_point::Value};
    use opentelemetry_sdk::metrics::data::ResourceMetrics;
    use opentelemetry_sdk::metrics::reader::MetricReader;
    use opentelemetry_sdk::metrics::{SdkMeterProvider, Temporality};

    use super::*;
    use crate::destination::CustomExporter;
    use crate::exemplar::ExemplarFilter;
    use crate::export::QueueMetricReader;
    use crate::points::metrics_of;
    use crate::transport::Retry;

    /// Returns the number of exported spans for each `error.type`, in debug format.
    fn counts(reader: &QueueMetricReader) -> BTreeMap<String, i64> {
        let mut collected = ResourceMetrics::default();
        reader.collect(&mut collected).unwrap();
        let mut request = ExportMetricsServiceRequest::from(&collected);
        let exported =
            metrics_of(&mut request).find(|metric| metric.name == "otel.sdk.exporter.span.exported");
        let Some(Data::Sum(sum)) = &exported.unwrap().data else {
            panic!("{request:?}")
        };
        sum.data_points
            .iter()
            .map(|point| {
                let error_type = point
                    .attributes
                    .iter()
                    .find(|attribute| attribute.key == "error.type");
                let error_type = error_type.and_then(|attribute| attribute.value.as_ref()?.value.clone());
                let Some(Value::AsInt(count)) = point.value else {
                    panic!("{point:?}")
                };
                (format!("{error_type:?}"), count)
            })
            .collect()
    }

    #[test]
    fn exported_items_are_counted_by_result() {
        let reader = QueueMetricReader::new(Temporality::Cumulative);
        let provider = SdkMeterProvider::builder().with_reader(reader.clone()).build();
        let destination = CustomExporter::new("test", |_| Ok(())).into();
        let exported = ExportCounts::new(Signal::Traces, &destination);
        exported.observe(
            &provider.meter("test"),
            &Exemplars::new(ExemplarFilter::AlwaysOff),
        );
        let accepted = |rejected| {
            Ok(Accepted {
                rejected,
                message: None,
            })
        };
        let failed = Err(SendError {
            error_type: "503".into(),
            message: String::new(),
            retry: Retry::Never,
        });
        for result in [accepted(0), accepted(3), accepted(100), failed] {
            exported.record(&result, 10, Duration::ZERO);
        }
        let expected = [
            ("None", 17),
            ("Some(StringValue(\"503\"))", 10),
            ("Some(StringValue(\"rejected\"))", 13),
        ];
        let expected = expected.map(|(error_type, count)| (error_type.to_owned(), count));
        assert_eq!(counts(&reader), BTreeMap::from(expected));
    }
}
