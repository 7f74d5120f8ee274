//! Destinations of export requests.

use std::fmt;
use std::io;
use std::sync::Arc;

use prost::bytes::Bytes;

use crate::collector::Collector;
use crate::signal::Signal;

/// An encoded export request: spans, data points or log records with their resource.
#[derive(Clone, Debug)]
pub struct Request {
    signal: Signal,
    protobuf: Bytes,
}

impl Request {
    pub(crate) fn new(signal: Signal, protobuf: Bytes) -> Self {
        Self { signal, protobuf }
    }

    /// Returns the signal, which determines the type of the message.
    #[must_use]
    pub fn signal(&self) -> Signal {
        self.signal
    }

    /// Returns the `ExportTraceServiceRequest`, `ExportMetricsServiceRequest` or `ExportLogsServiceRequest`
    /// in protobuf.
    #[must_use]
    pub fn protobuf(&self) -> &Bytes {
        &self.protobuf
    }
}

/// Destination of a signal.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Destination {
    /// A collector, over OTLP.
    Collector(Box<Collector>),
    /// A function that the program provides.
    Custom(CustomExporter),
}

impl From<Collector> for Destination {
    fn from(collector: Collector) -> Self {
        Self::Collector(Box::new(collector))
    }
}

impl From<CustomExporter> for Destination {
    fn from(custom: CustomExporter) -> Self {
        Self::Custom(custom)
    }
}

/// An exporter that calls a function with each request, to print it or to keep it for a test.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use otlp_recorder::CustomExporter;
///
/// let requests = Arc::new(Mutex::new(Vec::new()));
/// let kept = Arc::clone(&requests);
/// let in_memory = CustomExporter::new("memory", move |request| {
///     kept.lock().unwrap().push(request.clone());
///     Ok(())
/// });
/// ```
#[derive(Clone)]
pub struct CustomExporter {
    name: &'static str,
    export: Arc<ExportFunction>,
}

type ExportFunction = dyn Fn(&Request) -> io::Result<()> + Send + Sync;

impl CustomExporter {
    /// Creates an exporter that calls `export` on the export thread; `export` must not block for long.
    ///
    /// `name` is the prefix of the exporter's `otel.component.type`, as in `console_span_exporter`.
    pub fn new(
        name: &'static str,
        export: impl Fn(&Request) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name,
            export: Arc::new(export),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn export(&self, request: &Request) -> io::Result<()> {
        (self.export)(request)
    }
}

impl fmt::Debug for CustomExporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomExporter")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
