//! Creation of the pipeline and the SDK's providers from the configuration.

use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{LoggerProviderBuilder, SdkLoggerProvider};
use opentelemetry_sdk::metrics::{Instrument, MeterProviderBuilder, SdkMeterProvider};
use opentelemetry_sdk::trace::{SdkTracerProvider, ShouldSample, TracerProviderBuilder};
#[cfg(feature = "prometheus")]
use otlp_recorder::PullReader;
use otlp_recorder::{Pipeline, Recorder};

use crate::config::{Config, View};
use crate::gauges;
use crate::mask::mask;
use crate::sampler::UntracedSampler;
use crate::views::DefaultView;

/// A change to the builder of a provider.
pub(crate) type Configure<B> = Box<dyn FnOnce(B) -> B>;

/// Parts of the providers that the program adds.
#[derive(Default)]
pub(crate) struct Extensions {
    pub(crate) traces: Vec<Configure<TracerProviderBuilder>>,
    pub(crate) sampler: Option<Box<dyn ShouldSample>>,
    /// Whether the program has an id generator, whose trace ids may not be random.
    pub(crate) has_id_generator: bool,
    pub(crate) logs: Vec<Configure<LoggerProviderBuilder>>,
    pub(crate) views: Vec<View>,
    /// Maximum number of attribute sets of an instrument.
    pub(crate) cardinality_limit: Option<usize>,
    pub(crate) readers: Vec<Configure<MeterProviderBuilder>>,
}

#[cfg(feature = "prometheus")]
impl Extensions {
    /// Adds the reader of a scraped server.
    pub(crate) fn with_reader(mut self, reader: Option<&PullReader>) -> Self {
        let configure = |reader: PullReader| -> Configure<MeterProviderBuilder> {
            Box::new(|builder| builder.with_reader(reader))
        };
        self.readers.extend(reader.cloned().map(configure));
        self
    }
}

/// The providers of the SDK for the recorded signals.
#[derive(Debug)]
pub(crate) struct Providers {
    pub(crate) traces: SdkTracerProvider,
    pub(crate) metrics: Option<SdkMeterProvider>,
    pub(crate) logs: Option<SdkLoggerProvider>,
}

impl Providers {
    /// Returns providers that record into `pipeline`, and the recorder of spans.
    pub(crate) fn new(config: &Config, pipeline: &Pipeline, extensions: Extensions) -> (Self, Recorder) {
        let sampler = extensions.sampler.or_else(|| config.custom_sampler.clone());
        let needs_sdk = !extensions.traces.is_empty() || sampler.is_some();
        let mut traces = SdkTracerProvider::builder()
            .with_resource(config.resource.clone())
            .with_span_limits(config.span_limits)
            .with_sampler(pipeline.recorder().counting(UntracedSampler {
                inner: sampler.unwrap_or_else(|| Box::new(config.sampler.clone())),
            }));
        traces = apply(extensions.traces, traces);
        if let Some(processor) = pipeline.span_processor() {
            traces = traces.with_span_processor(processor);
        }
        let traces = traces.build();
        let mut recorder = pipeline.recorder().clone();
        if needs_sdk {
            recorder = recorder.with_provider(traces.clone());
        }
        if extensions.has_id_generator {
            recorder = recorder.without_random_ids();
        }

        let processor = pipeline.log_processor();
        let logs = (processor.is_some() || !extensions.logs.is_empty()).then(|| {
            let builder = SdkLoggerProvider::builder().with_resource(config.resource.clone());
            let mut builder = apply(extensions.logs, builder);
            if let Some(processor) = processor {
                builder = builder.with_log_processor(processor);
            }
            builder.build()
        });

        let views = all_views(extensions.views, &config.views.0);
        let histograms = config.measuring.histograms;
        let default_view = DefaultView::new(views.clone(), histograms, extensions.cardinality_limit);
        let reader = pipeline.metric_reader();
        let metrics = (reader.is_some() || !extensions.readers.is_empty()).then(|| {
            let builder = SdkMeterProvider::builder().with_resource(config.resource.clone());
            let mut builder = apply(extensions.readers, builder);
            for view in views {
                builder = builder.with_view(move |instrument: &_| view(instrument));
            }
            builder = builder.with_view(move |instrument: &_| default_view.stream(instrument));
            if let Some(reader) = reader {
                builder = builder.with_reader(reader);
            }
            builder.build()
        });
        let providers = Self {
            traces,
            metrics,
            logs,
        };
        (providers, recorder)
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

/// Returns the views of the program, and those of the configuration for the instruments that no view of the program
/// selects.
fn all_views(program: Vec<View>, configured: &[View]) -> Vec<View> {
    let others = configured.iter().map(|view| {
        let (view, program) = (view.clone(), program.clone());
        let others: View = Arc::new(move |instrument: &Instrument| {
            let is_selected = program.iter().any(|view| view(instrument).is_some());
            if is_selected { None } else { view(instrument) }
        });
        others
    });
    let others: Vec<_> = others.collect();
    [program, others].concat()
}

fn apply<B>(changes: Vec<Configure<B>>, builder: B) -> B {
    changes
        .into_iter()
        .fold(builder, |builder, change| change(builder))
}

/// Starts the pipeline of `config`; `component` is the name of the component's service.
pub(crate) fn start_pipeline(config: &Config, component: Option<String>) -> Pipeline {
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
        .temporality(measuring.temporality)
        .exemplars(measuring.exemplars)
        .before_collection(gauges::read_all);
    if let Some(name) = component {
        let attributes = config
            .resource
            .iter()
            .map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
        let schema = config.resource.schema_url().unwrap_or_default().to_owned();
        let resource = Resource::builder_empty().with_schema_url(attributes, schema);
        builder = builder.component(resource.with_service_name(name).build());
    }
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
