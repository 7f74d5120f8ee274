//! Dead letters on both brokers: listing, requeueing, purging, and concurrent changes to the list.

#![expect(clippy::unwrap_used, reason = "tests and their helpers may panic")]

#[expect(dead_code, reason = "these tests do not stop the server")]
#[path = "support/redis.rs"]
mod server;

use std::sync::Arc;

use celeriac::{Broker, BrokerError, DeadLetter, Delivery, MemoryBroker, Message, RedisBroker, RequeueError};

use crate::server::Server;

const MESSAGE: &str = include_str!("vectors/message.json");
const RECORDED_ID: &str = "9b83d466-f412-4357-8563-2b2dedf45e4e";

/// Runs a test on both brokers; `put` adds a raw element to the queue `celery`.
macro_rules! on_both {
    ($($behaviour:ident)*) => {
        mod on_memory {
            $(
                #[tokio::test]
                async fn $behaviour() {
                    let broker = std::sync::Arc::new(celeriac::MemoryBroker::new(100));
                    let inner = std::sync::Arc::clone(&broker);
                    super::$behaviour(broker, &|raw: Vec<u8>| {
                        let broker = std::sync::Arc::clone(&inner);
                        tokio::spawn(async move { broker.publish_raw("celery", 0, raw).await });
                    })
                    .await;
                }
            )*
        }
        mod on_redis {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $behaviour() {
                    let server = crate::server::Server::start();
                    super::$behaviour(std::sync::Arc::new(server.broker()), &|raw: Vec<u8>| {
                        redis::cmd("LPUSH").arg("celery").arg(raw).exec(&mut server.connection()).unwrap();
                    })
                    .await;
                }
            )*
        }
    };
}

on_both! {
    letters_are_listed_oldest_first_with_their_details
    a_requeued_letter_has_no_marks_of_earlier_deliveries
    poison_is_requeued_only_by_force
    a_letter_removed_concurrently_is_neither_duplicated_nor_an_error
    letters_are_requeued_in_order_and_poison_stays
    only_matching_letters_are_purged
}

type Put<'a> = &'a (dyn Fn(Vec<u8>) + Sync);

/// Returns a message with its own task id and the given priority.
fn message(number: u32, priority: u8) -> (String, Vec<u8>) {
    let id = format!("00000000-0000-4000-8000-{number:012}");
    let raw = MESSAGE.trim().replace(RECORDED_ID, &id).replacen(
        r#""priority": 0"#,
        &format!(r#""priority": {priority}"#),
        1,
    );
    (id, raw.into_bytes())
}

async fn receive(broker: &dyn Broker) -> Delivery {
    for _ in 0..100 {
        if let Some(delivery) = broker
            .receive(&["celery".to_owned()], 1)
            .await
            .unwrap()
            .into_iter()
            .next()
        {
            return delivery;
        }
    }
    panic!("no message arrived");
}

/// Adds a message to its queue, receives it and buries it.
async fn bury(broker: &dyn Broker, put: Put<'_>, raw: Vec<u8>, reason: &str) {
    put(raw);
    let delivery = receive(broker).await;
    broker.bury(&delivery, reason, None).await.unwrap();
}

async fn letters(broker: &dyn Broker) -> Vec<DeadLetter> {
    broker.dead_letters(0, 100).await.unwrap()
}

async fn reasons(broker: &dyn Broker) -> Vec<String> {
    let letters = letters(broker).await;
    letters.into_iter().map(|letter| letter.reason).collect()
}

async fn letters_are_listed_oldest_first_with_their_details(broker: Arc<dyn Broker>, put: Put<'_>) {
    assert_eq!(broker.dead_letter_count().await.unwrap(), 0);
    assert_eq!(letters(broker.as_ref()).await, []);
    let (id, raw) = message(1, 0);
    bury(broker.as_ref(), put, raw.clone(), "first").await;
    bury(broker.as_ref(), put, b"\xff\xfe".to_vec(), "second").await;
    bury(broker.as_ref(), put, message(3, 0).1, "third").await;
    assert_eq!(broker.dead_letter_count().await.unwrap(), 3);
    let listed = letters(broker.as_ref()).await;
    assert_eq!(listed.len(), 3);
    assert_eq!(listed[0].raw, raw);
    assert_eq!(listed[0].queue, "celery");
    assert_eq!(listed[0].task_id.as_deref(), Some(id.as_str()));
    assert_eq!(
        listed[0].task.as_deref(),
        Some("app.jobs.tasks.send_article_notification")
    );
    assert!(listed[0].time <= listed[1].time && listed[0].time.is_some());
    assert_eq!(
        (listed[1].raw.as_slice(), listed[1].task_id.as_ref()),
        (b"\xff\xfe".as_slice(), None)
    );
    for (offset, limit, expected) in [
        (0, 2, &["first", "second"][..]),
        (2, 2, &["third"]),
        (3, 2, &[]),
        (1, 0, &[]),
        (0, usize::MAX, &["first", "second", "third"]),
        (usize::MAX, usize::MAX, &[]),
    ] {
        let page = broker.dead_letters(offset, limit).await.unwrap();
        let page: Vec<String> = page.into_iter().map(|letter| letter.reason).collect();
        assert_eq!(page, expected, "{offset} {limit}");
    }
}

async fn a_requeued_letter_has_no_marks_of_earlier_deliveries(broker: Arc<dyn Broker>, put: Put<'_>) {
    let (id, raw) = message(1, 4);
    let marked = String::from_utf8(raw.clone()).unwrap().replacen(
        r#""lang": "py""#,
        r#""lang": "py", "celeriac_deliveries": 20"#,
        1,
    );
    put(marked.into_bytes());
    // The first restore marks the message as redelivered.
    let first = receive(broker.as_ref()).await;
    broker.restore(&first).await.unwrap();
    let again = receive(broker.as_ref()).await;
    assert!(again.message().unwrap().redelivered());
    broker.bury(&again, "too often", None).await.unwrap();
    let letter = letters(broker.as_ref()).await.remove(0);
    assert_eq!(broker.requeue(&letter, false).await, Ok(true));
    assert_eq!(broker.dead_letter_count().await.unwrap(), 0);
    let back = receive(broker.as_ref()).await;
    assert_eq!(
        String::from_utf8(back.raw.clone()).unwrap(),
        String::from_utf8(raw).unwrap()
    );
    assert_eq!(back.message().unwrap().headers.id, id);
    assert_eq!(back.queue, "celery");
}

async fn poison_is_requeued_only_by_force(broker: Arc<dyn Broker>, put: Put<'_>) {
    bury(broker.as_ref(), put, b"not json".to_vec(), "no JSON").await;
    let letter = letters(broker.as_ref()).await.remove(0);
    let error = broker.requeue(&letter, false).await.unwrap_err();
    assert!(matches!(error, RequeueError::Poison(_)), "{error}");
    assert!(
        error
            .to_string()
            .starts_with("no worker can run it: the message is not a JSON object"),
        "{error}"
    );
    assert_eq!(broker.dead_letter_count().await.unwrap(), 1);
    assert_eq!(broker.requeue(&letter, true).await, Ok(true));
    assert_eq!(receive(broker.as_ref()).await.raw, b"not json");
}

async fn a_letter_removed_concurrently_is_neither_duplicated_nor_an_error(
    broker: Arc<dyn Broker>,
    put: Put<'_>,
) {
    bury(broker.as_ref(), put, message(1, 0).1, "seen").await;
    let seen = letters(broker.as_ref()).await.remove(0);
    // The list changes at both ends.
    bury(broker.as_ref(), put, message(2, 0).1, "later").await;
    assert_eq!(broker.requeue(&seen, false).await, Ok(true));
    assert_eq!(broker.requeue(&seen, false).await, Ok(false));
    assert_eq!(broker.take_dead_letter(&seen, None).await, Ok(false));
    assert_eq!(reasons(broker.as_ref()).await, ["later"]);
    assert_eq!(broker.depth("celery").await.unwrap().waiting, 1);
}

async fn letters_are_requeued_in_order_and_poison_stays(broker: Arc<dyn Broker>, put: Put<'_>) {
    // More letters than a page of the list holds.
    let mut ids = Vec::new();
    for number in 0..60 {
        let (id, raw) = message(number, 0);
        bury(broker.as_ref(), put, raw, "good").await;
        ids.push(id);
        if number == 5 || number == 55 {
            bury(broker.as_ref(), put, format!("bad {number}").into_bytes(), "bad").await;
        }
    }
    let one = ids[7].clone();
    let report = broker
        .requeue_where(
            &move |letter| letter.task_id.as_deref() == Some(one.as_str()),
            false,
        )
        .await
        .unwrap();
    assert_eq!((report.requeued.len(), report.refused.len()), (1, 0));
    assert_eq!(
        receive(broker.as_ref()).await.message().unwrap().headers.id,
        ids.remove(7)
    );
    let report = broker.requeue_where(&|_| true, false).await.unwrap();
    assert_eq!((report.requeued.len(), report.refused.len()), (59, 2));
    assert_eq!(reasons(broker.as_ref()).await, ["bad", "bad"]);
    for id in ids {
        assert_eq!(receive(broker.as_ref()).await.message().unwrap().headers.id, id);
    }
}

async fn only_matching_letters_are_purged(broker: Arc<dyn Broker>, put: Put<'_>) {
    for number in 0..3 {
        bury(
            broker.as_ref(),
            put,
            message(number, 0).1,
            &format!("reason {number}"),
        )
        .await;
    }
    let purged = broker
        .purge_where(&|letter| letter.reason == "reason 1")
        .await
        .unwrap();
    assert_eq!(purged.len(), 1);
    assert_eq!(reasons(broker.as_ref()).await, ["reason 0", "reason 2"]);
    assert_eq!(broker.purge_where(&|_| true).await.unwrap().len(), 2);
    assert_eq!(broker.dead_letter_count().await.unwrap(), 0);
    assert_eq!(broker.depth("celery").await.unwrap().waiting, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_returns_at_once_is_requeued_once() {
    let server = Server::start();
    let broker: Arc<dyn Broker> = Arc::new(server.broker());
    let put = |raw: Vec<u8>| {
        redis::cmd("LPUSH")
            .arg("celery")
            .arg(raw)
            .exec(&mut server.connection())
            .unwrap();
    };
    for number in 0..60 {
        bury(broker.as_ref(), &put, message(number, 0).1, "failed").await;
    }
    let failing = Arc::clone(&broker);
    let failing = tokio::spawn(async move {
        loop {
            let delivery = receive(failing.as_ref()).await;
            failing.bury(&delivery, "failed again", None).await.unwrap();
        }
    });
    let report = broker.requeue_where(&|_| true, false).await.unwrap();
    failing.abort();
    assert_eq!(report.requeued.len(), 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_letters_are_taken_one_at_a_time() {
    let server = Server::start();
    let broker = server.broker();
    let connection = &mut server.connection();
    for _ in 0..2 {
        redis::cmd("LPUSH")
            .arg("celeriac.dead")
            .arg(r#"{"reason": "r", "time": "", "queue": "celery", "message": "{}"}"#)
            .exec(connection)
            .unwrap();
    }
    use celeriac::DeadLetters as _;
    let letters = broker.dead_letters(0, 10).await.unwrap();
    assert_eq!(letters[0], letters[1]);
    assert_eq!(broker.requeue(&letters[0], true).await, Ok(true));
    assert_eq!(broker.dead_letter_count().await.unwrap(), 1);
    let waiting: Vec<String> = redis::cmd("LRANGE")
        .arg("celery")
        .arg(0)
        .arg(-1)
        .query(connection)
        .unwrap();
    assert_eq!(waiting, ["{}"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_priority_and_the_binding_are_kept() {
    let server = Server::start();
    let broker: Arc<dyn Broker> = Arc::new(server.broker());
    let put = |raw: Vec<u8>| {
        redis::cmd("LPUSH")
            .arg("celery\x06\x166")
            .arg(raw)
            .exec(&mut server.connection())
            .unwrap();
    };
    bury(broker.as_ref(), &put, message(1, 7).1, "r").await;
    let letter = letters(broker.as_ref()).await.remove(0);
    broker.requeue(&letter, false).await.unwrap();
    let (waiting, bindings): (Vec<Vec<u8>>, Vec<String>) = redis::pipe()
        .cmd("LRANGE")
        .arg("celery\x06\x166")
        .arg(0)
        .arg(-1)
        .cmd("SMEMBERS")
        .arg("_kombu.binding.celery")
        .query(&mut server.connection())
        .unwrap();
    assert_eq!(Message::decode(&waiting[0]).unwrap().properties.priority, 7);
    assert_eq!(bindings, ["celery\x06\x16\x06\x16celery"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_letters_are_dropped_beyond_the_capacity() {
    let server = Server::start();
    let config = server.config().dead_letter_capacity(2);
    let broker: Arc<dyn Broker> = Arc::new(RedisBroker::new(config).unwrap());
    let put = |raw: Vec<u8>| {
        redis::cmd("LPUSH")
            .arg("celery")
            .arg(raw)
            .exec(&mut server.connection())
            .unwrap();
    };
    for number in 0..4 {
        bury(
            broker.as_ref(),
            &put,
            message(number, 0).1,
            &format!("reason {number}"),
        )
        .await;
    }
    assert_eq!(reasons(broker.as_ref()).await, ["reason 2", "reason 3"]);
}

#[tokio::test]
async fn a_full_in_process_broker_keeps_the_letter() {
    let broker = Arc::new(MemoryBroker::new(1));
    let inner = Arc::clone(&broker);
    let put = |raw: Vec<u8>| {
        let broker = Arc::clone(&inner);
        tokio::spawn(async move { broker.publish_raw("celery", 0, raw).await });
    };
    bury(broker.as_ref(), &put, message(1, 0).1, "r").await;
    put(message(2, 0).1);
    let held = receive(broker.as_ref()).await;
    let letter = letters(broker.as_ref()).await.remove(0);
    use celeriac::DeadLetters as _;
    assert_eq!(
        broker.requeue(&letter, false).await,
        Err(RequeueError::Broker(BrokerError::Full { capacity: 1 }))
    );
    assert_eq!(broker.dead_letter_count().await.unwrap(), 1);
    broker.ack(&held, None).await.unwrap();
    assert_eq!(broker.requeue(&letter, false).await, Ok(true));
}
