//! The export loop for metrics, which collects and sends them at a fixed interval. Collection runs the
//! program's callbacks, so it uses a thread of the runtime's blocking pool; a callback that blocks affects
//! only metrics.

use std::mem;
use std::sync::{Arc, Weak};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{InstrumentKind, ManualReader, Pipeline, Temporality};
use prost::Message;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::exporter::{ExportTarget, Exporter};
use super::self_metrics::CollectionTimes;
use crate::destination::Request;
use crate::exemplar::{ExemplarReader, Exemplars};
use crate::points::{metrics_of, visit_points};
use crate::text::TextRules;
use crate::transport::Transport;

/// An SDK metric reader through which the export thread collects metrics.
#[derive(Clone, Debug)]
pub struct QueueMetricReader(Arc<ManualReader>);

impl QueueMetricReader {
    pub(crate) fn new(temporality: Temporality) -> Self {
        Self(Arc::new(
            ManualReader::builder().with_temporality(temporality).build(),
        ))
    }
}

impl MetricReader for QueueMetricReader {
    fn register_pipeline(&self, pipeline: Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    /// Does nothing: the export thread has already made the last collection. A blocked callback holds the
    /// lock of the inner reader, so shutting that reader down could block.
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}

/// Settings of the metric export.
#[derive(Clone, Debug)]
pub(crate) struct MetricExport {
    pub(crate) reader: QueueMetricReader,
    /// Time between two exports.
    pub(crate) interval: Duration,
    pub(crate) rules: TextRules,
    pub(crate) exemplars: Exemplars,
    /// Called before each collection.
    pub(crate) before: fn(),
    pub(crate) times: Arc<CollectionTimes>,
    pub(crate) target: ExportTarget,
}

/// Collects and sends metrics.
#[derive(Debug)]
pub(super) struct MetricLoop<T> {
    settings: MetricExport,
    exporter: Exporter<T>,
    /// Result of the last collection, whose memory is reused.
    kept: ResourceMetrics,
    /// Collection in progress.
    running: Option<JoinHandle<Collected>>,
}

type Collected = Result<ResourceMetrics, String>;

impl<T: Transport> MetricLoop<T> {
    pub(super) fn new(settings: MetricExport, exporter: Exporter<T>) -> Self {
        Self {
            settings,
            exporter,
            kept: ResourceMetrics::default(),
            running: None,
        }
    }

    /// Runs until shutdown. Returns whether everything was delivered.
    pub(super) async fn run(mut self) -> bool {
        let mut shutdown = self.exporter.shutdown.clone();
        let flushes = self.exporter.flushes.clone();
        let interval = self.settings.interval;
        let mut next = Instant::now() + interval;
        while shutdown.limit().is_none() {
            tokio::select! {
                biased;
                _ = shutdown.requested() => break,
                () = flushes.requested() => {
                    self.flush().await;
                    continue;
                }
                () = sleep_until(next) => {
                    if self.exporter.open().await && shutdown.limit().is_none() {
                        self.export().await;
                    }
                }
            }
            // Exports missed during a slow export are skipped.
            next = (next + interval).max(Instant::now());
        }
        if !self.exporter.open().await {
            return false;
        }
        self.export().await;
        !self.exporter.delivery.is_failing()
    }

    /// Collects and sends the metrics once for each pending flush request.
    async fn flush(&mut self) {
        for request in self.exporter.flushes.take() {
            self.exporter.flush_deadline = Some(request.deadline);
            let open = self.exporter.open().await;
            if open {
                self.export().await;
            }
            self.exporter.flush_deadline = None;
            request.done(self.exporter.signal, open && !self.exporter.delivery.is_failing());
        }
    }

    /// Collects and sends once.
    async fn export(&mut self) {
        let deadline = self.exporter.deadline();
        match self.collect(deadline).await {
            Ok(metrics) => {
                let mut message = ExportMetricsServiceRequest::from(&metrics);
                self.settings.exemplars.attach(&mut message, ExemplarReader::Push);
                self.kept = metrics;
                self.settings.rules.apply_to_metrics(&mut message);
                let mut points = 0;
                for metric in metrics_of(&mut message) {
                    visit_points(metric, |_, _| points += 1);
                }
                if points > 0 {
                    let request = Request::new(self.exporter.signal, message.encode_to_vec().into());
                    self.exporter.send(request, points, deadline).await;
                }
            }
            Err(reason) => self.exporter.delivery.failed(0, &reason),
        }
    }

    /// Collects once. If the collection does not finish in time, the next call waits for it.
    async fn collect(&mut self, deadline: Instant) -> Collected {
        let running = self.running.get_or_insert_with(|| {
            let (reader, before) = (self.settings.reader.clone(), self.settings.before);
            let times = Arc::clone(&self.settings.times);
            let mut metrics = mem::take(&mut self.kept);
            spawn_blocking(move || {
                let collected = times.measure(|| {
                    before();
                    reader.collect(&mut metrics)
                });
                match collected {
                    Ok(()) => Ok(metrics),
                    Err(error) => Err(error.to_string()),
                }
            })
        });
        let Ok(joined) = timeout_at(deadline, running).await else {
            return Err(
                "metrics could not be collected in time: an instrument's callback is slow".to_owned(),
            );
        };
        self.running = None;
        joined.unwrap_or_else(|_| {
            Err("metrics could not be collected: an instrument's callback panicked".to_owned())
        })
    }
}
