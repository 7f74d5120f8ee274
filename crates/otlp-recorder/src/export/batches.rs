//! The loop of a queued signal, spans or log records. A batch is sent when it is full or after the delay,
//! whichever comes first.

use std::sync::Arc;
use std::time::Duration;

use prost::bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::exporter::Exporter;
use super::shutdown::Shutdown;
use crate::destination::Request;
use crate::log_target::LOG_TARGET;
use crate::queue::{Entries, Queue};
use crate::signal::Signal;
use crate::transport::Transport;

/// Sends the batches of one signal from its queue to its exporter.
#[derive(Debug)]
pub(super) struct BatchLoop<B, T, F> {
    pub(super) queue: Arc<Queue<B>>,
    /// Time between exports of batches that are not full.
    pub(super) delay: Duration,
    /// Encodes the request with a batch.
    pub(super) encode: F,
    pub(super) exporter: Exporter<T>,
}

impl<B, T, F> BatchLoop<B, T, F>
where
    B: Entries,
    T: Transport,
    F: Fn(&B) -> Bytes,
{
    /// Runs until shutdown. Returns whether everything was delivered.
    pub(super) async fn run(mut self) -> bool {
        let mut shutdown = self.exporter.shutdown.clone();
        let flushes = self.exporter.flushes.clone();
        loop {
            let take: fn(&Queue<B>) -> Option<B> = tokio::select! {
                biased;
                _ = shutdown.requested() => break,
                () = flushes.requested() => {
                    self.flush().await;
                    continue;
                }
                () = self.queue.ready() => Queue::take_ready,
                () = sleep(self.delay) => Queue::take,
            };
            while shutdown.limit().is_none()
                && self.exporter.open().await
                && let Some(batch) = take(&self.queue)
            {
                self.export(batch).await;
            }
        }
        self.finish().await
    }

    /// Handles the pending flush requests by exporting the entries that are queued now.
    async fn flush(&mut self) {
        for request in self.exporter.flushes.take() {
            self.exporter.flush_deadline = Some(request.deadline);
            let mut left = self.queue.len();
            while left > 0
                && request.deadline > Instant::now()
                && self.exporter.open().await
                && let Some(batch) = self.queue.take()
            {
                left = left.saturating_sub(batch.count());
                self.export(batch).await;
            }
            self.exporter.flush_deadline = None;
            let delivered = left == 0 && !self.exporter.delivery.is_failing();
            request.done(self.exporter.signal, delivered);
        }
    }

    /// Exports the remaining entries before the deadline of the shutdown.
    async fn finish(mut self) -> bool {
        self.queue.close();
        while self.queue.len() > 0 {
            if self.exporter.is_over() || !self.exporter.open().await {
                return false;
            }
            if let Some(batch) = self.queue.take() {
                self.export(batch).await;
            }
        }
        !self.exporter.delivery.is_failing()
    }

    async fn export(&mut self, batch: B) {
        let items = batch.count() as u64;
        let request = Request::new(self.exporter.signal, (self.encode)(&batch));
        self.queue.recycle(batch);
        let deadline = self.exporter.deadline();
        self.exporter.send(request, items, deadline).await;
    }
}

/// Logs when `queue` begins to overflow, and again when no entry has been dropped for the duration `settled`.
pub(super) async fn watch_overflow<B: Entries>(
    signal: Signal,
    queue: Arc<Queue<B>>,
    settled: Duration,
    mut shutdown: Shutdown,
) {
    loop {
        tokio::select! {
            // Polled first, to log an overflow just before the shutdown too.
            biased;
            () = queue.overflow() => {}
            _ = shutdown.requested() => return,
        }
        tracing::event!(
            target: LOG_TARGET,
            tracing::Level::WARN,
            telemetry.signal = signal.name(),
            queue.capacity = queue.capacity(),
            "the telemetry queue is full; entries are dropped until there is room again"
        );
        let mut stopping = false;
        let dropped = loop {
            let seen = queue.counts().dropped;
            tokio::select! {
                _ = shutdown.requested() => stopping = true,
                () = sleep(settled) => {}
            }
            if let Some(dropped) = queue.end_overflow(if stopping { queue.counts().dropped } else { seen }) {
                break dropped;
            }
        };
        tracing::event!(
            target: LOG_TARGET,
            tracing::Level::INFO,
            telemetry.signal = signal.name(),
            queue.dropped = dropped,
            "the telemetry queue is no longer full"
        );
        if stopping {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use opentelemetry::InstrumentationScope;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::Span;
    use opentelemetry_sdk::Resource;
    use prost::Message;
    use prost::bytes::Bytes;

    use super::super::delivery::Delivery;
    use super::super::exporter::{ExportTarget, Exporter};
    use super::super::shutdown::ShutdownLimit;
    use super::super::testing::{LogEvents, Reply, Scripted};
    use super::*;
    use crate::destination::CustomExporter;
    use crate::encode::{Batch, RequestEncoder};
    use crate::text::TextRules;
    use crate::transport::{Accepted, Retry, SendError};

    const DELAY: Duration = Duration::from_secs(5);

    /// Starts a loop that sends from `queue` to `transport`; returns the sender that stops the loop, and the
    /// task of the loop.
    fn start(
        queue: &Arc<Queue<Vec<u32>>>,
        transport: &Scripted,
    ) -> (
        tokio::sync::watch::Sender<Option<ShutdownLimit>>,
        tokio::task::JoinHandle<bool>,
    ) {
        let (stop, exporter): (_, Exporter<Scripted>) = transport.exporter(Duration::from_secs(30));
        let batches = BatchLoop {
            queue: Arc::clone(queue),
            delay: DELAY,
            encode: |_: &Vec<u32>| Bytes::new(),
            exporter,
        };
        (stop, tokio::spawn(batches.run()))
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn full_batches_are_sent_immediately_and_the_rest_after_the_delay() {
        let (began, queue) = (Instant::now(), Arc::new(Queue::new(100, 3)));
        let transport = Scripted::new(&[]);
        let (_stop, _run) = start(&queue, &transport);
        sleep(seconds(1)).await;
        (0..7).for_each(|entry| queue.push_one(entry));
        sleep(seconds(20)).await;
        assert_eq!(transport.calls(began), [1_000, 1_000, 6_000]);
        assert_eq!(queue.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn queued_entries_wait_for_the_retry_delay_of_the_collector() {
        let (began, queue) = (Instant::now(), Arc::new(Queue::new(100, 1)));
        let transport = Scripted::new(&[Reply::RetryAfter(seconds(60))]);
        let (_stop, _run) = start(&queue, &transport);
        (0..4).for_each(|entry| queue.push_one(entry));
        sleep(seconds(59)).await;
        assert_eq!((transport.calls(began).len(), queue.len()), (1, 3));
        sleep(seconds(10)).await;
        assert_eq!(transport.calls(began), [0, 60_000, 60_000, 60_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_delay_is_at_most_five_minutes() {
        let (began, queue) = (Instant::now(), Arc::new(Queue::new(100, 1)));
        let transport = Scripted::new(&[Reply::RetryAfter(seconds(1_000_000))]);
        let (_stop, _run) = start(&queue, &transport);
        (0..2).for_each(|entry| queue.push_one(entry));
        sleep(seconds(1_000)).await;
        assert_eq!(transport.calls(began), [0, 300_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_sends_the_queued_entries_and_closes_the_queue() {
        let queue = Arc::new(Queue::new(100, 3));
        let transport = Scripted::new(&[]);
        let (stop, run) = start(&queue, &transport);
        (0..2).for_each(|entry| queue.push_one(entry));
        stop.send_replace(Some(ShutdownLimit::new(Instant::now() + seconds(5))));
        assert!(run.await.unwrap());
        queue.push_one(2);
        assert_eq!((transport.calls(Instant::now()).len(), queue.len()), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_ends_at_its_deadline_even_if_the_transport_hangs() {
        for outcome in [Reply::TimesOut, Reply::Hangs] {
            let (began, queue) = (Instant::now(), Arc::new(Queue::new(100, 1)));
            let transport = Scripted::new(&[outcome; 9]);
            let (stop, run) = start(&queue, &transport);
            (0..9).for_each(|entry| queue.push_one(entry));
            sleep(seconds(2)).await;
            stop.send_replace(Some(ShutdownLimit::new(Instant::now() + seconds(5))));
            assert!(!run.await.unwrap());
            assert_eq!(began.elapsed().as_secs(), 7, "{outcome:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_gives_a_failing_collector_one_second() {
        let queue = Arc::new(Queue::new(100, 1));
        let transport = Scripted::new(&[Reply::Failed, Reply::Hangs]);
        let (stop, run) = start(&queue, &transport);
        (0..3).for_each(|entry| queue.push_one(entry));
        sleep(seconds(2)).await;
        let requested = Instant::now();
        stop.send_replace(Some(ShutdownLimit::new(requested + seconds(60))));
        assert!(!run.await.unwrap());
        assert_eq!(requested.elapsed().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_outage_does_not_exceed_the_capacity_of_the_queue() {
        let queue = Arc::new(Queue::new(100, 10));
        let transport = Scripted::new(&[Reply::TimesOut; 1_000]);
        let (_stop, _run) = start(&queue, &transport);
        for _ in 0..500 {
            (0..1_000).for_each(|entry| queue.push_one(entry));
            assert!(queue.len() <= 100);
            sleep(seconds(7)).await;
        }
        let counts = queue.counts();
        assert_eq!(counts.taken + counts.dropped + queue.len() as u64, 500_000);
    }

    /// The size of a request and the names of its spans.
    type Names = (usize, Vec<String>);

    /// A transport that rejects requests above a size and stores the accepted ones.
    #[derive(Clone, Debug)]
    struct Limited {
        limit: usize,
        refused: Arc<Mutex<usize>>,
        accepted: Arc<Mutex<Vec<Names>>>,
    }

    impl Transport for Limited {
        async fn send(&mut self, request: &Request, _: Instant) -> Result<Accepted, SendError> {
            let size = request.protobuf().len();
            if size > self.limit {
                *self.refused.lock().unwrap() += 1;
                return Err(SendError {
                    error_type: "413".into(),
                    message: "HTTP 413".to_owned(),
                    retry: Retry::Smaller(0),
                });
            }
            let decoded = ExportTraceServiceRequest::decode(request.protobuf().clone()).unwrap();
            let groups = decoded
                .resource_spans
                .into_iter()
                .flat_map(|group| group.scope_spans);
            let names = groups.flat_map(|group| group.spans).map(|span| span.name);
            self.accepted.lock().unwrap().push((size, names.collect()));
            Ok(Accepted::default())
        }
    }

    /// Exports spans with names of these lengths to a receiver with a size limit; returns the accepted requests, the
    /// number of rejected ones, and the log.
    async fn export_limited(limit: usize, lengths: &[usize]) -> (Vec<Names>, usize, LogEvents) {
        let log = LogEvents::new();
        let queue = Arc::new(Queue::<Batch>::new(100_000, 100_000));
        let scope = InstrumentationScope::builder("test").build();
        for (index, length) in lengths.iter().enumerate() {
            let span = Span {
                name: format!("{}{index:08}", "0".repeat(length - 8)),
                ..Span::default()
            };
            let encoded = span.encode_to_vec();
            queue.push(encoded.len(), |batch| {
                batch.add_to_scope(&scope, None, &[&encoded]);
            });
        }
        let transport = Limited {
            limit,
            refused: Arc::default(),
            accepted: Arc::default(),
        };
        let (stop, shutdown) = Shutdown::new();
        let destination = CustomExporter::new("test", |_| Ok(())).into();
        let target = ExportTarget::new(Signal::Traces, destination, seconds(30));
        let delivery = Arc::new(Delivery::new(Signal::Traces, None));
        let encoder = RequestEncoder::new(
            &Resource::builder_empty().build(),
            TextRules::default(),
            Arc::default(),
        );
        let batches = BatchLoop {
            queue,
            delay: DELAY,
            encode: move |batch: &Batch| encoder.encode(batch),
            exporter: Exporter::new(&target, transport.clone(), delivery, shutdown),
        };
        stop.send_replace(Some(ShutdownLimit::new(Instant::now() + seconds(60))));
        batches.run().await;
        let (accepted, refused) = (
            transport.accepted.lock().unwrap().clone(),
            *transport.refused.lock().unwrap(),
        );
        (accepted, refused, log)
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_below_the_limit_of_grpc_receivers() {
        let (accepted, refused, _) = export_limited(4 * 1024 * 1024 - 1_024, &[9_000; 2_000]).await;
        assert_eq!(refused, 0);
        assert_eq!(
            accepted.iter().map(|(_, names)| names.len()).sum::<usize>(),
            2_000
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_request_is_halved_until_it_fits_and_the_size_is_remembered() {
        let (accepted, refused, log) = export_limited(100_000, &[1_000; 5_000]).await;
        let names: Vec<usize> = accepted
            .iter()
            .flat_map(|(_, names)| names.iter().map(|name| name.parse().unwrap()))
            .collect();
        assert_eq!(names, (0..5_000).collect::<Vec<_>>());
        assert!(refused <= 6, "{refused}");
        assert_eq!(log.count("cannot be delivered"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_entry_that_is_too_large_alone_is_dropped() {
        let (accepted, _, log) = export_limited(100_000, &[1_000, 200_000, 1_000, 1_000]).await;
        let names: usize = accepted.iter().map(|(_, names)| names.len()).sum();
        assert_eq!(names, 3);
        assert_eq!(log.count("lost=1"), 1);
        let (accepted, refused, log) = export_limited(usize::MAX, &[1_000, 5_000_000, 1_000]).await;
        assert_eq!((accepted.len(), refused, log.count("lost=1")), (2, 0, 1));
        assert_eq!(log.count("exceeds the maximum"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_single_refused_entry_is_not_sent_again() {
        let (began, queue) = (Instant::now(), Arc::new(Queue::new(100, 1)));
        let transport = Scripted::new(&[Reply::TooLarge]);
        let (_stop, _run) = start(&queue, &transport);
        queue.push_one(1);
        sleep(seconds(20)).await;
        assert_eq!(transport.calls(began), [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_overflow_is_logged_when_it_begins_and_when_it_has_settled() {
        let log = LogEvents::new();
        let (stop, shutdown) = Shutdown::new();
        let queue = Arc::new(Queue::new(2, 1));
        let watch = tokio::spawn(watch_overflow(
            Signal::Logs,
            Arc::clone(&queue),
            seconds(5),
            shutdown,
        ));
        for _ in 0..10 {
            (0..10).for_each(|entry| queue.push_one(entry));
            while queue.take().is_some() {}
            sleep(seconds(3)).await;
        }
        assert_eq!((log.count("queue is full"), log.count("no longer full")), (1, 0));
        sleep(seconds(10)).await;
        assert_eq!(log.count("dropped=80"), 1);
        (0..10).for_each(|entry| queue.push_one(entry));
        sleep(seconds(1)).await;
        stop.send_replace(Some(ShutdownLimit::new(Instant::now())));
        watch.await.unwrap();
        assert_eq!((log.count("queue is full"), log.count("dropped=8 ")), (2, 1));
    }
}
