//! An exporter that keeps everything in memory, for tests.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use crate::destination::{CustomExporter, Request};
use crate::signal::Signal;

/// Exported telemetry, kept in memory without a limit; cheap to clone.
///
/// ```
/// use std::time::Duration;
/// use otlp_recorder::{InMemory, Pipeline};
/// # use opentelemetry::trace::{Span as _, SpanKind};
/// # use opentelemetry::{Context, InstrumentationScope};
///
/// let memory = InMemory::default();
/// let pipeline = Pipeline::builder().spans(memory.exporter()).start();
/// # let tracer = pipeline.recorder().tracer(InstrumentationScope::builder("test").build());
/// # tracer.start(&Context::new(), otlp_recorder::SpanStart::new("lookup", SpanKind::Internal), |_| {}).end();
/// pipeline.flush(Duration::from_secs(5)).unwrap();
/// assert_eq!(memory.spans()[0].name, "lookup");
/// ```
#[derive(Clone, Debug, Default)]
pub struct InMemory(Arc<Mutex<Vec<Request>>>);

impl InMemory {
    /// Returns an exporter that stores requests of any signal in this memory.
    #[must_use]
    pub fn exporter(&self) -> CustomExporter {
        let memory = self.clone();
        CustomExporter::new("memory", move |request| -> io::Result<()> {
            memory.lock().push(request.clone());
            Ok(())
        })
    }

    /// Removes all requests.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Returns the requests of `signal`, in the order of their arrival.
    #[must_use]
    pub fn requests(&self, signal: Signal) -> Vec<Request> {
        let requests = self.lock();
        let of_signal = requests.iter().filter(|request| request.signal() == signal);
        of_signal.cloned().collect()
    }

    /// Returns the spans, in the order of their arrival.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        let groups = self
            .decoded::<ExportTraceServiceRequest>(Signal::Traces)
            .flat_map(|request| request.resource_spans);
        groups
            .flat_map(|group| group.scope_spans)
            .flat_map(|scope| scope.spans)
            .collect()
    }

    /// Returns the log records, in the order of their arrival.
    #[must_use]
    pub fn log_records(&self) -> Vec<LogRecord> {
        let groups = self
            .decoded::<ExportLogsServiceRequest>(Signal::Logs)
            .flat_map(|request| request.resource_logs);
        groups
            .flat_map(|group| group.scope_logs)
            .flat_map(|scope| scope.log_records)
            .collect()
    }

    /// Returns the metrics of the last export.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        let last = self
            .decoded::<ExportMetricsServiceRequest>(Signal::Metrics)
            .last();
        last.into_iter()
            .flat_map(|request| request.resource_metrics)
            .flat_map(|group| group.scope_metrics)
            .flat_map(|scope| scope.metrics)
            .collect()
    }

    fn decoded<M: Message + Default>(&self, signal: Signal) -> impl Iterator<Item = M> {
        let requests = self.requests(signal).into_iter();
        // Decoding does not fail, because the pipeline has encoded the requests.
        requests.filter_map(|request| M::decode(request.protobuf().clone()).ok())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Request>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
