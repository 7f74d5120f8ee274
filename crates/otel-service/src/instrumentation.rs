//! Building blocks for instrumenting a library: spans in its own scope, with attributes that are encoded as
//! they are set, and instruments that are created when metrics are enabled. The instruments of this crate use
//! them too.

pub use otlp_recorder::{
    Attributes, DurationHistogram, DurationSeries, PrewrittenAttributes, SpanStart, Table,
};

pub use crate::context::{inject_context_of, link_to, within};
pub use crate::exceptions::{Operation, record_exception};
pub use crate::failure::{record_failure, record_unfinished};
pub use crate::metrics::{InstrumentFactory, Instruments, SECONDS, python_names};
pub use crate::recorder::Instrumentation;
pub use crate::stopwatch::Stopwatch;
