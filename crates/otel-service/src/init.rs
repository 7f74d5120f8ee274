//! The set-up, in the required order: the pipeline and the providers, the globals, the log subscriber, the
//! instruments. [`Telemetry`] owns the pipeline and flushes it at shutdown.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once, OnceLock};
use std::time::Duration;

use opentelemetry::logs::LoggerProvider;
use opentelemetry::propagation::{TextMapCompositePropagator, TextMapPropagator};
use opentelemetry::{Key, KeyValue, global};
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};
use opentelemetry_sdk::trace::SdkTracerProvider;
use otlp_recorder::{CustomExporter, Flusher, Pipeline, Recorder, ShutdownError, SpanLayer};
use tracing::level_filters::LevelFilter;
use tracing::{Level, Subscriber};
use tracing_subscriber::filter::{Filtered, Targets};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer};

use crate::b3::B3Propagator;
use crate::config::{Config, Propagator};
use crate::layer::{TelemetryFilter, TelemetryLayer, span_filter};
use crate::logs::{self, Format, LogEvents};
use crate::mask::mask;
use crate::metrics;
use crate::output::{STDERR, STDOUT, flush_output};
use crate::process;
use crate::propagation;
use crate::providers::{Extensions, Providers, start_pipeline};
use crate::recorder::{self, OWN};
use crate::service::{LogOutput, Service};
use crate::sqlx;
use crate::untraced::is_untraced;

/// Maximum time to wait for the reader of each stream at shutdown.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Maximum time to export the remaining telemetry when [`Telemetry`] is dropped or the process exits.
const END_DEADLINE: Duration = Duration::from_secs(2);

/// Flusher of the global instance.
static FLUSHER: OnceLock<Flusher> = OnceLock::new();

/// Reason the set-up failed. Invalid variables cause warnings, not errors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// Telemetry was set up earlier in this process.
    #[error("telemetry is already set up in this process; call init only once")]
    AlreadyInitialised,
    /// The program has installed a `tracing` subscriber.
    #[error("another tracing subscriber is installed; add the layer of TelemetryBuilder::build to it: {0}")]
    Subscriber(#[from] tracing_subscriber::util::TryInitError),
}

/// The running telemetry of the process. Keep it until the process ends, then call [`Telemetry::shutdown`].
///
/// Dropping it, as a panic in `main` does, shuts it down within two seconds. [`exit`] flushes it before it ends the
/// process.
#[derive(Debug)]
#[must_use = "dropping the telemetry shuts it down"]
pub struct Telemetry {
    service_name: String,
    /// `None` with `OTEL_SDK_DISABLED`.
    running: Option<(Providers, Pipeline)>,
}

/// Settings that do not concern the subscriber.
pub(crate) struct Settings {
    pub(crate) service: Service,
    pub(crate) resource: Vec<KeyValue>,
    pub(crate) span_levels: String,
    pub(crate) sqlx_system: &'static str,
    pub(crate) extensions: Extensions,
    pub(crate) propagators: Vec<Box<dyn TextMapPropagator + Send + Sync>>,
    /// Destination of all signals, instead of those that the environment selects.
    pub(crate) exporter: Option<CustomExporter>,
    /// Whether the instance leaves everything process-wide to another one.
    pub(crate) is_isolated: bool,
}

/// Result of [`set_up`].
pub(crate) struct SetUp<S> {
    pub(crate) telemetry: Telemetry,
    /// Layer for the subscriber.
    pub(crate) layer: Filtered<TelemetryLayer, TelemetryFilter, S>,
    /// Problems to be logged.
    pub(crate) warnings: Vec<String>,
}

/// Sets up everything except the subscriber.
pub(crate) fn set_up<S>(settings: Settings) -> Result<SetUp<S>, InitError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    static CALLED: AtomicBool = AtomicBool::new(false);
    let is_global = !settings.is_isolated;
    if is_global && CALLED.swap(true, Ordering::AcqRel) {
        return Err(InitError::AlreadyInitialised);
    }
    let service = settings.service;
    let mut config = Config::from_env(service, settings.resource);
    let mut warnings = std::mem::take(&mut config.warnings);
    if let Some(exporter) = settings.exporter {
        for destination in [&mut config.traces, &mut config.metrics, &mut config.logs] {
            *destination = Some(exporter.clone().into());
        }
    }
    let service_name = config
        .resource
        .get(&Key::from_static_str("service.name"))
        .map(|name| name.to_string())
        .unwrap_or_default();
    if is_global {
        recorder::install_service(service.name, service.version);
    }
    let running = (!config.disabled).then(|| {
        let pipeline = start_pipeline(&config);
        warnings.extend_from_slice(pipeline.warnings());
        let (providers, recorder) = Providers::new(&config, &pipeline, settings.extensions);
        (providers, recorder, pipeline)
    });

    if is_global {
        let propagator = propagator(&config.propagators, settings.propagators);
        propagation::install(&propagator);
        global::set_text_map_propagator(propagator);
    }
    let mut logger = None;
    let mut spans = None;
    if let Some((providers, recorder, pipeline)) = &running {
        spans = Some(SpanLayer::new(recorder).skip_if(is_untraced));
        if is_global {
            install(providers, recorder, pipeline);
        }
        let provider = providers.logs.as_ref();
        logger = provider.map(|provider| provider.logger(env!("CARGO_PKG_NAME")));
    }
    let log_filter = EnvFilter::try_new(&config.log_directives).unwrap_or_else(|error| {
        warnings.push(format!("RUST_LOG: {error}; info is used"));
        EnvFilter::new("info")
    });
    let span_filter = span_filter(&settings.span_levels).unwrap_or_else(|error| {
        warnings.push(format!("the span levels are ignored: {error}"));
        Targets::new().with_default(LevelFilter::INFO)
    });
    let output = match service.log_output {
        LogOutput::Stdout => Some(&STDOUT),
        LogOutput::Stderr => Some(&STDERR),
        LogOutput::Off => None,
    };
    let output = output.map(|output| {
        let format = Format::new(service.log_format, output.is_terminal());
        output.report_with(move |count| format.dropped(count));
        (output, format)
    });
    if is_global {
        if let Err(error) = logs::bridge_log(log_filter.max_level_hint().unwrap_or(LevelFilter::TRACE)) {
            warnings.push(format!("events of the log crate are not recorded: {error}"));
        }
        logs::log_panics(flush_global);
    }
    // The signals share most variables, so their warnings repeat.
    warnings.sort_unstable();
    warnings.dedup();
    let logs = LogEvents {
        logger,
        output,
        masking: config.masking,
        value_limit: config.log_value_limit,
    };
    let mut spans = spans.unwrap_or_else(|| fields_only(config.masking));
    if logs.is_used() {
        spans = spans.keep_fields();
    }
    let log_filter = Arc::new(log_filter);
    let has_sqlx = running.is_some() && span_filter.would_enable(sqlx::TARGET, &Level::DEBUG);
    let layer = TelemetryLayer {
        spans,
        logs,
        warnings: Vec::new(),
        warned: Once::new(),
        sqlx_system: has_sqlx.then_some(settings.sqlx_system),
        log_filter: Arc::clone(&log_filter),
    };
    let filter = TelemetryFilter {
        spans: span_filter,
        logs: log_filter,
        has_sqlx,
    };
    let telemetry = Telemetry {
        service_name,
        running: running.map(|(providers, _, pipeline)| (providers, pipeline)),
    };
    Ok(SetUp {
        telemetry,
        layer: layer.with_filter(filter),
        warnings,
    })
}

/// Makes the instance the global one.
fn install(providers: &Providers, recorder: &Recorder, pipeline: &Pipeline) {
    global::set_tracer_provider(providers.traces.clone());
    recorder::install(recorder.clone());
    FLUSHER.get_or_init(|| pipeline.flusher());
    if let Some(provider) = &providers.metrics {
        global::set_meter_provider(provider.clone());
        metrics::enable(pipeline.exemplars().clone());
        pipeline.observe(&OWN.meter());
        process::observe(&OWN.meter());
    }
}

/// Exports everything that the process has recorded so far.
fn flush_global(deadline: Duration) {
    if let Some(flusher) = FLUSHER.get() {
        // There is no caller to return the error to; the export thread has logged the reason.
        let _ = flusher.flush(deadline);
    }
}

/// Exports everything recorded so far, for up to two seconds, flushes the log output, and ends the process.
///
/// [`std::process::exit`] runs no destructors, so telemetry that has not been exported yet would be lost.
pub fn exit(code: i32) -> ! {
    flush_global(END_DEADLINE);
    flush_output(FLUSH_TIMEOUT);
    std::process::exit(code)
}

/// Returns a layer that records no spans, but keeps their fields for log records.
fn fields_only(masking: bool) -> SpanLayer {
    let mut pipeline = Pipeline::builder();
    if masking {
        pipeline = pipeline.redact(mask);
    }
    SpanLayer::new(pipeline.start().recorder()).skip_if(|_| true)
}

impl Telemetry {
    /// Returns the effective name of the service, from `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` or the
    /// default.
    #[must_use]
    pub fn service_name(&self) -> &str {
        &self.service_name
    }

    /// Flushes and stops all signals, and then flushes the log output for up to a second.
    ///
    /// Returns when all signals are delivered, or at the deadline at the latest. A collector whose last
    /// export failed gets at most one second. Blocks the calling thread; within a runtime,
    /// call it in `spawn_blocking` to keep other tasks running.
    ///
    /// # Errors
    ///
    /// Returns the signals that were not delivered.
    pub fn shutdown(mut self, deadline: Duration) -> Result<(), ShutdownError> {
        self.finish(deadline)
    }

    /// Exports everything recorded so far, without shutting down.
    ///
    /// Returns when all signals are delivered, or at the deadline at the latest. Blocks the calling thread, as
    /// [`Telemetry::shutdown`] does.
    ///
    /// # Errors
    ///
    /// Returns the signals that were not delivered.
    pub fn flush(&self, deadline: Duration) -> Result<(), ShutdownError> {
        match &self.running {
            Some((_, pipeline)) => pipeline.flush(deadline),
            None => Ok(()),
        }
    }

    /// Returns the tracer provider, or `None` with `OTEL_SDK_DISABLED`.
    #[must_use]
    pub fn tracer_provider(&self) -> Option<&SdkTracerProvider> {
        self.running.as_ref().map(|(providers, _)| &providers.traces)
    }

    /// Returns the meter provider, or `None` if no metrics are exported.
    #[must_use]
    pub fn meter_provider(&self) -> Option<&SdkMeterProvider> {
        self.running.as_ref()?.0.metrics.as_ref()
    }

    /// Returns the logger provider, or `None` if no logs are exported.
    #[must_use]
    pub fn logger_provider(&self) -> Option<&SdkLoggerProvider> {
        self.running.as_ref()?.0.logs.as_ref()
    }

    fn finish(&mut self, deadline: Duration) -> Result<(), ShutdownError> {
        let result = match self.running.take() {
            Some((providers, pipeline)) => {
                let result = pipeline.shutdown(deadline);
                providers.close();
                result
            }
            None => Ok(()),
        };
        flush_output(FLUSH_TIMEOUT);
        result
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if self.running.is_some() {
            // There is no caller to return the error to; the export thread has logged the reason.
            let _ = self.finish(END_DEADLINE);
        }
    }
}

fn propagator(
    selected: &[Propagator],
    added: Vec<Box<dyn TextMapPropagator + Send + Sync>>,
) -> TextMapCompositePropagator {
    let selected = selected
        .iter()
        .map(|propagator| -> Box<dyn TextMapPropagator + Send + Sync> {
            match propagator {
                Propagator::TraceContext => Box::new(TraceContextPropagator::new()),
                Propagator::Baggage => Box::new(BaggagePropagator::new()),
                Propagator::B3(encoding) => Box::new(B3Propagator::new(*encoding)),
            }
        });
    TextMapCompositePropagator::new(selected.chain(added).collect())
}
