use std::sync::mpsc;

use super::{queue::Queue, *};
use crate::samples;

fn export() -> Export {
    let [traces, ..] = samples::exports("");
    traces
}

#[test]
fn a_full_queue_refuses_until_something_was_taken() {
    let queue = Arc::new(Queue::new(100));
    queue.push(export(), 60).unwrap();
    assert_eq!(queue.push(export(), 41), Err(Refused::Overloaded));
    queue.push(export(), 40).unwrap();
    assert_eq!(queue.push(export(), 1), Err(Refused::Overloaded));

    let (taking, began) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let taker = thread::spawn({
        let queue = queue.clone();
        move || {
            queue.take_each(|_| {
                taking.send(()).unwrap();
                may_go_on.recv().unwrap();
            });
        }
    });
    began.recv().unwrap();
    assert_eq!(
        queue.push(export(), 1),
        Err(Refused::Overloaded),
        "what is being taken counts"
    );
    go_on.send(()).unwrap();
    began.recv().unwrap();
    queue.push(export(), 60).unwrap();
    queue.close();
    go_on.send(()).unwrap();
    began.recv().unwrap();
    go_on.send(()).unwrap();
    taker.join().unwrap();
}

#[test]
fn a_closed_queue_refuses_and_gives_out_what_it_has() {
    let queue = Queue::new(100);
    queue.push(export(), 1).unwrap();
    queue.push(export(), 1).unwrap();
    queue.close();
    assert_eq!(queue.push(export(), 1), Err(Refused::Closed));
    let mut taken = 0;
    queue.take_each(|_| taken += 1);
    assert_eq!(taken, 2);
}

#[test]
fn what_is_longer_than_the_queue_is_refused() {
    let queue = Queue::new(100);
    assert_eq!(queue.push(export(), 101), Err(Refused::Overloaded));
}

#[tokio::test]
async fn what_was_accepted_before_the_end_is_counted_and_what_comes_after_is_refused() {
    let counts = Arc::new(Counts::default());
    let store = Arc::new(Store::new(1 << 20));
    let (ingest, ingesting) = Ingest::start(store, None, counts.clone()).unwrap();
    for export in samples::exports("") {
        ingest.accept(export).unwrap();
    }
    ingesting.finish().await;
    assert_eq!(ingest.accept(export()), Err(Refused::Closed));
    ingest.count_refused();
    assert_eq!((counts.spans(), counts.logs(), counts.points()), (1, 1, 5));
    assert_eq!(counts.refused_requests(), 1);
}

#[tokio::test]
async fn dropping_the_thread_s_end_ends_the_thread() {
    let store = Arc::new(Store::new(1 << 20));
    let (ingest, ingesting) = Ingest::start(store.clone(), None, Arc::default()).unwrap();
    drop(ingesting);
    assert_eq!(ingest.accept(export()), Err(Refused::Closed));
    // The thread holds the other one.
    while Arc::strong_count(&store) > 1 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_panic_costs_one_export_and_its_room_in_the_queue_is_free_again() {
    let queue = Queue::new(100);
    queue.push(export(), 60).unwrap();
    queue.push(export(), 40).unwrap();
    let mut taken = 0;
    queue.take_each(|export| {
        taken += 1;
        guarded(export, |_| {
            if taken == 1 {
                panic!("on purpose")
            }
        });
        if taken == 2 {
            queue.push(self::export(), 60).unwrap();
            queue.close();
        }
    });
    assert_eq!(taken, 3);
}
