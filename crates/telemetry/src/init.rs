//! Sets everything up in the order that matters: providers first, then the globals, then the log subscriber, and only
//! then does anything make an instrument. [`Telemetry`] owns the providers and flushes them at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry::logs::LoggerProvider;
use opentelemetry::propagation::{TextMapCompositePropagator, TextMapPropagator};
use opentelemetry::trace::TracerProvider;
use opentelemetry::{Key, global};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{self, BatchLogProcessor, SdkLoggerProvider};
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{Instrument, PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};
use opentelemetry_sdk::trace::{self, BatchSpanProcessor, SdkTracerProvider, SpanExporter};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::b3::B3Propagator;
use crate::config::{Config, Destination, Propagator, Service, Signal};
use crate::console::{ConsoleMetrics, ConsoleSpans};
use crate::context;
use crate::export::{Delivery, Logs, Metrics, Spans, Tidy};
use crate::logs::{Format, LogLayer};
use crate::metrics;
use crate::otlp::TransportError;
use crate::sampler::QuietSampler;
use crate::transport::Exporter;

const SCOPE: &str = "pressroom.telemetry";

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

/// Owns the providers. Keep it until the process ends, then call [`Telemetry::shutdown`].
#[derive(Debug)]
#[must_use = "without a shutdown the last batches are lost"]
pub struct Telemetry {
    service_name: String,
    traces: Option<(SdkTracerProvider, Arc<Delivery>)>,
    metrics: Option<(SdkMeterProvider, Arc<Delivery>)>,
    logs: Option<(SdkLoggerProvider, Arc<Delivery>)>,
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
    let telemetry = if config.disabled {
        Telemetry {
            service_name,
            traces: None,
            metrics: None,
            logs: None,
        }
    } else {
        Telemetry {
            service_name,
            traces: Some(traces(&config, &mut warnings)),
            metrics: meters(&config, &mut warnings),
            logs: logs(&config, &mut warnings),
        }
    };

    global::set_text_map_propagator(propagator(&config.propagators));
    if let Some((provider, _)) = &telemetry.traces {
        global::set_tracer_provider(provider.clone());
        context::install_tracer(provider.tracer(SCOPE));
    }
    if let Some((provider, _)) = &telemetry.metrics {
        global::set_meter_provider(provider.clone());
        metrics::set_ready();
    }

    let filter = EnvFilter::try_new(&config.log_directives).unwrap_or_else(|error| {
        warnings.push(format!("RUST_LOG: {error}; info is used"));
        EnvFilter::new("info")
    });
    tracing_subscriber::registry()
        .with(filter)
        .with(LogLayer {
            logger: telemetry
                .logs
                .as_ref()
                .map(|(provider, _)| provider.logger(SCOPE)),
            format: Format::of_stdout(),
            masking: config.masking,
            value_limit: config.log_limits.value_length,
        })
        .try_init()?;
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
    /// collector does. Blocks the thread: call it in `spawn_blocking`, or when the runtime has ended.
    ///
    /// # Errors
    /// Names the signals that were not delivered.
    pub fn shutdown(self, deadline: Duration) -> Result<(), ShutdownError> {
        let end = Instant::now() + deadline;
        let mut pending: Vec<(&'static str, Arc<Delivery>)> = Vec::new();
        let (done, results) = mpsc::channel();
        let mut stop = |signal, delivery, stop: Box<dyn FnOnce() -> OTelSdkResult + Send>| {
            pending.push((signal, delivery));
            let done = done.clone();
            let spawned = thread::Builder::new()
                .name(format!("otel-stop-{signal}"))
                .spawn(move || {
                    // The receiver is gone once the deadline is over.
                    let _ = done.send((signal, stop().is_ok()));
                });
            if let Err(error) = spawned {
                tracing::warn!(signal, error = %error, "telemetry cannot be flushed");
            }
        };
        if let Some((provider, delivery)) = self.traces {
            stop(
                "traces",
                delivery,
                Box::new(move || provider.shutdown_with_timeout(deadline)),
            );
        }
        if let Some((provider, delivery)) = self.metrics {
            stop(
                "metrics",
                delivery,
                Box::new(move || provider.shutdown_with_timeout(deadline)),
            );
        }
        if let Some((provider, delivery)) = self.logs {
            stop(
                "logs",
                delivery,
                Box::new(move || provider.shutdown_with_timeout(deadline)),
            );
        }
        drop(done);

        while let Ok((signal, stopped)) = results.recv_timeout(end.saturating_duration_since(Instant::now()))
        {
            pending.retain(|(name, delivery)| *name != signal || !stopped || delivery.is_failing());
        }
        if pending.is_empty() {
            return Ok(());
        }
        Err(ShutdownError {
            signals: pending.into_iter().map(|(signal, _)| signal).collect(),
        })
    }
}

fn traces(config: &Config, warnings: &mut Vec<String>) -> (SdkTracerProvider, Arc<Delivery>) {
    let delivery = Delivery::new("traces");
    let builder = SdkTracerProvider::builder()
        .with_resource(config.resource.clone())
        .with_span_limits(config.span_limits)
        .with_sampler(QuietSampler {
            inner: config.sampler.clone(),
        });
    // Without an exporter there are still ids, for logs, answers and whoever is called.
    let builder = match &config.traces {
        Destination::Off => builder,
        Destination::Console => builder.with_span_processor(span_batches(config, ConsoleSpans, &delivery)),
        Destination::Otlp(otlp) => {
            match Exporter::new(Signal::Traces, otlp, config.span_batches.timeout, warnings) {
                Ok(exporter) => builder.with_span_processor(span_batches(config, exporter, &delivery)),
                Err(error) => {
                    warnings.push(unavailable("traces", &error));
                    builder
                }
            }
        }
    };
    (builder.build(), delivery)
}

fn span_batches<E: SpanExporter + 'static>(
    config: &Config,
    inner: E,
    delivery: &Arc<Delivery>,
) -> BatchSpanProcessor {
    let exporter = Spans {
        inner,
        tidy: Tidy {
            masking: config.masking,
            value_limit: config.span_value_limit,
        },
        delivery: Arc::clone(delivery),
    };
    BatchSpanProcessor::builder(exporter)
        .with_batch_config(
            trace::BatchConfigBuilder::default()
                .with_max_queue_size(config.span_batches.queue_size)
                .with_max_export_batch_size(config.span_batches.batch_size)
                .with_scheduled_delay(config.span_batches.delay)
                .build(),
        )
        .build()
}

fn meters(config: &Config, warnings: &mut Vec<String>) -> Option<(SdkMeterProvider, Arc<Delivery>)> {
    let delivery = Delivery::new("metrics");
    let histograms = config.measuring.histograms;
    let builder = SdkMeterProvider::builder()
        .with_resource(config.resource.clone())
        .with_view(move |instrument: &Instrument| histograms.stream(instrument));
    let provider = match &config.metrics {
        Destination::Off => return None,
        Destination::Console => builder
            .with_reader(metric_reader(config, ConsoleMetrics, &delivery))
            .build(),
        Destination::Otlp(otlp) => {
            match Exporter::new(Signal::Metrics, otlp, config.measuring.timeout, warnings) {
                Ok(exporter) => {
                    let exporter = exporter.with_temporality(config.measuring.temporality);
                    builder
                        .with_reader(metric_reader(config, exporter, &delivery))
                        .build()
                }
                Err(error) => {
                    warnings.push(unavailable("metrics", &error));
                    return None;
                }
            }
        }
    };
    Some((provider, delivery))
}

fn metric_reader<E: PushMetricExporter>(
    config: &Config,
    inner: E,
    delivery: &Arc<Delivery>,
) -> PeriodicReader<Metrics<E>> {
    PeriodicReader::builder(Metrics {
        inner,
        delivery: Arc::clone(delivery),
    })
    .with_interval(config.measuring.interval)
    .build()
}

fn logs(config: &Config, warnings: &mut Vec<String>) -> Option<(SdkLoggerProvider, Arc<Delivery>)> {
    let Destination::Otlp(otlp) = &config.logs else {
        return None;
    };
    let delivery = Delivery::new("logs");
    let inner = match Exporter::new(Signal::Logs, otlp, config.log_batches.timeout, warnings) {
        Ok(inner) => inner.with_attribute_limit(config.log_limits.attributes),
        Err(error) => {
            warnings.push(unavailable("logs", &error));
            return None;
        }
    };
    let processor = BatchLogProcessor::builder(Logs {
        inner,
        delivery: Arc::clone(&delivery),
    })
    .with_batch_config(
        logs::BatchConfigBuilder::default()
            .with_max_queue_size(config.log_batches.queue_size)
            .with_max_export_batch_size(config.log_batches.batch_size)
            .with_scheduled_delay(config.log_batches.delay)
            .build(),
    )
    .build();
    let provider = SdkLoggerProvider::builder()
        .with_resource(config.resource.clone())
        .with_log_processor(processor)
        .build();
    Some((provider, delivery))
}

fn unavailable(signal: &str, error: &TransportError) -> String {
    format!("{signal} are not exported: {error}")
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
