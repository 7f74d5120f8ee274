//! Collection of metrics on demand, for a server that Prometheus scrapes.

use std::sync::{Arc, Weak};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{InstrumentKind, Pipeline, Temporality};

use super::metrics::QueueMetricReader;
use super::self_metrics::CollectionTimes;
use crate::exemplar::{ExemplarReader, Exemplars};
use crate::text::TextRules;

/// An SDK metric reader with cumulative temporality that collects on each call of [`pull`](Self::pull).
#[derive(Clone, Debug)]
pub struct PullReader {
    pub(crate) reader: QueueMetricReader,
    pub(crate) rules: TextRules,
    pub(crate) exemplars: Exemplars,
    /// Called before each collection.
    pub(crate) before: fn(),
    pub(crate) times: Arc<CollectionTimes>,
}

impl PullReader {
    /// Collects, redacts and returns all metrics, with the last exemplar of each data point or bucket.
    ///
    /// Runs the callbacks of instruments on the calling thread.
    ///
    /// # Errors
    ///
    /// Fails if the reader does not belong to a meter provider.
    pub fn pull(&self) -> Result<ExportMetricsServiceRequest, String> {
        let mut metrics = ResourceMetrics::default();
        let collected = self.times.measure(|| {
            (self.before)();
            self.reader.collect(&mut metrics)
        });
        collected.map_err(|error| error.to_string())?;
        let mut message = ExportMetricsServiceRequest::from(&metrics);
        self.exemplars.attach(&mut message, ExemplarReader::Pull);
        self.rules.apply_to_metrics(&mut message);
        Ok(message)
    }
}

impl MetricReader for PullReader {
    fn register_pipeline(&self, pipeline: Weak<Pipeline>) {
        self.reader.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.reader.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.reader.temporality(kind)
    }
}
