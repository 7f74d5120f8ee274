#![doc = include_str!("../README.md")]

mod backoff;
mod batch_settings;
mod collector;
mod component;
mod destination;
mod encode;
mod exemplar;
mod exemplar_meter;
mod export;
mod histogram;
#[cfg(feature = "json")]
mod json_lines;
mod log_target;
mod memory;
mod merge;
mod pipeline;
mod points;
mod processors;
mod queue;
mod recorder;
mod signal;
mod span_counts;
#[cfg(feature = "tracing")]
mod span_layer;
mod table;
mod text;
mod transport;

pub use batch_settings::BatchSettings;
pub use collector::{ClientFiles, Collector, Compression, PemFile, Protocol};
pub use component::enter_component;
pub use destination::{CustomExporter, Destination, Request};
pub use encode::{Attributes, PrewrittenAttributes};
pub use exemplar::{ExemplarFilter, Exemplars};
pub use exemplar_meter::ExemplarMeterProvider;
pub use export::{PullReader, QueueMetricReader, is_export_thread};
pub use histogram::{DurationHistogram, DurationSeries};
pub use log_target::LOG_TARGET;
pub use memory::InMemory;
pub use merge::{deduplicate_keys, merge_points};
pub use pipeline::{Flusher, Pipeline, PipelineBuilder, ShutdownError};
pub use processors::{QueueLogProcessor, QueueSpanProcessor};
pub use recorder::{RANDOM_TRACE_ID, RecordedSpan, Recorder, SpanStart, Tracer};
pub use signal::Signal;
#[cfg(feature = "tracing")]
pub use span_layer::{
    CONTEXT_TARGET, EXCEPTION_MESSAGE, SpanLayer, field_value, is_error_field, with_sources, within_crates,
};
pub use table::Table;
pub use text::Redact;
#[cfg(feature = "grpc")]
pub use transport::RawCodec;
pub use transport::retry_after;
