//! Tests of the queue and the thread.

use std::sync::mpsc;

use super::*;
use crate::samples;

fn export() -> Export {
    let [traces, ..] = samples::exports("");
    traces
}

#[test]
fn a_full_queue_rejects_exports_until_one_is_consumed() {
    let queue = Arc::new(ExportQueue::new(100));
    queue.push(export(), 60).unwrap();
    assert_eq!(queue.push(export(), 41), Err(Rejected::Overloaded));
    queue.push(export(), 40).unwrap();
    assert_eq!(queue.push(export(), 1), Err(Rejected::Overloaded));

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
        queue.push(export(), 1),
        Err(Rejected::Overloaded),
        "an export being consumed counts towards the limit"
    );
    finish.send(()).unwrap();
    started.recv().unwrap();
    queue.push(export(), 60).unwrap();
    queue.close();
    finish.send(()).unwrap();
    started.recv().unwrap();
    finish.send(()).unwrap();
    consumer.join().unwrap();
}

#[test]
fn a_closed_queue_rejects_exports_and_drains_those_it_has() {
    let queue = ExportQueue::new(100);
    queue.push(export(), 1).unwrap();
    queue.push(export(), 1).unwrap();
    queue.close();
    assert_eq!(queue.push(export(), 1), Err(Rejected::Closed));
    let mut consumed = 0;
    queue.consume(|_| consumed += 1);
    assert_eq!(consumed, 2);
}

#[test]
fn an_export_larger_than_the_queue_is_rejected() {
    let queue = ExportQueue::new(100);
    assert_eq!(queue.push(export(), 101), Err(Rejected::Overloaded));
}

#[tokio::test]
async fn exports_are_counted_before_the_shutdown_and_rejected_afterwards() {
    let received = Arc::new(Received::default());
    let store = Arc::new(Store::new(1 << 20));
    let (ingest, ingest_thread) = Ingest::start(store, None, true, None, received.clone()).unwrap();
    for export in samples::exports("") {
        ingest.accept(export).unwrap();
    }
    ingest_thread.finish().await;
    assert_eq!(ingest.accept(export()), Err(Rejected::Closed));
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
    assert_eq!(ingest.accept(export()), Err(Rejected::Closed));
    // The thread holds the other reference.
    while Arc::strong_count(&store) > 1 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_panic_loses_one_export_and_frees_its_space_in_the_queue() {
    let queue = ExportQueue::new(100);
    queue.push(export(), 60).unwrap();
    queue.push(export(), 40).unwrap();
    let mut consumed = 0;
    queue.consume(|export| {
        consumed += 1;
        catch_panic(export, |_| {
            if consumed == 1 {
                panic!("on purpose")
            }
        });
        if consumed == 2 {
            queue.push(self::export(), 60).unwrap();
            queue.close();
        }
    });
    assert_eq!(consumed, 3);
}
