//! Tests of the queue and the thread.

use std::sync::mpsc;

use super::*;
use crate::samples;

fn export() -> Export {
    let [traces, ..] = samples::exports("");
    traces
}

impl ExportQueue {
    /// Queues an export that does not wait.
    async fn push_at_once(&self, length: usize) -> Result<(), Rejected> {
        self.push(export(), length, Instant::now()).await.map(drop)
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_rejects_exports_until_one_is_consumed() {
    let queue = Arc::new(ExportQueue::new(100));
    queue.push_at_once(60).await.unwrap();
    assert_eq!(queue.push_at_once(41).await, Err(Rejected::Overloaded));
    queue.push_at_once(40).await.unwrap();
    assert_eq!(queue.push_at_once(1).await, Err(Rejected::Overloaded));

    let (start, started) = mpsc::channel();
    let (finish, finished) = mpsc::channel::<()>();
    let consumer = thread::spawn({
        let queue = queue.clone();
        move || {
            queue.consume(|_| {
                start.send(()).unwrap();
                finished.recv().unwrap();
            });
        }
    });
    started.recv().unwrap();
    assert_eq!(
        queue.push_at_once(1).await,
        Err(Rejected::Overloaded),
        "an export being consumed counts towards the limit"
    );
    finish.send(()).unwrap();
    started.recv().unwrap();
    queue.push_at_once(60).await.unwrap();
    queue.close();
    finish.send(()).unwrap();
    started.recv().unwrap();
    finish.send(()).unwrap();
    consumer.join().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_closed_queue_rejects_exports_and_drains_those_it_has() {
    let queue = ExportQueue::new(100);
    queue.push_at_once(1).await.unwrap();
    queue.push_at_once(1).await.unwrap();
    queue.close();
    assert_eq!(queue.push_at_once(1).await, Err(Rejected::Closed));
    let mut consumed = 0;
    queue.consume(|_| consumed += 1);
    assert_eq!(consumed, 2);
}

#[tokio::test(start_paused = true)]
async fn an_export_larger_than_the_queue_is_rejected() {
    let queue = ExportQueue::new(100);
    assert_eq!(queue.push_at_once(101).await, Err(Rejected::Overloaded));
}

#[tokio::test]
async fn exports_are_counted_before_the_shutdown_and_rejected_afterwards() {
    let received = Arc::new(Received::default());
    let store = Arc::new(Store::new(1 << 20));
    let (ingest, ingest_thread) = Ingest::start(store, None, true, None, received.clone()).unwrap();
    for export in samples::exports("") {
        ingest.accept(export, 1, Instant::now()).await.unwrap();
    }
    ingest_thread.finish().await;
    assert_eq!(
        ingest.accept(export(), 1, Instant::now()).await,
        Err(Rejected::Closed)
    );
    ingest.count_rejected("too large");
    assert_eq!(
        received.counts(),
        crate::export::Counts {
            spans: 1,
            logs: 1,
            points: 5
        }
    );
    assert_eq!(received.rejected_requests(), 1);
}

#[tokio::test]
async fn dropping_the_handle_ends_the_thread() {
    let store = Arc::new(Store::new(1 << 20));
    let (ingest, ingest_thread) = Ingest::start(store.clone(), None, true, None, Arc::default()).unwrap();
    drop(ingest_thread);
    assert_eq!(
        ingest.accept(export(), 1, Instant::now()).await,
        Err(Rejected::Closed)
    );
    // The thread holds the other reference.
    while Arc::strong_count(&store) > 1 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_panic_loses_one_export_and_frees_its_space_in_the_queue() {
    let queue = ExportQueue::new(100);
    block_on(queue.push_at_once(60)).unwrap();
    block_on(queue.push_at_once(40)).unwrap();
    let mut consumed = 0;
    queue.consume(|export| {
        consumed += 1;
        catch_panic(export, |_| {
            if consumed == 1 {
                panic!("on purpose")
            }
        });
        if consumed == 2 {
            block_on(queue.push_at_once(60)).unwrap();
            queue.close();
        }
    });
    assert_eq!(consumed, 3);
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().build().unwrap().block_on(future)
}

#[tokio::test(start_paused = true)]
async fn an_export_waits_for_room_until_its_deadline() {
    let queue = Arc::new(ExportQueue::new(100));
    assert_eq!(queue.push(export(), 90, Instant::now()).await, Ok(false));
    let begin = Instant::now();
    let late = queue.push(export(), 11, begin + MAX_WAIT).await;
    assert_eq!((late, begin.elapsed()), (Err(Rejected::Overloaded), MAX_WAIT));
}

#[tokio::test]
async fn exports_wait_for_room_in_order() {
    let queue = Arc::new(ExportQueue::new(100));
    queue.push_at_once(90).await.unwrap();
    let push = |length| {
        let queue = queue.clone();
        tokio::spawn(async move {
            queue
                .push(export(), length, Instant::now() + Duration::from_secs(30))
                .await
        })
    };
    let large = push(60);
    tokio::task::yield_now().await;
    let small = push(5);
    tokio::task::yield_now().await;
    assert!(
        !large.is_finished() && !small.is_finished(),
        "a small export overtakes a large one"
    );
    // The thread of the consumer is one that blocks, unlike this one.
    let consumer = thread::spawn({
        let queue = queue.clone();
        move || {
            let mut consumed = 0;
            queue.consume(|_| consumed += 1);
            consumed
        }
    });
    assert_eq!((large.await.unwrap(), small.await.unwrap()), (Ok(true), Ok(true)));
    queue.close();
    assert_eq!(consumer.join().unwrap(), 3);
    assert_eq!(queue.push_at_once(1).await, Err(Rejected::Closed));
}

#[tokio::test]
async fn an_export_that_waits_is_rejected_when_the_queue_closes() {
    let queue = Arc::new(ExportQueue::new(100));
    queue.push_at_once(100).await.unwrap();
    let waiting = tokio::spawn({
        let queue = queue.clone();
        async move { queue.push(export(), 1, Instant::now() + MAX_WAIT).await }
    });
    tokio::task::yield_now().await;
    queue.close();
    assert_eq!(waiting.await.unwrap(), Err(Rejected::Closed));
}
