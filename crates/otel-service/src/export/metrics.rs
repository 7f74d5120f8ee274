//! The loop of metrics: they are collected on a thread of the runtime's pool, because that runs callbacks of the service,
//! and sent every interval. A callback that hangs costs metrics and nothing else.

use std::mem;
use std::sync::{Arc, Weak};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{InstrumentKind, ManualReader, Pipeline, Temporality};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::outlet::{Export, Outlet};
use super::tidy::Tidy;
use crate::exemplar;
use crate::gauges;
use crate::otlp::Request;

/// The reader that the meter provider knows; the export thread keeps the other hand on it.
#[derive(Clone, Debug)]
pub(crate) struct Reader(Arc<ManualReader>);

impl Reader {
    pub(crate) fn new(temporality: Temporality) -> Self {
        Self(Arc::new(
            ManualReader::builder().with_temporality(temporality).build(),
        ))
    }
}

impl MetricReader for Reader {
    fn register_pipeline(&self, pipeline: Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    /// The export thread has read for the last time. The inner reader is left as it is: its lock is held for as long as
    /// a callback hangs.
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}

/// What collects and sends metrics.
#[derive(Debug)]
pub(crate) struct Metering<E> {
    pub(crate) reader: Reader,
    /// Between two exports.
    pub(crate) interval: Duration,
    pub(crate) tidy: Tidy,
    pub(crate) outlet: Outlet<E>,
    /// The memory of the last collection, used again.
    kept: ResourceMetrics,
    /// A collection that has not come back yet.
    collecting: Option<JoinHandle<Collected>>,
}

type Collected = Result<ResourceMetrics, String>;

impl<E: Export> Metering<E> {
    pub(crate) fn new(reader: Reader, interval: Duration, tidy: Tidy, outlet: Outlet<E>) -> Self {
        Self {
            reader,
            interval,
            tidy,
            outlet,
            kept: ResourceMetrics::default(),
            collecting: None,
        }
    }

    /// Runs until it is stopped; says whether everything was delivered.
    pub(crate) async fn run(mut self) -> bool {
        let mut stop = self.outlet.stop.clone();
        let mut next = Instant::now() + self.interval;
        while stop.end().is_none() {
            tokio::select! {
                biased;
                _ = stop.asked() => break,
                () = sleep_until(next) => {
                    if self.outlet.open().await && stop.end().is_none() {
                        self.export().await;
                    }
                }
            }
            // An export that took longer than the interval does not make the next ones come faster.
            next = (next + self.interval).max(Instant::now());
        }
        if !self.outlet.open().await {
            return false;
        }
        self.export().await;
        !self.outlet.delivery.is_failing()
    }

    /// Collects and sends once.
    async fn export(&mut self) {
        let until = self.outlet.until();
        match self.collect(until).await {
            Ok(metrics) => {
                let mut request = ExportMetricsServiceRequest::from(&metrics);
                exemplar::attach(&mut request);
                self.kept = metrics;
                self.tidy.metrics(&mut request);
                let points = points(&request);
                if points > 0 {
                    self.outlet.send(&Request::Metrics(request), points, until).await;
                }
            }
            Err(reason) => self.outlet.delivery.failed(0, &reason),
        }
    }

    /// One collection at a time: one that is late is waited for the next time.
    async fn collect(&mut self, until: Instant) -> Collected {
        let collecting = self.collecting.get_or_insert_with(|| {
            let reader = self.reader.clone();
            let mut metrics = mem::take(&mut self.kept);
            spawn_blocking(move || {
                gauges::read_all();
                match reader.collect(&mut metrics) {
                    Ok(()) => Ok(metrics),
                    Err(error) => Err(error.to_string()),
                }
            })
        });
        let Ok(joined) = timeout_at(until, collecting).await else {
            return Err("metrics could not be collected in time: a callback of a gauge is slow".to_owned());
        };
        self.collecting = None;
        joined.unwrap_or_else(|_| Err("metrics could not be collected: a callback panicked".to_owned()))
    }
}

/// How many data points there are.
fn points(request: &ExportMetricsServiceRequest) -> u64 {
    request
        .resource_metrics
        .iter()
        .flat_map(|group| &group.scope_metrics)
        .flat_map(|scope| &scope.metrics)
        .map(|metric| points_of(metric) as u64)
        .sum()
}

fn points_of(metric: &Metric) -> usize {
    match &metric.data {
        Some(metric::Data::Gauge(gauge)) => gauge.data_points.len(),
        Some(metric::Data::Sum(sum)) => sum.data_points.len(),
        Some(metric::Data::Histogram(histogram)) => histogram.data_points.len(),
        Some(metric::Data::ExponentialHistogram(histogram)) => histogram.data_points.len(),
        Some(metric::Data::Summary(summary)) => summary.data_points.len(),
        None => 0,
    }
}
