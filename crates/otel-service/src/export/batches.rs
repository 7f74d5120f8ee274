//! The loop of a signal that is queued: spans and log records. A batch leaves when it is full or when the delay is over,
//! whichever is first.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::delivery::TARGET;
use super::outlet::{Export, Outlet};
use super::queue::{Entries, Queue};
use super::stop::Stop;
use crate::otlp::Request;

/// What moves one signal's batches from the queue to the outlet.
#[derive(Debug)]
pub(crate) struct Batching<B, E, F> {
    pub(crate) queue: Arc<Queue<B>>,
    /// Between two exports of batches that are not full.
    pub(crate) delay: Duration,
    /// Makes a request of a batch, and sees to it that the queue gets the batch's memory back.
    pub(crate) request: F,
    pub(crate) outlet: Outlet<E>,
}

impl<B, E, F> Batching<B, E, F>
where
    B: Entries,
    E: Export,
    F: Fn(B) -> Request,
{
    /// Runs until it is stopped; says whether everything was delivered.
    pub(crate) async fn run(mut self) -> bool {
        let mut stop = self.outlet.stop.clone();
        loop {
            tokio::select! {
                biased;
                _ = stop.asked() => break,
                () = self.queue.ready() => {
                    while stop.end().is_none() && self.outlet.open().await
                        && let Some(batch) = self.queue.take_ready()
                    {
                        self.export(batch).await;
                    }
                }
                () = sleep(self.delay) => {
                    while stop.end().is_none() && self.outlet.open().await
                        && let Some(batch) = self.queue.take()
                    {
                        self.export(batch).await;
                    }
                }
            }
        }
        self.finish().await
    }

    /// Exports what is left, until the end at the latest.
    async fn finish(mut self) -> bool {
        self.queue.close();
        while self.queue.len() > 0 {
            if self.outlet.is_over() || !self.outlet.open().await {
                return false;
            }
            if let Some(batch) = self.queue.take() {
                self.export(batch).await;
            }
        }
        !self.outlet.delivery.is_failing()
    }

    async fn export(&mut self, batch: B) {
        let items = batch.count() as u64;
        let request = (self.request)(batch);
        let until = self.outlet.until();
        self.outlet.send(&request, items, until).await;
    }
}

/// Tells the log when `queue` begins to overflow and, once nothing was dropped for as long as `quiet`, that it is over.
pub(crate) async fn watch_overflow<B: Entries>(
    signal: &'static str,
    queue: Arc<Queue<B>>,
    quiet: Duration,
    mut stop: Stop,
) {
    loop {
        tokio::select! {
            // What overflows just before the end is told too.
            biased;
            () = queue.overflow() => {}
            _ = stop.asked() => return,
        }
        tracing::warn!(
            target: TARGET,
            signal,
            capacity = queue.capacity(),
            "more telemetry is made than delivered; what does not fit into the queue is dropped"
        );
        let mut stopped = false;
        let dropped = loop {
            let seen = queue.counts().dropped;
            tokio::select! {
                _ = stop.asked() => stopped = true,
                () = sleep(quiet) => {}
            }
            if let Some(dropped) = queue.end_overflow(if stopped { queue.counts().dropped } else { seen }) {
                break dropped;
            }
        };
        tracing::info!(target: TARGET, signal, dropped, "the telemetry queue has room again");
        if stopped {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::bytes::Bytes;
    use tokio::time::Instant;

    use super::super::outlet::Outlet;
    use super::super::stop::End;
    use super::super::testing::{Outcome, Scripted, Told};
    use super::*;

    const DELAY: Duration = Duration::from_secs(5);

    /// A loop over `queue` that sends to `exporter`; the way to stop it, and its end.
    fn start(
        queue: &Arc<Queue<Vec<u32>>>,
        exporter: &Scripted,
    ) -> (
        tokio::sync::watch::Sender<Option<End>>,
        tokio::task::JoinHandle<bool>,
    ) {
        let (ask, outlet): (_, Outlet<Scripted>) = exporter.outlet(Duration::from_secs(30));
        let batching = Batching {
            queue: Arc::clone(queue),
            delay: DELAY,
            request: |_: Vec<u32>| Request::Traces(Bytes::new()),
            outlet,
        };
        (ask, tokio::spawn(batching.run()))
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn full_batches_leave_at_once_and_the_rest_after_the_delay() {
        let (began, queue) = (Instant::now(), Arc::new(Queue::new(100, 3)));
        let exporter = Scripted::new(&[]);
        let (_ask, _run) = start(&queue, &exporter);
        sleep(seconds(1)).await;
        (0..7).for_each(|entry| queue.push_one(entry));
        sleep(seconds(20)).await;
        assert_eq!(exporter.calls(began), [1_000, 1_000, 6_000]);
        assert_eq!(queue.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_asks_for_time_is_left_alone_while_entries_wait() {
        let (began, queue) = (Instant::now(), Arc::new(Queue::new(100, 1)));
        let exporter = Scripted::new(&[Outcome::Later(seconds(60))]);
        let (_ask, _run) = start(&queue, &exporter);
        (0..4).for_each(|entry| queue.push_one(entry));
        sleep(seconds(59)).await;
        assert_eq!((exporter.calls(began).len(), queue.len()), (1, 3));
        sleep(seconds(10)).await;
        assert_eq!(exporter.calls(began), [0, 60_000, 60_000, 60_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_collector_cannot_ask_for_more_than_five_minutes() {
        let (began, queue) = (Instant::now(), Arc::new(Queue::new(100, 1)));
        let exporter = Scripted::new(&[Outcome::Later(seconds(1_000_000))]);
        let (_ask, _run) = start(&queue, &exporter);
        (0..2).for_each(|entry| queue.push_one(entry));
        sleep(seconds(1_000)).await;
        assert_eq!(exporter.calls(began), [0, 300_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_sends_what_is_left_and_takes_nothing_more() {
        let queue = Arc::new(Queue::new(100, 3));
        let exporter = Scripted::new(&[]);
        let (ask, run) = start(&queue, &exporter);
        (0..2).for_each(|entry| queue.push_one(entry));
        ask.send_replace(Some(End::by(Instant::now() + seconds(5))));
        assert!(run.await.unwrap());
        queue.push_one(2);
        assert_eq!((exporter.calls(Instant::now()).len(), queue.len()), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_comes_at_its_deadline_whatever_the_exporter_does() {
        for outcome in [Outcome::Silence, Outcome::Stuck] {
            let (began, queue) = (Instant::now(), Arc::new(Queue::new(100, 1)));
            let exporter = Scripted::new(&[outcome; 9]);
            let (ask, run) = start(&queue, &exporter);
            (0..9).for_each(|entry| queue.push_one(entry));
            sleep(seconds(2)).await;
            ask.send_replace(Some(End::by(Instant::now() + seconds(5))));
            assert!(!run.await.unwrap());
            assert_eq!(began.elapsed().as_secs(), 7, "{outcome:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_has_been_failing_is_not_waited_for_at_the_end() {
        let queue = Arc::new(Queue::new(100, 1));
        let exporter = Scripted::new(&[Outcome::Failed, Outcome::Stuck]);
        let (ask, run) = start(&queue, &exporter);
        (0..3).for_each(|entry| queue.push_one(entry));
        sleep(seconds(2)).await;
        let asked = Instant::now();
        ask.send_replace(Some(End::by(asked + seconds(60))));
        assert!(!run.await.unwrap());
        assert_eq!(asked.elapsed().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_of_any_length_keeps_no_more_than_the_queue_holds() {
        let queue = Arc::new(Queue::new(100, 10));
        let exporter = Scripted::new(&[Outcome::Silence; 1_000]);
        let (_ask, _run) = start(&queue, &exporter);
        for _ in 0..500 {
            (0..1_000).for_each(|entry| queue.push_one(entry));
            assert!(queue.len() <= 100);
            sleep(seconds(7)).await;
        }
        let counts = queue.counts();
        assert_eq!(counts.taken + counts.dropped + queue.len() as u64, 500_000);
    }

    #[tokio::test(start_paused = true)]
    async fn an_overflow_is_told_when_it_begins_and_when_it_has_been_over_for_a_while() {
        let told = Told::new();
        let (ask, stop) = Stop::new();
        let queue = Arc::new(Queue::new(2, 1));
        let watch = tokio::spawn(watch_overflow("logs", Arc::clone(&queue), seconds(5), stop));
        for _ in 0..10 {
            (0..10).for_each(|entry| queue.push_one(entry));
            while queue.take().is_some() {}
            sleep(seconds(3)).await;
        }
        assert_eq!((told.count("does not fit"), told.count("room again")), (1, 0));
        sleep(seconds(10)).await;
        assert_eq!(told.count("dropped=80"), 1);
        (0..10).for_each(|entry| queue.push_one(entry));
        sleep(seconds(1)).await;
        ask.send_replace(Some(End::by(Instant::now())));
        watch.await.unwrap();
        assert_eq!((told.count("does not fit"), told.count("dropped=8 ")), (2, 1));
    }
}
