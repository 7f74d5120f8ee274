//! Sets everything up in the order that matters: providers first, then the globals, then the log subscriber, and only
//! then does anything make an instrument. [`Telemetry`] owns the providers and flushes them at the end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::logs::LoggerProvider;
use opentelemetry::propagation::{TextMapCompositePropagator, TextMapPropagator};
use opentelemetry::{Key, global};
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::SCOPE;
use crate::b3::B3Propagator;
use crate::config::{Config, Propagator, Service, Signal};
use crate::context;
use crate::exemplar;
use crate::export::ExportThread;
use crate::logs::{self, Format, LogLayer};
use crate::metrics;
use crate::process;
use crate::providers::Providers;

/// Why telemetry could not be set up. No value of a variable leads here.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// [`init`] was called before in this process.
    #[error("telemetry is set up already")]
    AlreadyInitialised,
    /// Something else has installed a `tracing` subscriber.
    #[error("another tracing subscriber is installed: {0}")]
    Subscriber(#[from] tracing_subscriber::util::TryInitError),
}

/// What was lost at the end.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error("telemetry not delivered before the deadline: {}", signals.join(", "))]
pub struct ShutdownError {
    /// The signals (`traces`, `metrics`, `logs`) whose last batch did not reach the collector.
    pub signals: Vec<&'static str>,
}

/// Owns the providers and the thread that exports. Keep it until the process ends, then call [`Telemetry::shutdown`].
#[derive(Debug)]
#[must_use = "without a shutdown the last batches are lost"]
pub struct Telemetry {
    service_name: String,
    providers: Providers,
    thread: Option<ExportThread>,
}

/// Reads `OTEL_*`, `RUST_LOG` and `PII_MASKING`, sets the global providers and propagators and installs the `tracing`
/// subscriber. May be called inside or outside of an async runtime. A value that cannot be read is logged as a warning
/// and replaced by its default.
///
/// # Errors
/// When called twice, or when a subscriber is installed already.
pub fn init(service: Service) -> Result<Telemetry, InitError> {
    static CALLED: AtomicBool = AtomicBool::new(false);
    if CALLED.swap(true, Ordering::AcqRel) {
        return Err(InitError::AlreadyInitialised);
    }
    let mut config = Config::from_env(service);
    let mut warnings = std::mem::take(&mut config.warnings);
    let service_name = config
        .resource
        .get(&Key::from_static_str("service.name"))
        .map(|name| name.to_string())
        .unwrap_or_default();
    let (providers, recorder, thread) = if config.disabled {
        (Providers::default(), None, None)
    } else {
        Providers::start(&config, &mut warnings)
    };

    global::set_text_map_propagator(propagator(&config.propagators));
    if let Some(provider) = &providers.traces {
        global::set_tracer_provider(provider.clone());
    }
    if let Some(recorder) = recorder {
        context::install_recorder(recorder);
    }
    if let Some(provider) = &providers.metrics {
        global::set_meter_provider(provider.clone());
        exemplar::set_filter(config.measuring.exemplars);
        metrics::set_ready();
        process::observe(&metrics::meter());
    }
    let logger = providers.logs.as_ref().map(|provider| provider.logger(SCOPE));
    let telemetry = Telemetry {
        service_name,
        providers,
        thread,
    };

    let filter = EnvFilter::try_new(&config.log_directives).unwrap_or_else(|error| {
        warnings.push(format!("RUST_LOG: {error}; info is used"));
        EnvFilter::new("info")
    });
    let installed = tracing_subscriber::registry()
        .with(filter)
        .with(LogLayer {
            logger,
            format: Format::of_stdout(),
            masking: config.masking,
            value_limit: config.log_limits.value_length,
        })
        .try_init();
    if let Err(error) = installed {
        // Nothing was recorded that would have to leave.
        telemetry.shutdown(Duration::ZERO).ok();
        return Err(error.into());
    }
    if let Err(error) = logs::bridge_log() {
        warnings.push(format!("events of the crate log are not ours: {error}"));
    }
    logs::log_panics();
    // The three signals share most variables, and with them most complaints.
    warnings.sort_unstable();
    warnings.dedup();
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(telemetry)
}

impl Telemetry {
    /// The service's name in force: that of `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES`, or the default.
    #[must_use]
    pub fn service_name(&self) -> &str {
        &self.service_name
    }

    /// Flushes and stops all signals at once, and comes back when they are done or at the deadline, whatever the
    /// collector does. Blocks the thread that it is called on and needs no other: it works at the end of a
    /// current-thread runtime too. Where other tasks are still to run meanwhile, call it in `spawn_blocking`. A signal
    /// whose collector has been failing gets a second at the most.
    ///
    /// # Errors
    /// Names the signals that were not delivered.
    pub fn shutdown(self, deadline: Duration) -> Result<(), ShutdownError> {
        // Meters are read once more before they are closed.
        self.providers.close_queues();
        let undelivered = self
            .thread
            .map(|thread| thread.finish(deadline))
            .unwrap_or_default();
        self.providers.close_meters();
        if undelivered.is_empty() {
            return Ok(());
        }
        Err(ShutdownError {
            signals: undelivered.into_iter().map(Signal::name).collect(),
        })
    }
}

fn propagator(propagators: &[Propagator]) -> TextMapCompositePropagator {
    TextMapCompositePropagator::new(
        propagators
            .iter()
            .map(|propagator| -> Box<dyn TextMapPropagator + Send + Sync> {
                match propagator {
                    Propagator::TraceContext => Box::new(TraceContextPropagator::new()),
                    Propagator::Baggage => Box::new(BaggagePropagator::new()),
                    Propagator::B3(encoding) => Box::new(B3Propagator::new(*encoding)),
                }
            })
            .collect(),
    )
}
