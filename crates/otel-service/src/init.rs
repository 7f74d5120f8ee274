//! The set-up, in the required order: the pipeline and the providers, the globals, the log subscriber, the
//! instruments. [`Telemetry`] owns the pipeline and flushes it at shutdown.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once, OnceLock};
use std::time::Duration;

use opentelemetry::logs::LoggerProvider;
use opentelemetry::propagation::{TextMapCompositePropagator, TextMapPropagator};
use opentelemetry::{InstrumentationScope, Key, KeyValue, global};
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::{SdkMeterProvider, Temporality};
use opentelemetry_sdk::trace::SdkTracerProvider;
use otlp_recorder::{
    CustomExporter, ExemplarMeterProvider, Flusher, LOG_TARGET, Pipeline, Recorder, ShutdownError, SpanLayer,
};
use tracing::level_filters::LevelFilter;
use tracing::{Level, Subscriber};
use tracing_subscriber::filter::{Filtered, Targets};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer};

use crate::b3::B3Propagator;
use crate::baggage::BaggagePropagator;
use crate::config::{Config, ConfigFileError, Propagator};
use crate::exceptions;
use crate::http_settings;
use crate::layer::{TelemetryFilter, TelemetryLayer, span_filter};
use crate::logs::{self, Format, LogEvents};
use crate::mask::mask;
use crate::metrics;
use crate::names::SCHEMA_URL;
use crate::output::{STDERR, STDOUT, flush_output};
use crate::process;
#[cfg(feature = "prometheus")]
use crate::prometheus::{Listener, PrometheusError, Server};
use crate::propagation;
use crate::providers::{Extensions, Providers, start_pipeline};
use crate::recorder::{self, OWN};
use crate::service::{LogOutput, Service};
use crate::sqlx;
use crate::trace_context::TraceContextPropagator;
use crate::untraced::is_untraced;

/// Maximum time to wait for the reader of each stream at shutdown.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Maximum time to export the remaining telemetry when [`Telemetry`] is dropped or the process exits.
const END_DEADLINE: Duration = Duration::from_secs(2);

/// Flusher of the global instance.
static FLUSHER: OnceLock<Flusher> = OnceLock::new();

/// Reason the set-up failed. Invalid variables cause warnings, not errors; an invalid configuration file causes an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// Telemetry was set up earlier in this process.
    #[error("telemetry is already set up in this process; call init only once")]
    AlreadyInitialised,
    /// The file of `OTEL_CONFIG_FILE` cannot be used.
    #[error(transparent)]
    ConfigFile(#[from] ConfigFileError),
    /// The metrics cannot be served for Prometheus.
    #[cfg(feature = "prometheus")]
    #[error(transparent)]
    Prometheus(#[from] PrometheusError),
    /// The program has installed a `tracing` subscriber.
    #[error("another tracing subscriber is installed; add the layer of TelemetryBuilder::build to it: {0}")]
    Subscriber(#[from] tracing::subscriber::SetGlobalDefaultError),
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
    /// The server of metrics.
    #[cfg(feature = "prometheus")]
    server: Option<Server>,
}

/// Settings that do not concern the subscriber.
pub(crate) struct Settings {
    pub(crate) service: Service,
    pub(crate) resource: Vec<KeyValue>,
    /// Suffix of the component's name.
    pub(crate) component: Option<&'static str>,
    pub(crate) span_levels: String,
    pub(crate) sqlx_system: &'static str,
    pub(crate) python_names: bool,
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
    /// Level of the events of the `log` crate that are forwarded to the subscriber, once it is installed.
    pub(crate) log_level: Option<LevelFilter>,
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
    let mut config = Config::from_env(service, settings.resource).inspect_err(|_| {
        if is_global {
            CALLED.store(false, Ordering::Release);
        }
    })?;
    let mut warnings = std::mem::take(&mut config.warnings);
    if let Some(exporter) = settings.exporter {
        for destination in [&mut config.traces, &mut config.metrics, &mut config.logs] {
            *destination = Some(exporter.clone().into());
        }
        config.measuring.temporality = Temporality::Cumulative;
        #[cfg(feature = "prometheus")]
        {
            config.prometheus = None;
        }
    }
    let service_name = config
        .resource
        .get(&Key::from_static_str("service.name"))
        .map(|name| name.to_string())
        .unwrap_or_default();
    if is_global {
        recorder::install_service(service.name, service.version);
        metrics::set_python_names(settings.python_names);
    }
    #[cfg(feature = "prometheus")]
    let mut server = None;
    #[cfg(feature = "prometheus")]
    let listener = listener(&mut config).inspect_err(|_| {
        if is_global {
            CALLED.store(false, Ordering::Release);
        }
    })?;
    let running = (!config.disabled).then(|| {
        let component = settings
            .component
            .map(|suffix| format!("{service_name}-{suffix}"));
        let pipeline = start_pipeline(&config, component);
        warnings.extend_from_slice(pipeline.warnings());
        #[cfg(feature = "prometheus")]
        let scraped = listener.map(|listener| (listener, pipeline.pull_reader()));
        let extensions = settings.extensions;
        #[cfg(feature = "prometheus")]
        let extensions = extensions.with_reader(scraped.as_ref().map(|(_, reader)| reader));
        let (providers, recorder) = Providers::new(&config, &pipeline, extensions);
        #[cfg(feature = "prometheus")]
        if let Some((listener, reader)) = scraped {
            let served = listener.serve(reader);
            server = served.inspect_err(|error| warnings.push(error.to_string())).ok();
        }
        (providers, recorder, pipeline)
    });

    if is_global {
        let propagator = propagator(&config.propagators, settings.propagators);
        propagation::install(&propagator);
        http_settings::install(std::mem::take(&mut config.http));
        exceptions::install(config.exceptions);
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
        logger = provider.map(|provider| {
            // Records have the target of their event as the name of their scope.
            let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME"));
            provider.logger_with_scope(scope.with_schema_url(SCHEMA_URL).build())
        });
    }
    let mut log_filter = EnvFilter::try_new(&config.log_directives).unwrap_or_else(|error| {
        warnings.push(format!("RUST_LOG: {error}; info is used"));
        EnvFilter::new("info")
    });
    for target in [LOG_TARGET, "opentelemetry"] {
        let level = config.own_level.map(|level| format!("{target}={level}"));
        if let Some(Ok(directive)) = level.map(|directive| directive.parse()) {
            log_filter = log_filter.add_directive(directive);
        }
    }
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
        let environment = Key::from_static_str("deployment.environment.name");
        let environment = config.resource.get(&environment);
        logs::show_panic_messages(environment.is_some_and(|name| name.as_str() == "development"));
        logs::log_panics(flush_global);
    }
    // The signals share most variables, so their warnings repeat.
    warnings.sort_unstable();
    warnings.dedup();
    let logs = LogEvents {
        logger,
        output,
        masking: config.masking,
        python_names: settings.python_names,
        value_limit: config.log_value_limit,
    };
    let mut spans = spans.unwrap_or_else(|| fields_only(config.masking));
    if logs.is_used() {
        spans = spans.keep_fields();
    }
    let log_level = is_global.then(|| log_filter.max_level_hint().unwrap_or(LevelFilter::TRACE));
    let log_filter = Arc::new(log_filter);
    let has_sqlx = running.is_some() && span_filter.would_enable(sqlx::TARGET, &Level::DEBUG);
    let layer = TelemetryLayer {
        spans,
        logs,
        warnings: Vec::new(),
        log_level: None,
        first: Once::new(),
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
        #[cfg(feature = "prometheus")]
        server,
    };
    Ok(SetUp {
        telemetry,
        layer: layer.with_filter(filter),
        warnings,
        log_level,
    })
}

/// Opens the socket for Prometheus, unless the program or the configuration disables it.
#[cfg(feature = "prometheus")]
fn listener(config: &mut Config) -> Result<Option<Listener>, PrometheusError> {
    let settings = config.prometheus.take().filter(|_| !config.disabled);
    settings.map(Listener::bind).transpose()
}

/// Makes the instance the global one.
fn install(providers: &Providers, recorder: &Recorder, pipeline: &Pipeline) {
    global::set_tracer_provider(providers.traces.clone());
    recorder::install(recorder.clone());
    FLUSHER.get_or_init(|| pipeline.flusher());
    if let Some(provider) = &providers.metrics {
        let exemplars = pipeline.exemplars();
        global::set_meter_provider(ExemplarMeterProvider::new(provider.clone(), exemplars.clone()));
        metrics::enable(exemplars.clone());
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
        #[cfg(feature = "prometheus")]
        drop(self.server.take());
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
