//! The settings, whatever their source.

use std::error::Error;
use std::fmt;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, ShouldSample, SpanLimits};
use otlp_recorder::{BatchSettings, Destination};

use super::metrics::{Measuring, Views};
#[cfg(feature = "prometheus")]
use super::prometheus::Prometheus;
use super::traces::Propagator;
use crate::exceptions::ExceptionSignal;
use crate::http_settings::HttpSettings;

/// Variable with the path of the configuration file.
pub(super) const CONFIG_FILE: &str = "OTEL_CONFIG_FILE";

/// Reason the file of `OTEL_CONFIG_FILE` (feature `config-file`) cannot be used. No problem contains a value of the
/// file.
#[derive(Debug)]
#[non_exhaustive]
pub struct ConfigFileError {
    /// Path of the file.
    pub file: String,
    /// Problems with the line and the path of the property.
    pub problems: Vec<String>,
}

impl fmt::Display for ConfigFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problems = self.problems.join("; ");
        write!(
            f,
            "the configuration file {} cannot be used: {problems}",
            self.file
        )
    }
}

impl Error for ConfigFileError {}

/// Settings of [`crate::init`].
#[derive(Debug)]
pub(crate) struct Config {
    /// `OTEL_SDK_DISABLED`.
    pub(crate) disabled: bool,
    pub(crate) resource: Resource,
    pub(crate) sampler: Sampler,
    /// A sampler other than those of the SDK, used instead of `sampler`.
    pub(crate) custom_sampler: Option<Box<dyn ShouldSample>>,
    pub(crate) propagators: Vec<Propagator>,
    pub(crate) traces: Option<Destination>,
    pub(crate) metrics: Option<Destination>,
    #[cfg(feature = "prometheus")]
    pub(crate) prometheus: Option<Prometheus>,
    pub(crate) logs: Option<Destination>,
    pub(crate) span_batches: BatchSettings,
    pub(crate) log_batches: BatchSettings,
    pub(crate) measuring: Measuring,
    pub(crate) views: Views,
    /// Unparsed value of `RUST_LOG`.
    pub(crate) log_directives: String,
    /// Whether e-mail addresses are masked.
    pub(crate) masking: bool,
    /// Maximum numbers of attributes, events and links of a span.
    pub(crate) span_limits: SpanLimits,
    /// Maximum length of a string attribute of a span, in characters.
    pub(crate) span_value_limit: Option<usize>,
    /// Maximum number of attributes of a log record.
    pub(crate) log_attribute_limit: usize,
    /// Maximum length of a string attribute of a log record, in characters.
    pub(crate) log_value_limit: Option<usize>,
    pub(crate) http: HttpSettings,
    pub(crate) exceptions: ExceptionSignal,
    /// Level of the events about the export itself, from `OTEL_LOG_LEVEL`.
    pub(crate) own_level: Option<&'static str>,
    /// Messages about invalid variables.
    pub(crate) warnings: Vec<String>,
}
