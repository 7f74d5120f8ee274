//! Creation of the pipeline and the SDK's providers from the configuration.

use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::{SdkMeterProvider, Temporality};
use opentelemetry_sdk::trace::SdkTracerProvider;
use otlp_recorder::{Destination, Pipeline};

use crate::config::Config;
use crate::gauges;
use crate::mask::mask;
use crate::sampler::UntracedSampler;

/// The providers of the SDK for the recorded signals.
#[derive(Debug)]
pub(crate) struct Providers {
    pub(crate) traces: SdkTracerProvider,
    pub(crate) metrics: Option<SdkMeterProvider>,
    pub(crate) logs: Option<SdkLoggerProvider>,
}

impl Providers {
    /// Returns providers that record into `pipeline`.
    pub(crate) fn new(config: &Config, pipeline: &Pipeline) -> Self {
        let mut traces = SdkTracerProvider::builder()
            .with_resource(config.resource.clone())
            .with_span_limits(config.span_limits)
            .with_sampler(UntracedSampler {
                inner: config.sampler.clone(),
            });
        if let Some(processor) = pipeline.span_processor() {
            traces = traces.with_span_processor(processor);
        }
        let logs = pipeline.log_processor().map(|processor| {
            SdkLoggerProvider::builder()
                .with_resource(config.resource.clone())
                .with_log_processor(processor)
                .build()
        });
        let histograms = config.measuring.histograms;
        let metrics = pipeline.metric_reader().map(|reader| {
            SdkMeterProvider::builder()
                .with_resource(config.resource.clone())
                .with_view(move |instrument: &_| histograms.stream(instrument))
                .with_reader(reader)
                .build()
        });
        Self {
            traces: traces.build(),
            metrics,
            logs,
        }
    }

    /// Closes the providers. Call it after the shutdown of the pipeline, which collects metrics once more.
    pub(crate) fn close(&self) {
        // Only a second shutdown returns an error.
        self.traces.shutdown().ok();
        if let Some(provider) = &self.logs {
            provider.shutdown().ok();
        }
        if let Some(provider) = &self.metrics {
            provider.shutdown().ok();
        }
    }
}

/// Starts the pipeline of `config`.
pub(crate) fn start_pipeline(config: &Config) -> Pipeline {
    let measuring = &config.measuring;
    let mut builder = Pipeline::builder()
        .resource(config.resource.clone())
        .sampler(config.sampler.clone())
        .span_batches(config.span_batches)
        .span_limits(config.span_limits)
        .span_value_limit(config.span_value_limit)
        .log_batches(config.log_batches)
        .log_attribute_limit(config.log_attribute_limit)
        .metric_interval(measuring.interval)
        .metric_timeout(measuring.timeout)
        .temporality(match &config.metrics {
            Some(Destination::Collector(_)) => measuring.temporality,
            _ => Temporality::Cumulative,
        })
        .exemplars(measuring.exemplars)
        .before_collection(gauges::read_all);
    if config.masking {
        builder = builder.redact(mask);
    }
    if let Some(destination) = &config.traces {
        builder = builder.spans(destination.clone());
    }
    if let Some(destination) = &config.metrics {
        builder = builder.metrics(destination.clone());
    }
    if let Some(destination) = &config.logs {
        builder = builder.logs(destination.clone());
    }
    builder.start()
}
