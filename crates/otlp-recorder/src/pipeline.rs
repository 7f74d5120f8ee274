//! The set-up: a [`Pipeline`] connects the recorder, the processors of the SDK and the export thread.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::metrics::Meter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::trace::{Sampler, SpanLimits};

use crate::batch_settings::BatchSettings;
use crate::collector::Collector;
use crate::destination::Destination;
use crate::encode::{LogEncoder, RequestEncoder, Scopes};
use crate::exemplar::{ExemplarFilter, ExemplarReader, Exemplars};
use crate::export::is_export_thread;
use crate::export::{
    CollectionTimes, ExportTarget, ExportThread, Flushes, MetricExport, PullReader, QueueMetricReader,
    QueuedExport, SignalExports, flush, observe_queue, observe_spans,
};
use crate::processors::{QueueLogProcessor, QueueSpanProcessor};
use crate::queue::Queue;
use crate::recorder::{RANDOM_TRACE_ID, Recorder, Shared};
use crate::signal::Signal;
use crate::text::{Redact, TextRules};

/// Maximum time between two exports of a signal. A much longer time would overflow the clock.
const MAX_PAUSE: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Time limit of the shutdown when a pipeline is dropped.
const DROP_DEADLINE: Duration = Duration::from_secs(2);

/// Signals that were not delivered before the deadline of a shutdown or flush.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error("telemetry not delivered before the deadline: {}", signals.join(", "))]
#[non_exhaustive]
pub struct ShutdownError {
    /// Names of the signals (`traces`, `metrics`, `logs`) whose last batch did not reach the collector.
    pub signals: Vec<&'static str>,
}

/// Settings of a [`Pipeline`]. Signals without a destination are not exported.
#[derive(Clone, Debug)]
#[must_use = "a pipeline does nothing before it is started"]
pub struct PipelineBuilder {
    resource: Resource,
    component: Option<Resource>,
    redact: Option<Redact>,
    spans: Option<Destination>,
    span_batches: BatchSettings,
    sampler: Sampler,
    span_limits: SpanLimits,
    span_value_limit: Option<usize>,
    logs: Option<Destination>,
    log_batches: BatchSettings,
    log_attribute_limit: usize,
    metrics: Option<Destination>,
    metric_interval: Duration,
    metric_timeout: Duration,
    temporality: Temporality,
    exemplars: ExemplarFilter,
    before_collection: fn(),
}

impl Default for PipelineBuilder {
    fn default() -> Self {
        Self {
            resource: Resource::builder_empty().build(),
            component: None,
            redact: None,
            spans: None,
            span_batches: BatchSettings::default(),
            sampler: Sampler::ParentBased(Box::new(Sampler::AlwaysOn)),
            span_limits: SpanLimits::default(),
            span_value_limit: None,
            logs: None,
            log_batches: BatchSettings {
                delay: Duration::from_secs(1),
                ..BatchSettings::default()
            },
            log_attribute_limit: 128,
            metrics: None,
            metric_interval: Duration::from_secs(60),
            metric_timeout: Duration::from_secs(30),
            temporality: Temporality::Cumulative,
            exemplars: ExemplarFilter::TraceBased,
            before_collection: || {},
        }
    }
}

impl PipelineBuilder {
    /// Sets the resource of all signals. The SDK's providers must use the same resource.
    pub fn resource(mut self, resource: Resource) -> Self {
        self.resource = resource;
        self
    }

    /// Sets the resource of the spans and log records of threads that have called [`enter_component`].
    ///
    /// [`enter_component`]: crate::enter_component
    pub fn component(mut self, resource: Resource) -> Self {
        self.component = Some(resource);
        self
    }

    /// Sets the function that redacts text of all signals: names, descriptions, trace state, the bodies of log
    /// records, and keys and values of attributes. Data points whose attributes are the same afterwards are
    /// merged.
    pub fn redact(mut self, redact: Redact) -> Self {
        self.redact = Some(redact);
        self
    }

    /// Exports all signals to the collector whose endpoint is a base URL, such as `http://localhost:4318` for
    /// HTTP or `http://localhost:4317` for gRPC.
    pub fn all_signals(self, collector: &Collector) -> Self {
        self.spans(collector.for_signal(Signal::Traces))
            .logs(collector.for_signal(Signal::Logs))
            .metrics(collector.for_signal(Signal::Metrics))
    }

    /// Exports spans to `destination`.
    pub fn spans(mut self, destination: impl Into<Destination>) -> Self {
        self.spans = Some(destination.into());
        self
    }

    /// Exports log records to `destination`.
    pub fn logs(mut self, destination: impl Into<Destination>) -> Self {
        self.logs = Some(destination.into());
        self
    }

    /// Exports metrics to `destination`.
    pub fn metrics(mut self, destination: impl Into<Destination>) -> Self {
        self.metrics = Some(destination.into());
        self
    }

    /// Sets the queue of spans.
    pub fn span_batches(mut self, span_batches: BatchSettings) -> Self {
        self.span_batches = span_batches;
        self
    }

    /// Sets the queue of log records. Its delay is one second by default.
    pub fn log_batches(mut self, log_batches: BatchSettings) -> Self {
        self.log_batches = log_batches;
        self
    }

    /// Sets the sampler of recorded spans. By default, spans follow the decision of their parent, and every
    /// root span is sampled.
    pub fn sampler(mut self, sampler: Sampler) -> Self {
        self.sampler = sampler;
        self
    }

    /// Sets the maximum number of attributes, events and links of a recorded span.
    pub fn span_limits(mut self, span_limits: SpanLimits) -> Self {
        self.span_limits = span_limits;
        self
    }

    /// Sets the maximum length of a string attribute of a span, in characters.
    pub fn span_value_limit(mut self, span_value_limit: Option<usize>) -> Self {
        self.span_value_limit = span_value_limit;
        self
    }

    /// Sets the maximum number of attributes of a log record, 128 by default.
    pub fn log_attribute_limit(mut self, attribute_limit: usize) -> Self {
        self.log_attribute_limit = attribute_limit;
        self
    }

    /// Sets the time between two exports of metrics, a minute by default.
    pub fn metric_interval(mut self, metric_interval: Duration) -> Self {
        self.metric_interval = metric_interval;
        self
    }

    /// Sets the time limit of one export of metrics, 30 seconds by default. The time-out of the collector
    /// also applies.
    pub fn metric_timeout(mut self, metric_timeout: Duration) -> Self {
        self.metric_timeout = metric_timeout;
        self
    }

    /// Sets the temporality of metrics, cumulative by default.
    pub fn temporality(mut self, temporality: Temporality) -> Self {
        self.temporality = temporality;
        self
    }

    /// Sets which measurements may become exemplars.
    pub fn exemplars(mut self, exemplars: ExemplarFilter) -> Self {
        self.exemplars = exemplars;
        self
    }

    /// Sets a function that is called before metrics are collected, on the collecting thread and without any
    /// lock held.
    pub fn before_collection(mut self, before_collection: fn()) -> Self {
        self.before_collection = before_collection;
        self
    }

    /// Starts the export thread if any signal has a destination.
    ///
    /// Returns when the transports are prepared, which needs no network. Problems are listed in
    /// [`Pipeline::warnings`]; a signal that cannot be exported is not recorded.
    pub fn start(self) -> Pipeline {
        let mut warnings = Vec::new();
        let scopes = Arc::new(Scopes::default());
        let exemplars = Exemplars::new(self.exemplars);
        let rules = TextRules {
            redact: self.redact,
            value_limit: None,
        };
        let span_rules = TextRules {
            value_limit: self.span_value_limit,
            ..rules
        };
        let mut encoder = RequestEncoder::new(&self.resource, rules, Arc::clone(&scopes));
        if let Some(component) = &self.component {
            encoder = encoder.component(component);
        }
        let queued = |signal, destination: Option<Destination>, settings: BatchSettings| {
            destination.map(|destination| QueuedExport {
                target: ExportTarget::new(signal, destination, settings.timeout),
                queue: Arc::new(Queue::new(settings.queue_size, settings.batch_size)),
                encoder: encoder.clone(),
                delay: settings.delay.min(MAX_PAUSE),
            })
        };
        let mut exports = SignalExports {
            redact: self.redact,
            traces: queued(Signal::Traces, self.spans, self.span_batches),
            logs: queued(Signal::Logs, self.logs, self.log_batches),
            metrics: self.metrics.map(|destination| MetricExport {
                reader: QueueMetricReader::new(self.temporality),
                interval: self.metric_interval.min(MAX_PAUSE),
                rules,
                exemplars: exemplars.clone(),
                before: self.before_collection,
                times: Arc::new(CollectionTimes::new("periodic_metric_reader")),
                target: ExportTarget::new(Signal::Metrics, destination, self.metric_timeout),
            }),
        };
        let thread = ExportThread::start(exports.clone(), &mut warnings);
        let running = thread.as_ref().map_or(&[][..], |thread| &thread.running);
        exports.traces.take_if(|_| !running.contains(&Signal::Traces));
        exports.logs.take_if(|_| !running.contains(&Signal::Logs));
        exports.metrics.take_if(|_| !running.contains(&Signal::Metrics));
        if exports.metrics.is_some() {
            exemplars.add_reader(ExemplarReader::Push);
        }
        let recorder = Recorder(Arc::new(Shared {
            queue: exports.traces.as_ref().map(|traces| Arc::clone(&traces.queue)),
            rules: span_rules,
            limits: self.span_limits,
            sampler: self.sampler,
            scopes,
            provider: None,
            root_flags: RANDOM_TRACE_ID,
            counts: Arc::default(),
        }));
        Pipeline {
            recorder,
            span_rules,
            log_encoder: LogEncoder {
                attribute_limit: self.log_attribute_limit,
                rules,
            },
            exemplars,
            before_collection: self.before_collection,
            pull_times: Arc::new(CollectionTimes::new("prometheus_http_text_metric_exporter")),
            exports,
            thread,
            warnings,
        }
    }
}

/// A running export of up to three signals. Keep it until the process ends, then call [`Pipeline::shutdown`].
#[derive(Debug)]
#[must_use = "dropping the pipeline stops the export"]
pub struct Pipeline {
    recorder: Recorder,
    span_rules: TextRules,
    log_encoder: LogEncoder,
    exemplars: Exemplars,
    before_collection: fn(),
    /// Durations of the collections of [`Pipeline::pull_reader`].
    pull_times: Arc<CollectionTimes>,
    exports: SignalExports,
    thread: Option<ExportThread>,
    warnings: Vec<String>,
}

impl Pipeline {
    /// Returns a builder without destinations.
    pub fn builder() -> PipelineBuilder {
        PipelineBuilder::default()
    }

    /// Returns the recorder of spans. If spans are not exported, recorded spans have only ids.
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Returns a processor for the SDK's tracer provider, if spans are exported.
    #[must_use]
    pub fn span_processor(&self) -> Option<QueueSpanProcessor> {
        let traces = self.exports.traces.as_ref()?;
        Some(QueueSpanProcessor {
            queue: Arc::clone(&traces.queue),
            rules: self.span_rules,
            counts: Arc::clone(&self.recorder.0.counts),
        })
    }

    /// Returns a processor for the SDK's logger provider, if log records are exported.
    #[must_use]
    pub fn log_processor(&self) -> Option<QueueLogProcessor> {
        let logs = self.exports.logs.as_ref()?;
        Some(QueueLogProcessor {
            queue: Arc::clone(&logs.queue),
            encoder: self.log_encoder,
        })
    }

    /// Returns a reader for the SDK's meter provider, if metrics are exported. Add the reader to one provider
    /// only.
    #[must_use]
    pub fn metric_reader(&self) -> Option<QueueMetricReader> {
        let metrics = self.exports.metrics.as_ref()?;
        Some(metrics.reader.clone())
    }

    /// Returns a reader for the SDK's meter provider whose user collects the metrics, whether or not they are
    /// exported, too. Add it to one provider only.
    #[must_use]
    pub fn pull_reader(&self) -> PullReader {
        self.exemplars.add_reader(ExemplarReader::Pull);
        PullReader {
            reader: QueueMetricReader::new(Temporality::Cumulative),
            rules: self.log_encoder.rules,
            exemplars: self.exemplars.clone(),
            before: self.before_collection,
            times: Arc::clone(&self.pull_times),
        }
    }

    /// Returns the exemplars, for histograms made with
    /// [`DurationHistogram::new`](crate::DurationHistogram::new).
    #[must_use]
    pub fn exemplars(&self) -> &Exemplars {
        &self.exemplars
    }

    /// Reports the pipeline's own metrics, `otel.sdk.*`, with `meter`.
    pub fn observe(&self, meter: &Meter) {
        observe_spans(meter, &self.recorder.0.counts, self.recorder.0.queue.as_ref());
        self.pull_times.observe(meter, &self.exemplars);
        for export in self.exports.queued() {
            observe_queue(meter, export.target.signal, &export.queue);
            export.target.counts.observe(meter, &self.exemplars);
        }
        if let Some(metrics) = &self.exports.metrics {
            metrics.target.counts.observe(meter, &self.exemplars);
            metrics.times.observe(meter, &self.exemplars);
        }
    }

    /// Returns the problems found at the start, such as files that cannot be read.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Returns a handle that flushes this pipeline.
    #[must_use]
    pub fn flusher(&self) -> Flusher {
        let queued = self.exports.queued().map(|export| &export.target);
        let metrics = self.exports.metrics.iter().map(|export| &export.target);
        let signals = queued
            .chain(metrics)
            .map(|target| (target.signal, target.flushes.clone()));
        Flusher(signals.collect())
    }

    /// Exports everything recorded so far. See [`Flusher::flush`].
    ///
    /// # Errors
    ///
    /// Returns the signals that were not delivered.
    pub fn flush(&self, deadline: Duration) -> Result<(), ShutdownError> {
        self.flusher().flush(deadline)
    }

    /// Exports everything recorded so far and stops.
    ///
    /// Returns when all signals are delivered, or at the deadline at the latest. A collector whose last
    /// export failed gets at most one second. Blocks the calling thread; no other thread of the program needs
    /// to make progress. Dropping a pipeline does the same, with a deadline of two seconds.
    ///
    /// # Errors
    ///
    /// Returns the signals that were not delivered.
    pub fn shutdown(mut self, deadline: Duration) -> Result<(), ShutdownError> {
        self.finish(deadline)
    }

    fn finish(&mut self, deadline: Duration) -> Result<(), ShutdownError> {
        self.exports.queued().for_each(|export| export.queue.close());
        let undelivered = self.thread.take().map(|thread| thread.finish(deadline));
        ShutdownError::of(undelivered.unwrap_or_default())
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        // There is no caller to return the error to; the export thread has logged the reason.
        let _ = self.finish(DROP_DEADLINE);
    }
}

/// Handle that flushes a [`Pipeline`] from anywhere, such as a panic hook; cheap to clone.
#[derive(Clone, Debug)]
pub struct Flusher(Vec<(Signal, Flushes)>);

impl Flusher {
    /// Exports everything recorded so far.
    ///
    /// Returns when all signals are delivered, or at the deadline at the latest. Blocks the calling thread. Has no effect
    /// after the shutdown of the pipeline or on the export thread.
    ///
    /// # Errors
    ///
    /// Returns the signals that were not delivered.
    pub fn flush(&self, deadline: Duration) -> Result<(), ShutdownError> {
        if is_export_thread() {
            return Ok(());
        }
        ShutdownError::of(flush(&self.0, deadline))
    }
}

impl ShutdownError {
    fn of(undelivered: Vec<Signal>) -> Result<(), Self> {
        if undelivered.is_empty() {
            return Ok(());
        }
        let signals = undelivered.into_iter().map(Signal::name).collect();
        Err(Self { signals })
    }
}
