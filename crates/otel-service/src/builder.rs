//! Builder of [`Telemetry`], for programs that customise the set-up.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry_sdk::logs::{LogProcessor, LoggerProviderBuilder};
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{Instrument, Stream};
use opentelemetry_sdk::trace::{IdGenerator, ShouldSample, SpanProcessor, TracerProviderBuilder};
use otlp_recorder::CustomExporter;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Layered, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

use crate::baggage_attributes::BaggageProcessor;
use crate::init::{self, InitError, SetUp, Settings, Telemetry};
use crate::logs;
use crate::providers::{Configure, Extensions};
use crate::service::{LogFormat, LogOutput, Service};

/// Builder of [`Telemetry`], with settings beyond those of [`Service`] and the environment.
///
/// ```no_run
/// use otel_service::{KeyValue, Service, Telemetry};
/// use tracing_subscriber::Layer as _;
/// use tracing_subscriber::filter::LevelFilter;
/// # use otel_service::tracing;
/// # struct Audit;
/// # impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Audit {}
///
/// let telemetry = Telemetry::builder(Service::new("my-service", env!("CARGO_PKG_VERSION")))
///     .resource([KeyValue::new("deployment.environment.name", "staging")])
///     .layer(Audit.with_filter(LevelFilter::WARN))
///     .init()?;
/// # Ok::<(), otel_service::InitError>(())
/// ```
#[must_use = "a builder does nothing until `init` or `build` is called"]
pub struct TelemetryBuilder<S = Registry> {
    pub(crate) settings: Settings,
    /// Subscriber that [`TelemetryBuilder::init`] completes and installs.
    subscriber: S,
}

impl<S> fmt::Debug for TelemetryBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TelemetryBuilder")
            .field("service", &self.settings.service)
            .finish_non_exhaustive()
    }
}

/// Reads `OTEL_*`, `RUST_LOG` and `PII_MASKING`, sets the global providers and propagators, and installs the
/// `tracing` subscriber. Works inside and outside of an async runtime. An invalid value causes a warning and
/// is replaced by the default. [`Telemetry::builder`] has more settings.
///
/// # Errors
///
/// Returns an error if telemetry is already set up, or if the program has installed a subscriber.
pub fn init(service: Service) -> Result<Telemetry, InitError> {
    Telemetry::builder(service).init()
}

impl Telemetry {
    /// Returns a builder, for programs that add their own layers, processors, views and other parts.
    pub fn builder(service: Service) -> TelemetryBuilder {
        TelemetryBuilder::new(service)
    }
}

impl TelemetryBuilder {
    pub(crate) fn new(service: Service) -> Self {
        Self {
            settings: Settings {
                service,
                resource: Vec::new(),
                component: None,
                span_levels: String::new(),
                sqlx_system: "other_sql",
                python_names: false,
                extensions: Extensions::default(),
                propagators: Vec::new(),
                exporter: None,
                is_isolated: false,
            },
            subscriber: tracing_subscriber::registry(),
        }
    }
}

impl<S> TelemetryBuilder<S>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    /// Adds attributes to the resource. `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` override them.
    pub fn resource(mut self, attributes: impl IntoIterator<Item = KeyValue>) -> Self {
        self.settings.resource.extend(attributes);
        self
    }

    /// Makes a part of the program a service of its own, whose name is that of the service with `-` and `suffix`: the
    /// spans and log records of threads that have called [`enter_component`](crate::enter_component) belong to it.
    /// Metrics belong to the process.
    ///
    /// For a program that runs two services in one process, the second on its own runtime:
    ///
    /// ```no_run
    /// use otel_service::{Service, Telemetry, enter_component};
    ///
    /// let telemetry = Telemetry::builder(Service::new("shop", "1.0.0")).component("worker").init()?;
    /// // Its threads record telemetry as `shop-worker`.
    /// let runtime = tokio::runtime::Builder::new_multi_thread()
    ///     .on_thread_start(enter_component)
    ///     .build()?;
    /// # drop(telemetry);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn component(mut self, suffix: &'static str) -> Self {
        self.settings.component = Some(suffix);
        self
    }

    /// Sets the stream of log lines, which is that of the [`Service`] by default.
    pub fn log_output(mut self, output: LogOutput) -> Self {
        self.settings.service.log_output = output;
        self
    }

    /// Sets the format of log lines, which is that of the [`Service`] by default.
    pub fn log_format(mut self, format: LogFormat) -> Self {
        self.settings.service.log_format = format;
        self
    }

    /// Adds a layer to the subscriber that [`TelemetryBuilder::init`] installs.
    ///
    /// `RUST_LOG` does not apply to the layer; unless it has its own filter, it receives all spans and events,
    /// including those of transports at the level TRACE.
    pub fn layer<L: Layer<S>>(self, layer: L) -> TelemetryBuilder<Layered<L, S>> {
        TelemetryBuilder {
            settings: self.settings,
            subscriber: self.subscriber.with(layer),
        }
    }

    /// Sets the levels of the recorded `tracing` spans by target, such as `info,my_crate=trace,h2=debug`.
    ///
    /// By default, spans are recorded down to the level DEBUG, except for spans of transports and runtimes
    /// (h2, hyper, tonic, tower, tokio and others).
    pub fn span_levels(mut self, directives: impl Into<String>) -> Self {
        self.settings.span_levels = directives.into();
        self
    }

    /// Sets the `db.system.name` of statements of sqlx, such as `postgresql` or `sqlite`; `other_sql` by default.
    ///
    /// Statements have spans if sqlx logs them, regardless of `RUST_LOG`, unless
    /// [`TelemetryBuilder::span_levels`] contains `sqlx=off`. sqlx does not report whether a statement failed.
    pub fn sqlx_system(mut self, system: &'static str) -> Self {
        self.settings.sqlx_system = system;
        self
    }

    /// Adds the names that dashboards of a Flask and Celery service use to those of the conventions: the metrics
    /// `http_requests_total`, `http_request_duration_seconds`, `celery_tasks_total` and
    /// `celery_task_duration_seconds`, and the attributes `otelTraceID` and `otelSpanID` of log records.
    pub fn python_names(mut self) -> Self {
        self.settings.python_names = true;
        self
    }

    /// Adds a span processor, which is called before the export.
    ///
    /// Spans of this crate and of `tracing` are then SDK spans, which cost more than twice as much.
    pub fn span_processor(self, processor: impl SpanProcessor + 'static) -> Self {
        self.with_traces(|builder| builder.with_span_processor(processor))
    }

    /// Sets the generator of trace and span ids.
    ///
    /// As with [`TelemetryBuilder::span_processor`], all spans are then SDK spans. New traces do not have the random flag
    /// of W3C Trace Context.
    pub fn id_generator(mut self, generator: impl IdGenerator + 'static) -> Self {
        self.settings.extensions.has_id_generator = true;
        self.with_traces(|builder| builder.with_id_generator(generator))
    }

    /// Sets the sampler. Overrides `OTEL_TRACES_SAMPLER`.
    ///
    /// As with [`TelemetryBuilder::span_processor`], all spans are then SDK spans.
    pub fn sampler(mut self, sampler: impl ShouldSample + 'static) -> Self {
        self.settings.extensions.sampler = Some(Box::new(sampler));
        self
    }

    fn with_traces(
        mut self,
        configure: impl FnOnce(TracerProviderBuilder) -> TracerProviderBuilder + 'static,
    ) -> Self {
        self.settings.extensions.traces.push(Box::new(configure));
        self
    }

    /// Adds a log processor, which is called before the export and can change the records.
    pub fn log_processor(mut self, processor: impl LogProcessor + 'static) -> Self {
        let configure: Configure<LoggerProviderBuilder> =
            Box::new(|builder| builder.with_log_processor(processor));
        self.settings.extensions.logs.push(configure);
        self
    }

    /// Adds a metric view. It replaces the settings of this builder for the instruments that it matches.
    pub fn view(mut self, view: impl Fn(&Instrument) -> Option<Stream> + Send + Sync + 'static) -> Self {
        self.settings.extensions.views.push(Arc::new(view));
        self
    }

    /// Sets the maximum number of attribute sets of an instrument, 2,000 by default; further measurements are
    /// aggregated as `otel.metric.overflow`. A view can set the limit of a single instrument.
    pub fn cardinality_limit(mut self, limit: usize) -> Self {
        self.settings.extensions.cardinality_limit = Some(limit);
        self
    }

    /// Copies the baggage entries whose key `is_copied` accepts to the attributes of spans and log records.
    ///
    /// As with [`TelemetryBuilder::span_processor`], all spans are then spans of the SDK.
    pub fn baggage_attributes(self, is_copied: fn(&str) -> bool) -> Self {
        let processor = BaggageProcessor(is_copied);
        self.span_processor(processor).log_processor(processor)
    }

    /// Adds a metric reader, which collects metrics independently of the export.
    pub fn metric_reader(mut self, reader: impl MetricReader) -> Self {
        self.settings
            .extensions
            .readers
            .push(Box::new(|builder| builder.with_reader(reader)));
        self
    }

    /// Adds a propagator to those that `OTEL_PROPAGATORS` selects.
    pub fn propagator(mut self, propagator: impl TextMapPropagator + Send + Sync + 'static) -> Self {
        self.settings.propagators.push(Box::new(propagator));
        self
    }

    /// Exports all signals to `exporter`, instead of the exporters that the environment selects.
    pub fn exporter(mut self, exporter: CustomExporter) -> Self {
        self.settings.exporter = Some(exporter);
        self
    }

    /// Leaves everything process-wide (global providers, propagators, panic hook, `log`) to another instance, so that
    /// a process can have several instances.
    ///
    /// An isolated instance records the `tracing` spans and events that reach the layer of
    /// [`TelemetryBuilder::build`], and everything recorded with the providers of its [`Telemetry`]. The instruments of
    /// this crate use the global instance.
    ///
    /// ```
    /// use std::time::Duration;
    /// use otel_service::testing::InMemory;
    /// use otel_service::{Service, Telemetry, tracing};
    /// use tracing_subscriber::layer::SubscriberExt as _;
    /// use tracing_subscriber::util::SubscriberInitExt as _;
    ///
    /// let memory = InMemory::default();
    /// let builder = Telemetry::builder(Service::new("test", "0")).exporter(memory.exporter());
    /// let (telemetry, layer) = builder.isolated().build()?;
    /// let subscriber = tracing_subscriber::registry().with(layer).set_default();
    /// tracing::info_span!("order").in_scope(|| tracing::info!("placed"));
    /// drop(subscriber);
    /// telemetry.flush(Duration::from_secs(5))?;
    /// assert_eq!(memory.spans()[0].name, "order");
    /// assert_eq!(memory.log_records().len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn isolated(mut self) -> Self {
        self.settings.is_isolated = true;
        self
    }

    /// Sets up the telemetry and installs the `tracing` subscriber; see [`init`](crate::init()).
    ///
    /// # Errors
    ///
    /// Returns an error if telemetry is already set up, or if the program has installed a subscriber.
    pub fn init(self) -> Result<Telemetry, InitError> {
        let SetUp {
            telemetry,
            layer,
            mut warnings,
            log_level,
        } = init::set_up(self.settings)?;
        // Not `try_init`, which also sets the logger of `log` if any crate enables a feature of tracing-subscriber.
        if let Err(error) = tracing::subscriber::set_global_default(self.subscriber.with(layer)) {
            // Nothing has been recorded yet, so nothing can be lost.
            telemetry.shutdown(Duration::ZERO).ok();
            return Err(error.into());
        }
        if let Some(Err(error)) = log_level.map(logs::bridge_log) {
            warnings.push(format!("events of the log crate are not recorded: {error}"));
        }
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(telemetry)
    }

    /// Sets up the telemetry without a subscriber, and returns a layer for the program's subscriber.
    ///
    /// Spans and events of `tracing` are recorded while that subscriber is in use. Layers added with
    /// [`TelemetryBuilder::layer`] are ignored.
    ///
    /// ```no_run
    /// use otel_service::{Service, Telemetry};
    /// use tracing_subscriber::layer::SubscriberExt as _;
    /// use tracing_subscriber::util::SubscriberInitExt as _;
    ///
    /// let (telemetry, layer) = Telemetry::builder(Service::new("my-service", "1.0.0")).build()?;
    /// tracing_subscriber::registry().with(layer).init();
    /// # drop(telemetry);
    /// # Ok::<(), otel_service::InitError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if telemetry is already set up.
    pub fn build<T>(self) -> Result<(Telemetry, impl Layer<T> + Send + Sync), InitError>
    where
        T: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let mut set_up = init::set_up(self.settings)?;
        let layer = set_up.layer.inner_mut();
        layer.warnings = set_up.warnings;
        layer.log_level = set_up.log_level;
        Ok((set_up.telemetry, set_up.layer))
    }
}
