//! The SDK's providers as the variables want them, and the thread that exports what they are given.

use std::sync::Arc;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::{SdkMeterProvider, Temporality};
use opentelemetry_sdk::trace::SdkTracerProvider;

use crate::SCOPE;
use crate::config::{Batches, Config, Destination, Signal};
use crate::export::{
    Batch, ExportThread, Exported, Exports, Queue, Queued, QueuedLogs, QueuedSpans, Read, Reader, Tidy,
    observe_queue,
};
use crate::recording::Recorder;
use crate::sampler::QuietSampler;

/// The providers of the signals that are made.
#[derive(Debug, Default)]
pub(crate) struct Providers {
    pub(crate) traces: Option<SdkTracerProvider>,
    pub(crate) metrics: Option<SdkMeterProvider>,
    pub(crate) logs: Option<SdkLoggerProvider>,
}

impl Providers {
    /// Makes the providers, and starts the thread when there is anything to export.
    pub(crate) fn start(
        config: &Config,
        warnings: &mut Vec<String>,
    ) -> (Self, Option<Recorder>, Option<ExportThread>) {
        let exports = exports(config);
        let spans = exports.traces.as_ref().map(Shared::of);
        let records = exports.logs.as_ref().map(Shared::of);
        let reader = exports
            .metrics
            .as_ref()
            .map(|metrics| (metrics.reader.clone(), Arc::clone(&metrics.exported)));
        let thread = ExportThread::start(exports, warnings);
        // A signal whose exporter could not be made is as one that goes nowhere.
        let runs = |signal| thread.as_ref().is_some_and(|thread| thread.exports(signal));
        let spans = spans.filter(|_| runs(Signal::Traces));
        let records = records.filter(|_| runs(Signal::Logs));
        let reader = reader.filter(|_| runs(Signal::Metrics));

        let sampler = QuietSampler {
            inner: config.sampler.clone(),
        };
        let mut traces = SdkTracerProvider::builder()
            .with_resource(config.resource.clone())
            .with_span_limits(config.span_limits)
            .with_sampler(sampler.clone());
        if let Some(spans) = &spans {
            traces = traces.with_span_processor(QueuedSpans::new(Arc::clone(&spans.queue), spans.tidy));
        }
        let logs = records.as_ref().map(|records| {
            SdkLoggerProvider::builder()
                .with_resource(config.resource.clone())
                .with_log_processor(QueuedLogs::new(
                    Arc::clone(&records.queue),
                    config.log_limits.attributes,
                ))
                .build()
        });
        let metrics = reader.map(|(reader, exported)| {
            let histograms = config.measuring.histograms;
            let provider = SdkMeterProvider::builder()
                .with_resource(config.resource.clone())
                .with_view(move |instrument: &_| histograms.stream(instrument))
                .with_reader(reader)
                .build();
            let meter = provider.meter(SCOPE);
            exported.observe(&meter);
            if let Some(spans) = &spans {
                observe_queue(&meter, Signal::Traces, &spans.queue);
                spans.exported.observe(&meter);
            }
            if let Some(records) = &records {
                observe_queue(&meter, Signal::Logs, &records.queue);
                records.exported.observe(&meter);
            }
            provider
        });
        let providers = Self {
            traces: Some(traces.build()),
            metrics,
            logs,
        };
        let recorder = Recorder {
            queue: spans.as_ref().map(|spans| Arc::clone(&spans.queue)),
            tidy: tidy_of_spans(config),
            limits: config.span_limits,
            sampler,
        };
        (providers, Some(recorder), thread)
    }

    /// Takes no more spans and log records, and comes back at once.
    pub(crate) fn close_queues(&self) {
        // Only a second time would fail.
        if let Some(provider) = &self.traces {
            provider.shutdown().ok();
        }
        if let Some(provider) = &self.logs {
            provider.shutdown().ok();
        }
    }

    /// Takes no more measurements, and comes back at once.
    pub(crate) fn close_meters(&self) {
        if let Some(provider) = &self.metrics {
            provider.shutdown().ok();
        }
    }
}

/// What of a queued signal its provider and its measures need too.
struct Shared {
    queue: Arc<Queue<Batch>>,
    tidy: Tidy,
    exported: Arc<Exported>,
}

impl Shared {
    fn of(queued: &Queued) -> Self {
        Self {
            queue: Arc::clone(&queued.queue),
            tidy: queued.tidy,
            exported: Arc::clone(&queued.exported),
        }
    }
}

fn tidy_of_spans(config: &Config) -> Tidy {
    Tidy {
        masking: config.masking,
        value_limit: config.span_value_limit,
    }
}

/// Where everything goes, and how.
fn exports(config: &Config) -> Exports {
    let tidy = Tidy {
        masking: config.masking,
        value_limit: None,
    };
    Exports {
        resource: config.resource.clone(),
        traces: queued(
            Signal::Traces,
            &config.traces,
            config.span_batches,
            tidy_of_spans(config),
        ),
        // The lines of standard output are the console's log records.
        logs: match &config.logs {
            Destination::Otlp(_) => queued(Signal::Logs, &config.logs, config.log_batches, tidy),
            Destination::Off | Destination::Console => None,
        },
        metrics: (config.metrics != Destination::Off).then(|| Read {
            reader: Reader::new(match &config.metrics {
                Destination::Otlp(_) => config.measuring.temporality,
                Destination::Off | Destination::Console => Temporality::Cumulative,
            }),
            destination: config.metrics.clone(),
            interval: config.measuring.interval,
            timeout: config.measuring.timeout,
            tidy,
            exported: Arc::new(Exported::new(Signal::Metrics, &config.metrics)),
        }),
    }
}

/// A signal with a queue, unless it goes nowhere.
fn queued(signal: Signal, destination: &Destination, batches: Batches, tidy: Tidy) -> Option<Queued> {
    (*destination != Destination::Off).then(|| Queued {
        queue: Arc::new(Queue::new(batches.queue_size, batches.batch_size)),
        destination: destination.clone(),
        batches,
        tidy,
        exported: Arc::new(Exported::new(signal, destination)),
    })
}
