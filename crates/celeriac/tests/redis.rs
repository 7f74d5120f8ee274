//! The Redis broker on a real server: the broker suite, outages of the server, keys, leases and URLs.

#![expect(clippy::unwrap_used, reason = "tests and their helpers may panic")]

#[path = "support/canvas.rs"]
mod canvas;
#[path = "support/redis.rs"]
mod server;
#[path = "support/suite/mod.rs"]
mod suite;
mod support;

use std::{sync::Arc, time::Duration};

use celeriac::{
    Broker, BrokerError, Bus, Client, Exchange, Message, RedisBroker, RedisConfig, Signature, Status,
    TaskContext, TaskError, TaskOptions, WaitError, Worker,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    server::Server,
    suite::Harness,
    support::{Journal, PATIENCE, Running, eventually, final_result, worker},
};

struct Redis(Server);

impl Redis {
    fn connect(&self) -> Arc<dyn Broker> {
        let config = self.0.config().lease(Self::LEASE);
        Arc::new(RedisBroker::new(config).unwrap())
    }
}

impl Harness for Redis {
    const LEASE: Duration = Duration::from_secs(1);

    fn broker(&self) -> Arc<dyn Broker> {
        self.connect()
    }

    fn other_broker(&self) -> Arc<dyn Broker> {
        self.connect()
    }

    fn push_raw(&self, raw: &[u8]) {
        redis::cmd("LPUSH")
            .arg("celery")
            .arg(raw)
            .exec(&mut self.0.connection())
            .unwrap();
    }
}

broker_suite!(Redis(Server::start()));
canvas_suite!(Redis(Server::start()));

/// Starts a worker with the tasks of the tests, and returns a client.
fn start(server: &Server, journal: &Journal, gate: &CancellationToken) -> (Client, Running) {
    let broker = Arc::new(server.broker());
    let running = Running::start(worker(broker.clone(), journal, gate).build(), PATIENCE);
    (Client::new(broker), running)
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_values_match_those_of_celery() {
    let server = Server::start();
    let client = Client::new(Arc::new(server.broker()));
    let id = client
        .send(Signature::new("add").arg(1).arg(2).priority(4))
        .await
        .unwrap();
    let connection = &mut server.connection();
    let raw: Vec<Vec<u8>> = redis::cmd("LRANGE")
        .arg("celery\x06\x163")
        .arg(0)
        .arg(-1)
        .query(connection)
        .unwrap();
    assert_eq!(Message::decode(&raw[0]).unwrap().headers.id, id);
    let bindings: Vec<String> = redis::cmd("SMEMBERS")
        .arg("_kombu.binding.celery")
        .query(connection)
        .unwrap();
    assert_eq!(bindings, ["celery\x06\x16\x06\x16celery"]);
    let broker = server.broker();
    let held = broker.receive(&["celery".to_owned()], 10).await.unwrap();
    let (tag, reservation): (String, String) = redis::cmd("HGETALL")
        .arg("unacked")
        .query::<Vec<(String, String)>>(connection)
        .unwrap()
        .remove(0);
    assert_eq!(tag, held[0].tag.as_str());
    assert_eq!(
        reservation,
        format!("[{}, \"\", \"celery\"]", String::from_utf8_lossy(&raw[0]))
    );
    let meta = celeriac::ResultMeta::decode(
        format!(r#"{{"status": "SUCCESS", "result": 3, "task_id": "{id}"}}"#).as_bytes(),
    )
    .unwrap();
    broker.ack(&held[0], Some(&meta)).await.unwrap();
    assert_eq!(client.result(&id).await.unwrap().unwrap().result, json!(3));
    let ttl: i64 = redis::cmd("TTL")
        .arg(format!("celery-task-meta-{id}"))
        .query(connection)
        .unwrap();
    assert!((86_390..=86_400).contains(&ttl), "{ttl}");
    let left: (i64, i64) = redis::pipe()
        .cmd("HLEN")
        .arg("unacked")
        .cmd("ZCARD")
        .arg("unacked_index")
        .query(connection)
        .unwrap();
    assert_eq!(left, (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_worker_survives_a_restart_of_redis() {
    let mut server = Server::start();
    let (client, running) = start(&server, &Journal::default(), &CancellationToken::new());
    let id = client.send(Signature::new("add").arg(1).arg(1)).await.unwrap();
    final_result(&client, &id).await;
    server.crash();
    eventually("the outage is noticed", async || client.result(&id).await.err()).await;
    let error = client
        .send(Signature::new("add").arg(1).arg(1))
        .await
        .unwrap_err();
    assert!(matches!(error.source, BrokerError::Unavailable { .. }), "{error}");
    server.start_again();
    let id = eventually("sending works again", async || {
        client.send(Signature::new("add").arg(2).arg(2)).await.ok()
    })
    .await;
    assert_eq!(final_result(&client, &id).await.result, json!(4));
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_finishes_during_an_outage_is_settled_afterwards() {
    let mut server = Server::start();
    let (journal, gate) = (Journal::default(), CancellationToken::new());
    let (client, running) = start(&server, &journal, &gate);
    let id = client.send(Signature::new("gated").arg("x")).await.unwrap();
    journal.until(1).await;
    server.crash();
    gate.cancel();
    eventually("the outage is noticed", async || client.result(&id).await.err()).await;
    server.start_again();
    assert_eq!(final_result(&client, &id).await.status, Status::Success);
    let next = client.send(Signature::new("note").arg("y")).await.unwrap();
    assert_eq!(final_result(&client, &next).await.status, Status::Success);
    assert_eq!(journal.lines(), ["x", "y"], "the task ran only once");
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_are_loaded_again_after_a_script_flush() {
    let server = Server::start();
    let (client, running) = start(&server, &Journal::default(), &CancellationToken::new());
    let id = client.send(Signature::new("flaky").arg(1)).await.unwrap();
    final_result(&client, &id).await;
    redis::cmd("SCRIPT")
        .arg("FLUSH")
        .exec(&mut server.connection())
        .unwrap();
    let id = client.send(Signature::new("flaky").arg(1)).await.unwrap();
    assert_eq!(final_result(&client, &id).await.status, Status::Success);
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_workers_message_is_restored_after_the_visibility_timeout() {
    let server = Server::start();
    let message = include_str!("vectors/message.json").trim();
    // Reserved by a Python worker long ago, under the message's own tag.
    let connection = &mut server.connection();
    let tag = "bfdd5872-fa2e-40ae-9f05-f9e43e9553b6";
    redis::pipe()
        .cmd("ZADD")
        .arg("unacked_index")
        .arg(1_000_000_000.5)
        .arg(tag)
        .cmd("HSET")
        .arg("unacked")
        .arg(tag)
        .arg(format!("[{message}, \"\", \"celery\"]"))
        .exec(connection)
        .unwrap();
    let broker = server.broker();
    assert_eq!(broker.restore_expired().await.unwrap(), 1);
    let back: String = redis::cmd("LINDEX")
        .arg("celery")
        .arg(-1)
        .query(connection)
        .unwrap();
    assert!(Message::decode(back.as_bytes()).unwrap().redelivered());
    let marks = [", \"redelivered\": true", ", \"celeriac_deliveries\": 1"];
    let unmarked = marks.iter().fold(back, |text, mark| text.replace(mark, ""));
    assert_eq!(unmarked, message);
    assert_eq!(broker.restore_expired().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_workers_died_too_often_is_buried_and_its_task_fails() {
    let server = Server::start();
    let config = server
        .config()
        .visibility_timeout(Duration::from_millis(20))
        .delivery_limit(3);
    let broker: Arc<dyn Broker> = Arc::new(RedisBroker::new(config).unwrap());
    let client = Client::new(broker.clone());
    let id = client.send(Signature::new("add").arg(1).arg(1)).await.unwrap();
    let queues = ["celery".to_owned()];
    for delivery in 1..=3 {
        // Received and never renewed.
        assert_eq!(broker.receive(&queues, 10).await.unwrap().len(), 1, "{delivery}");
        eventually("the delivery expires", async || {
            broker.restore_expired().await.unwrap();
            (broker.depth("celery").await.unwrap().unacked == 0).then_some(())
        })
        .await;
    }
    assert_eq!(broker.depth("celery").await.unwrap().waiting, 0);
    let letters = broker.dead_letters(0, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].reason, "3 workers died while processing it");
    assert_eq!(letters[0].queue, "celery");
    assert_eq!(letters[0].task_id.as_deref(), Some(&*id));
    let meta = final_result(&client, &id).await;
    assert_eq!(meta.status, Status::Failure);
    assert_eq!(meta.result["exc_type"], "WorkerLostError");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_longer_than_a_lease_does_not_expire_live_workers() {
    let mut server = Server::start();
    let lease = Duration::from_secs(1);
    let broker = || RedisBroker::new(server.config().lease(lease)).unwrap();
    let (live, dead, observer) = (broker(), broker(), broker());
    let client = Client::new(Arc::new(broker()));
    for _ in 0..2 {
        client.send(Signature::new("add").arg(1).arg(1)).await.unwrap();
    }
    let queues = ["celery".to_owned()];
    let kept = live.receive(&queues, 1).await.unwrap().remove(0);
    dead.receive(&queues, 1).await.unwrap();
    observer.ping().await.unwrap();
    server.crash();
    tokio::time::sleep(lease * 2).await;
    server.start_again();
    let restored = eventually("the observer reconnects first", async || {
        observer.restore_expired().await.ok()
    })
    .await;
    assert_eq!(restored, 0, "all leases have expired before any could be renewed");
    eventually("the live worker renews", async || {
        live.renew(std::slice::from_ref(&kept.tag)).await.ok()
    })
    .await;
    eventually("the dead worker's message is restored", async || {
        live.renew(std::slice::from_ref(&kept.tag)).await.unwrap();
        (observer.restore_expired().await.unwrap() == 1).then_some(())
    })
    .await;
    let depth = observer.depth("celery").await.unwrap();
    assert_eq!(
        (depth.waiting, depth.unacked),
        (1, 1),
        "the live worker keeps its message"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_wait_for_their_rate_limit_count_as_prefetched() {
    let server = Server::start();
    let broker: Arc<dyn Broker> = Arc::new(server.broker());
    let client = Client::new(broker.clone());
    let limited = TaskOptions::new().rate_limit("1/h".parse::<celeriac::RateLimit>().unwrap());
    let start = |options: TaskOptions, journal: &Journal| {
        let journal = journal.clone();
        let run = move |_: TaskContext, (line,): (String,)| {
            let journal = journal.clone();
            async move {
                journal.write(line);
                Ok::<_, TaskError>(())
            }
        };
        let worker = Worker::builder(broker.clone()).task("note", options, run);
        Running::start(worker.concurrency(2).prefetch_multiplier(2).build(), PATIENCE)
    };
    let (slow, fast) = (Journal::default(), Journal::default());
    let one = start(limited, &slow);
    for number in 0..20 {
        let note = Signature::new("note").arg(format!("{number}"));
        client.send(note).await.unwrap();
    }
    slow.until(1).await;
    eventually("the limited worker holds as many as it may", async || {
        (broker.depth("celery").await.unwrap().unacked == 4).then_some(())
    })
    .await;
    let other = start(TaskOptions::new(), &fast);
    assert_eq!(
        fast.until(15).await.len(),
        15,
        "the others are left to other workers"
    );
    one.stop().await.unwrap();
    fast.until(19).await;
    other.stop().await.unwrap();
    assert_eq!(slow.lines().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_workers_message_is_found_among_many_others() {
    let server = Server::start();
    let connection = &mut server.connection();
    // Leases from a day of restarts, tasks that Python workers hold until they are due, and postponed tasks.
    let mut others = redis::pipe();
    let (now, _): (u64, u64) = redis::cmd("TIME").query(connection).unwrap();
    for other in 0..12_000 {
        others
            .zadd("celeriac.leases", format!("ended-{other}"), now - 3000)
            .zadd("unacked_index", format!("python-{other}"), now - 3000)
            .zadd(
                "unacked_index",
                format!("celeriac.later.{other}"),
                (now - now % 10) as f64 + 0.5,
            );
    }
    others.exec(connection).unwrap();
    let broker = || RedisBroker::new(server.config().lease(Duration::from_secs(1))).unwrap();
    let (dead, observer) = (broker(), broker());
    let client = Client::new(Arc::new(broker()));
    client.send(Signature::new("add").arg(1).arg(1)).await.unwrap();
    dead.receive(&["celery".to_owned()], 1).await.unwrap();
    eventually("the dead worker's message is restored", async || {
        (observer.restore_expired().await.unwrap() == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_fan_out_exchange_do_not_outlive_their_worker_for_long() {
    let server = Server::start();
    let connection = &mut server.connection();
    let broker = || RedisBroker::new(server.config().lease(Duration::from_secs(1))).unwrap();
    let (dead, observer) = (broker(), broker());
    let client = Client::new(Arc::new(broker()));
    let queue = "bcast.celery@dead";
    let mut ttl = |name: &str| -> i64 { redis::cmd("TTL").arg(name).query(connection).unwrap() };
    let mut expires = |name: &str| match ttl(name) {
        -1 => false,
        seconds => {
            assert!(
                (86_000..=86_400).contains(&seconds),
                "{name} has {seconds} seconds left"
            );
            true
        }
    };
    let broadcast = async |countdown| {
        let signature = Signature::new("add").id("broadcast").queue("elsewhere");
        client.send(signature.countdown(countdown)).await.unwrap();
        let raw = observer.heads("elsewhere").await.unwrap().remove(0);
        observer.purge("elsewhere").await.unwrap();
        dead.enqueue_broadcast(queue, &raw).await.unwrap();
        dead.receive(&[queue.to_owned()], 1).await.unwrap().remove(0)
    };
    broadcast(Duration::ZERO).await;
    client.send(Signature::new("add")).await.unwrap();
    assert_eq!(dead.receive(&["celery".to_owned()], 1).await.unwrap().len(), 1);
    let mut restored = 0;
    eventually("both messages are restored", async || {
        restored += observer.restore_expired().await.unwrap();
        (restored == 2).then_some(())
    })
    .await;
    assert!(expires(queue) && !expires("celery"));
    observer.purge(queue).await.unwrap();
    let held = broadcast(Duration::ZERO).await;
    assert_eq!(dead.restore_batch(&[held]).await.unwrap(), 1);
    assert!(expires(queue));
    observer.purge(queue).await.unwrap();
    let later = broadcast(Duration::from_secs(60)).await;
    let message = later.message().unwrap();
    assert_eq!(dead.postpone(&[(&later, &message)]).await.unwrap(), [true]);
    observer.recall(&["broadcast".to_owned()]).await.unwrap();
    assert!(expires(queue));

    // A retry adds its message to the queue of a worker that is alive.
    observer.purge(queue).await.unwrap();
    client.send(Signature::new("add").queue(queue)).await.unwrap();
    assert!(!expires(queue));
    dead.bind_queue(queue, &Exchange::fanout("bcast"), "")
        .await
        .unwrap();
    assert!(expires(queue));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_holder_of_a_delivery_can_settle_it() {
    let server = Server::start();
    let (slow, quick) = (server.broker(), server.broker());
    let client = Client::new(Arc::new(server.broker()));
    client.send(Signature::new("add").arg(1).arg(1)).await.unwrap();
    let queues = ["celery".to_owned()];
    let lost = slow.receive(&queues, 1).await.unwrap().remove(0);
    slow.restore(&lost).await.unwrap();
    let held = quick.receive(&queues, 1).await.unwrap().remove(0);
    // The slow worker does not notice that it has lost the message.
    slow.ack(&lost, None).await.unwrap();
    slow.replace(&lost, lost.message().unwrap(), None).await.unwrap();
    slow.restore(&lost).await.unwrap();
    let depth = quick.depth("celery").await.unwrap();
    assert_eq!(
        (depth.waiting, depth.unacked),
        (0, 1),
        "nothing was removed or duplicated"
    );
    quick.ack(&held, None).await.unwrap();
    assert_eq!(quick.depth("celery").await.unwrap().unacked, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_receive_loses_no_messages() {
    let server = Server::start();
    let broker = Arc::new(server.broker());
    let client = Client::new(broker.clone());
    let queues = ["celery".to_owned()];
    broker.receive(&queues, 1).await.unwrap();
    // The server responds late, and the receive is dropped while its script runs.
    let connection = &mut server.connection();
    for _ in 0..5 {
        client.send(Signature::new("add").arg(1).arg(1)).await.unwrap();
    }
    redis::cmd("CLIENT")
        .arg("PAUSE")
        .arg(300)
        .arg("ALL")
        .exec(connection)
        .unwrap();
    let receive = tokio::time::timeout(Duration::from_millis(50), broker.receive(&queues, 5)).await;
    assert!(receive.is_err(), "the server must have been paused");
    let mut tags = std::collections::HashSet::new();
    eventually("all five are received", async || {
        let deliveries = broker.receive(&queues, 5).await.unwrap();
        tags.extend(deliveries.into_iter().map(|delivery| delivery.tag));
        (tags.len() == 5).then_some(())
    })
    .await;
    assert_eq!(broker.depth("celery").await.unwrap().unacked, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_worker_starts_a_task_immediately() {
    let server = Server::start();
    let (client, running) = start(&server, &Journal::default(), &CancellationToken::new());
    let mut delays = Vec::new();
    for _ in 0..21 {
        let begin = std::time::Instant::now();
        let id = client.send(Signature::new("add").arg(1).arg(1)).await.unwrap();
        final_result(&client, &id).await;
        delays.push(begin.elapsed());
    }
    delays.sort();
    assert!(
        delays[10] < Duration::from_millis(40),
        "{delays:?}: not faster than polling"
    );
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_and_database_numbers_are_used() {
    let server = Server::start_with(Some("s3cret"));
    let url = format!("redis://:s3cret@127.0.0.1:{}/3", server.port);
    let broker = Arc::new(RedisBroker::new(RedisConfig::new(url)).unwrap());
    broker.ping().await.unwrap();
    let mut subscriber = server.connection();
    let (subscribed, ready) = tokio::sync::oneshot::channel();
    let news = tokio::task::spawn_blocking(move || {
        let mut subscription = subscriber.as_pubsub();
        subscription.psubscribe("/3.celeryev/worker.*").unwrap();
        subscribed.send(()).unwrap();
        subscription.get_message().unwrap().get_channel_name().to_owned()
    });
    ready.await.unwrap();
    let running = Running::start(
        worker(broker.clone(), &Journal::default(), &CancellationToken::new()).build(),
        PATIENCE,
    );
    assert_eq!(
        tokio::time::timeout(PATIENCE, news).await.unwrap().unwrap(),
        "/3.celeryev/worker.online"
    );
    running.stop().await.unwrap();
    let wrong = RedisBroker::new(RedisConfig::new(format!(
        "redis://:wrong@127.0.0.1:{}/0",
        server.port
    )))
    .unwrap();
    let error = wrong.ping().await.unwrap_err().to_string();
    assert!(!error.contains("wrong@") && !error.contains("s3cret"), "{error}");
    assert!(!format!("{broker:?}").contains("s3cret"));
    assert!(RedisBroker::new(RedisConfig::new("postgres://localhost")).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tls_connection_to_a_server_without_tls_fails() {
    let server = Server::start();
    let broker = RedisBroker::new(RedisConfig::new(format!("rediss://127.0.0.1:{}/0", server.port))).unwrap();
    assert!(matches!(
        broker.ping().await,
        Err(BrokerError::Unavailable { .. })
    ));
}

fn subscribers(server: &Server) -> usize {
    let clients: String = redis::cmd("CLIENT")
        .arg("LIST")
        .arg("TYPE")
        .arg("pubsub")
        .query(&mut server.connection())
        .unwrap();
    clients.lines().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn waiters_share_a_connection_and_survive_an_outage() {
    let mut server = Server::start();
    let client = Client::new(Arc::new(server.broker()));
    let waiting: Vec<_> = (0..50)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move { client.wait(&format!("t{}", number / 2), PATIENCE).await })
        })
        .collect();
    let subscribed = async |server: &Server| {
        eventually("all channels are subscribed, once each", async || {
            let counts: Vec<(String, usize)> = redis::cmd("PUBSUB")
                .arg("NUMSUB")
                .arg(
                    (0..25)
                        .map(|id| format!("celery-task-meta-t{id}"))
                        .collect::<Vec<_>>(),
                )
                .query(&mut server.connection())
                .unwrap();
            counts.iter().all(|(_, count)| *count == 1).then_some(())
        })
        .await;
    };
    subscribed(&server).await;
    assert_eq!(subscribers(&server), 1);
    server.crash();
    server.start_again();
    // Results are stored as by a Python worker, half of them before the client has subscribed again.
    let store = |server: &Server, id: usize| {
        let text = format!(r#"{{"status": "SUCCESS", "result": {id}, "task_id": "t{id}"}}"#);
        redis::pipe()
            .cmd("SETEX")
            .arg(format!("celery-task-meta-t{id}"))
            .arg(60)
            .arg(&text)
            .cmd("PUBLISH")
            .arg(format!("celery-task-meta-t{id}"))
            .arg(&text)
            .exec(&mut server.connection())
            .unwrap();
    };
    (0..12).for_each(|id| store(&server, id));
    eventually("subscribed again", async || {
        (subscribers(&server) == 1).then_some(())
    })
    .await;
    (12..25).for_each(|id| store(&server, id));
    for (number, waiting) in waiting.into_iter().enumerate() {
        assert_eq!(waiting.await.unwrap(), Ok(json!(number / 2)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_wait_unsubscribes_its_channel() {
    let server = Server::start();
    let client = Client::new(Arc::new(server.broker()));
    // Long enough to connect and subscribe on a slow machine.
    let waited = client.wait("never", Duration::from_secs(2)).await;
    assert_eq!(waited, Err(WaitError::TimedOut));
    let channels = async || -> Vec<String> {
        redis::cmd("PUBSUB")
            .arg("CHANNELS")
            .query(&mut server.connection())
            .unwrap()
    };
    eventually("no channel is subscribed", async || {
        channels().await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn follow_up_tasks_of_a_task_that_finishes_during_an_outage_run_once() {
    let mut server = Server::start();
    let (journal, gate) = (Journal::default(), CancellationToken::new());
    let (client, running) = start(&server, &journal, &gate);
    let note = |line: &str| Signature::new("note").arg(line).immutable();
    let gated = || Signature::new("gated").arg("part");
    let chain = client.apply(gated().then(note("next"))).await.unwrap();
    let chord = client
        .apply(celeriac::chord([gated(), gated()], note("body")))
        .await
        .unwrap();
    journal.until(3).await;
    server.crash();
    gate.cancel();
    eventually("the outage is noticed", async || client.result("t").await.err()).await;
    server.start_again();
    assert_eq!(chain.wait(PATIENCE).await, Ok(json!(null)));
    assert_eq!(chord.wait(PATIENCE).await, Ok(json!(null)));
    let mut lines = journal.lines();
    lines.sort();
    assert_eq!(lines, ["body", "next", "part", "part", "part"]);
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_the_url_reaches_the_server() {
    let server = Server::start_with(Some("s3cret"));
    redis::cmd("ACL")
        .arg(&["SETUSER", "app", "on", ">p@ss", "~*", "&*", "+@all"])
        .exec(&mut server.connection())
        .unwrap();
    let (port, socket) = (server.port, server.folder.join("redis.sock"));
    let socket = socket.to_str().unwrap();
    for (database, url) in [
        format!("redis://:s3cret@127.0.0.1:{port}/0"),
        format!("redis://app:p%40ss@localhost:{port}/1"),
        format!("unix://{socket}?db=2&pass=s3cret"),
        format!("unix://{socket}?db=3&user=app&pass=p%40ss"),
        format!("redis+socket://{socket}?virtual_host=4&pass=s3cret"),
    ]
    .into_iter()
    .enumerate()
    {
        let broker = Arc::new(RedisBroker::new(RedisConfig::new(url.as_str())).unwrap());
        let client = Client::new(broker.clone());
        let (journal, gate) = (Journal::default(), CancellationToken::new());
        let running = Running::start(worker(broker, &journal, &gate).build(), PATIENCE);
        let id = client.send(Signature::new("add").arg(1).arg(2)).await.unwrap();
        assert_eq!(final_result(&client, &id).await.status, Status::Success, "{url}");
        running.stop().await.unwrap();
        let mut connection = server.connection();
        redis::cmd("SELECT").arg(database).exec(&mut connection).unwrap();
        let kept: bool = redis::cmd("EXISTS")
            .arg(format!("celery-task-meta-{id}"))
            .query(&mut connection)
            .unwrap();
        assert!(kept, "{url} used another database");
    }
}
