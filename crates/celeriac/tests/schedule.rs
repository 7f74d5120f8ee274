//! Periodic tasks on both brokers: each tick is sent once, even if processes are killed or Redis fails.

#![expect(clippy::unwrap_used, reason = "tests and their helpers may panic")]

#[path = "support/redis.rs"]
mod server;

use std::{
    collections::HashSet,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use celeriac::{Broker, CatchUp, Entry, MemoryBroker, Message, Schedule, Scheduler, Signature};
use jiff::{SignedDuration, Timestamp};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::server::Server;

const PATIENCE: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(20);
const NAME: &str = "tick";

/// Runs a test on both brokers.
macro_rules! on_both {
    ($($behaviour:ident)*) => {
        mod on_memory {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $behaviour() {
                    super::$behaviour(std::sync::Arc::new(celeriac::MemoryBroker::new(10_000))).await;
                }
            )*
        }
        mod on_redis {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $behaviour() {
                    let server = crate::server::Server::start();
                    super::$behaviour(std::sync::Arc::new(server.broker())).await;
                }
            )*
        }
    };
}

on_both! {
    each_tick_is_sent_by_one_of_several_schedulers
    a_new_entry_starts_from_now
    missed_ticks_are_skipped
    missed_ticks_are_sent_as_one
    each_missed_tick_is_sent
    no_more_missed_ticks_are_sent_than_allowed
    a_recently_missed_tick_is_on_time
    an_invalid_or_far_future_last_tick_is_replaced_by_the_current_time
    an_entry_replaces_an_entry_with_the_same_name
}

/// Returns an entry whose tasks have their tick as argument.
fn entry(interval: Duration, catch_up: CatchUp) -> Entry {
    let signature = |tick: Timestamp| Signature::new("note").arg(tick.to_string());
    Entry::new(NAME, Schedule::every(interval).unwrap(), signature).catch_up(catch_up)
}

/// Returns an entry that sends every tick, however late.
fn complete() -> Entry {
    entry(INTERVAL, CatchUp::All { at_most: 10_000 })
}

struct Running {
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start(broker: Arc<dyn Broker>, entry: Entry) -> Self {
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(Scheduler::new(broker).entry(entry).run(shutdown.clone()));
        Self { shutdown, task }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .expect("the scheduler stops")
            .unwrap();
    }
}

/// Receives and acknowledges the next `count` messages of the queue.
async fn take(broker: &dyn Broker, count: usize) -> Vec<Message> {
    let deadline = Instant::now() + PATIENCE;
    let mut messages = Vec::new();
    while messages.len() < count {
        assert!(
            Instant::now() < deadline,
            "{} of {count} messages arrived",
            messages.len()
        );
        let Ok(deliveries) = broker
            .receive(&["celery".to_owned()], count - messages.len())
            .await
        else {
            continue;
        };
        for delivery in deliveries {
            messages.push(delivery.message().unwrap());
            while broker.ack(&delivery, None).await.is_err() {
                assert!(Instant::now() < deadline, "the broker is still unavailable");
                tokio::time::sleep(INTERVAL).await;
            }
        }
    }
    messages
}

/// Receives all messages left in the queue.
async fn rest(broker: &dyn Broker) -> Vec<Message> {
    let waiting = broker.depth("celery").await.unwrap().waiting;
    take(broker, usize::try_from(waiting).unwrap()).await
}

fn ticks(messages: &[Message]) -> Vec<Timestamp> {
    messages
        .iter()
        .map(|message| message.args[0].as_str().unwrap().parse().unwrap())
        .collect()
}

/// Checks that no tick is missing or duplicated.
fn assert_complete(messages: &[Message]) {
    let ticks = ticks(messages);
    for pair in ticks.windows(2) {
        assert_eq!(
            pair[1].duration_since(pair[0]),
            SignedDuration::try_from(INTERVAL).unwrap(),
            "{} follows {}",
            pair[1],
            pair[0]
        );
    }
    let ids: HashSet<&str> = messages
        .iter()
        .map(|message| message.headers.id.as_str())
        .collect();
    assert_eq!(ids.len(), messages.len());
    for (message, tick) in messages.iter().zip(ticks) {
        assert_eq!(message.headers.id, complete().task_id(tick));
    }
}

async fn now(broker: &dyn Broker) -> Timestamp {
    let now = broker.last_ticks(&[NAME.to_owned()]).await.unwrap().now;
    // With the precision of stored ticks.
    Timestamp::from_microsecond(now.as_microsecond()).unwrap()
}

async fn last(broker: &dyn Broker) -> Option<Vec<u8>> {
    broker
        .last_ticks(&[NAME.to_owned()])
        .await
        .unwrap()
        .ticks
        .remove(0)
}

fn text(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string()
}

/// Stores a last tick `seconds` ago, as if no scheduler had run since then.
async fn downtime(broker: &dyn Broker, seconds: i64) -> Timestamp {
    let last = now(broker).await - SignedDuration::from_secs(seconds);
    assert!(broker.advance(NAME, None, &text(last), None).await.unwrap());
    last
}

async fn until_last_is(broker: &dyn Broker, expected: Timestamp) {
    let deadline = Instant::now() + PATIENCE;
    while last(broker).await != Some(text(expected).into_bytes()) {
        assert!(Instant::now() < deadline, "the last tick is not {expected}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn each_tick_is_sent_by_one_of_several_schedulers(broker: Arc<dyn Broker>) {
    let running = [(); 3].map(|()| Running::start(broker.clone(), complete()));
    let mut messages = take(broker.as_ref(), 150).await;
    for scheduler in running {
        scheduler.stop().await;
    }
    messages.extend(rest(broker.as_ref()).await);
    assert_complete(&messages);
}

async fn a_new_entry_starts_from_now(broker: Arc<dyn Broker>) {
    let begin = now(broker.as_ref()).await;
    let running = Running::start(broker.clone(), complete());
    let first = ticks(&take(broker.as_ref(), 1).await)[0];
    assert!(first >= begin + INTERVAL, "{first} after {begin}");
    running.stop().await;
}

const HOUR: Duration = Duration::from_secs(3600);

async fn missed_ticks_are_skipped(broker: Arc<dyn Broker>) {
    let last = downtime(broker.as_ref(), 3 * 3600 + 600).await;
    let running = Running::start(broker.clone(), entry(HOUR, CatchUp::Skip));
    until_last_is(broker.as_ref(), last + 3 * HOUR).await;
    running.stop().await;
    assert_eq!(rest(broker.as_ref()).await, []);
}

async fn missed_ticks_are_sent_as_one(broker: Arc<dyn Broker>) {
    let last = downtime(broker.as_ref(), 3 * 3600 + 600).await;
    let running = Running::start(broker.clone(), entry(HOUR, CatchUp::Once));
    until_last_is(broker.as_ref(), last + 3 * HOUR).await;
    running.stop().await;
    assert_eq!(ticks(&rest(broker.as_ref()).await), [last + 3 * HOUR]);
}

async fn each_missed_tick_is_sent(broker: Arc<dyn Broker>) {
    let last = downtime(broker.as_ref(), 3 * 3600 + 600).await;
    let all = entry(HOUR, CatchUp::All { at_most: 10 });
    // Two schedulers that compete for the missed ticks.
    let running = [(); 2].map(|()| Running::start(broker.clone(), all.clone()));
    until_last_is(broker.as_ref(), last + 3 * HOUR).await;
    for scheduler in running {
        scheduler.stop().await;
    }
    assert_eq!(
        ticks(&rest(broker.as_ref()).await),
        [last + HOUR, last + 2 * HOUR, last + 3 * HOUR]
    );
}

async fn no_more_missed_ticks_are_sent_than_allowed(broker: Arc<dyn Broker>) {
    let last = downtime(broker.as_ref(), 9 * 3600 + 600).await;
    let running = Running::start(broker.clone(), entry(HOUR, CatchUp::All { at_most: 2 }));
    until_last_is(broker.as_ref(), last + 9 * HOUR).await;
    running.stop().await;
    assert_eq!(
        ticks(&rest(broker.as_ref()).await),
        [last + 8 * HOUR, last + 9 * HOUR]
    );
}

async fn a_recently_missed_tick_is_on_time(broker: Arc<dyn Broker>) {
    let last = downtime(broker.as_ref(), 2 * 3600 + 5).await;
    let running = Running::start(broker.clone(), entry(HOUR, CatchUp::Skip));
    until_last_is(broker.as_ref(), last + 2 * HOUR).await;
    running.stop().await;
    assert_eq!(ticks(&rest(broker.as_ref()).await), [last + 2 * HOUR]);
}

async fn an_invalid_or_far_future_last_tick_is_replaced_by_the_current_time(broker: Arc<dyn Broker>) {
    let mut before = None;
    for invalid in ["yesterday", "\u{fffd}", "2999-01-01T00:00:00.000000+00:00"] {
        assert!(
            broker
                .advance(NAME, before.as_deref(), invalid, None)
                .await
                .unwrap()
        );
        let begin = now(broker.as_ref()).await;
        let running = Running::start(broker.clone(), complete());
        let first = ticks(&take(broker.as_ref(), 1).await)[0];
        assert!(first >= begin + INTERVAL, "{invalid}: {first} after {begin}");
        running.stop().await;
        rest(broker.as_ref()).await;
        before = last(broker.as_ref()).await;
    }
}

async fn an_entry_replaces_an_entry_with_the_same_name(broker: Arc<dyn Broker>) {
    let wrong = Entry::new(NAME, Schedule::every(INTERVAL).unwrap(), |_| {
        Signature::new("wrong")
    });
    let shutdown = CancellationToken::new();
    let scheduler = Scheduler::new(broker.clone()).entry(wrong).entry(complete());
    let task = tokio::spawn(scheduler.run(shutdown.clone()));
    let messages = take(broker.as_ref(), 5).await;
    shutdown.cancel();
    task.await.unwrap();
    assert!(messages.iter().all(|message| message.headers.task == "note"));
    assert_complete(&messages);
}

#[tokio::test]
async fn a_scheduler_without_entries_waits_for_shutdown() {
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(Scheduler::new(Arc::new(MemoryBroker::new(1))).run(shutdown.clone()));
    shutdown.cancel();
    tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_broker_loses_no_tick() {
    let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(3));
    let running = Running::start(broker.clone(), complete());
    let deadline = Instant::now() + PATIENCE;
    while broker.depth("celery").await.unwrap().waiting < 3 {
        assert!(Instant::now() < deadline, "the broker is not full");
        tokio::time::sleep(INTERVAL).await;
    }
    let messages = take(broker.as_ref(), 20).await;
    running.stop().await;
    assert_complete(&messages);
}

#[tokio::test(flavor = "multi_thread")]
async fn ticks_continue_after_a_restart_of_redis() {
    let mut server = Server::start();
    let broker: Arc<dyn Broker> = Arc::new(server.broker());
    let running = [(); 2].map(|()| Running::start(Arc::new(server.broker()), complete()));
    let mut messages = take(broker.as_ref(), 20).await;
    server.crash();
    tokio::time::sleep(INTERVAL * 10).await;
    server.start_again();
    messages.extend(take(broker.as_ref(), 50).await);
    for scheduler in running {
        scheduler.stop().await;
    }
    messages.extend(rest(broker.as_ref()).await);
    assert_complete(&messages);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_rejects_messages_delays_no_other_entry_and_loses_no_tick() {
    let server = Server::start();
    let connection = &mut server.connection();
    redis::cmd("SET")
        .arg("broken")
        .arg("no list")
        .exec(connection)
        .unwrap();
    let broker: Arc<dyn Broker> = Arc::new(server.broker());
    let rejected = Entry::new("rejected", Schedule::every(INTERVAL).unwrap(), |tick| {
        Signature::new("note").queue("broken").arg(tick.to_string())
    });
    let rejected = rejected.catch_up(CatchUp::All { at_most: 10_000 });
    let shutdown = CancellationToken::new();
    let scheduler = Scheduler::new(broker.clone()).entry(rejected).entry(complete());
    let task = tokio::spawn(scheduler.run(shutdown.clone()));
    let start = now(broker.as_ref()).await;
    assert_complete(&take(broker.as_ref(), 20).await);
    redis::cmd("DEL").arg("broken").exec(connection).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while broker.depth("broken").await.unwrap().waiting < 20 {
        assert!(Instant::now() < deadline, "the ticks are not sent");
        tokio::time::sleep(INTERVAL).await;
    }
    shutdown.cancel();
    task.await.unwrap();
    let first = broker.receive(&["broken".to_owned()], 1).await.unwrap().remove(0);
    let first = ticks(&[first.message().unwrap()])[0];
    assert!(
        first.duration_since(start) < SignedDuration::from_millis(300),
        "{first} since {start}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queues_binding_is_declared() {
    let server = Server::start();
    let broker: Arc<dyn Broker> = Arc::new(server.broker());
    let running = Running::start(broker.clone(), complete());
    take(broker.as_ref(), 1).await;
    running.stop().await;
    let bindings: Vec<String> = redis::cmd("SMEMBERS")
        .arg("_kombu.binding.celery")
        .query(&mut server.connection())
        .unwrap();
    assert_eq!(bindings, ["celery\x06\x16\x06\x16celery"]);
}

/// Variable with the server's URL for the child processes of
/// [`a_killed_process_loses_and_duplicates_nothing`].
const CHILD: &str = "CELERIAC_TEST_SCHEDULER";

#[expect(
    clippy::disallowed_methods,
    reason = "the environment marks the child processes of this test"
)]
fn child_url() -> Option<String> {
    std::env::var(CHILD).ok()
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts its own executable as the processes to kill.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_and_duplicates_nothing() {
    if let Some(url) = child_url() {
        let broker = celeriac::RedisBroker::new(celeriac::RedisConfig::new(url)).unwrap();
        let scheduler = Scheduler::new(Arc::new(broker)).entry(complete());
        return scheduler.run(CancellationToken::new()).await;
    }
    let server = Server::start();
    let broker: Arc<dyn Broker> = Arc::new(server.broker());
    let start = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "a_killed_process_loses_and_duplicates_nothing"])
            .env(CHILD, server.url())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Killed(command.spawn().unwrap())
    };
    let mut messages = Vec::new();
    // One process at a time: ticks pass while no scheduler runs.
    for _ in 0..3 {
        let child = start();
        messages.extend(take(broker.as_ref(), 30).await);
        drop(child);
    }
    // Two processes; one continues alone.
    let children = [start(), start()];
    messages.extend(take(broker.as_ref(), 30).await);
    let [first, second] = children;
    drop(first);
    messages.extend(take(broker.as_ref(), 30).await);
    drop(second);
    messages.extend(rest(broker.as_ref()).await);
    assert_complete(&messages);
}
