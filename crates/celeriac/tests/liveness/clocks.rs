//! Changes to the server's clock, seen as leases whose times are far from the server's time.

use std::time::Duration;

use celeriac::{Broker, Client, ConfigError, RedisBroker, RedisConfig, Signature, Status};
use redis::cmd;
use tokio_util::sync::CancellationToken;

use crate::{
    LEASE, broker, drained,
    server::Server,
    support::{Journal, PATIENCE, Running, eventually, final_result, worker},
};

/// Adds `seconds` to the time of every lease and reservation, as if the server's clock had been set back.
fn shift(server: &Server, seconds: f64) {
    let mut connection = server.connection();
    for set in ["celeriac.leases", "unacked_index"] {
        let members: Vec<String> = cmd("ZRANGE").arg((set, 0, -1)).query(&mut connection).unwrap();
        for member in members {
            cmd("ZINCRBY")
                .arg((set, seconds, member))
                .exec(&mut connection)
                .unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_clock_does_not_end_the_leases_of_live_workers() {
    for seconds in [-60.0, 60.0] {
        let server = Server::start();
        let (journal, gate) = (Journal::default(), CancellationToken::new());
        let holder = broker(server.url());
        let client = Client::new(holder.clone());
        let live = Running::start(worker(holder.clone(), &journal, &gate).build(), PATIENCE);
        let mut ids = Vec::new();
        for number in 0..5 {
            let gated = Signature::new("gated").arg(format!("{number}"));
            ids.push(client.send(gated).await.unwrap());
        }
        journal.until(5).await;
        let judge = broker(server.url());
        // The leases look expired at almost every observation, for several leases.
        let begin = std::time::Instant::now();
        while begin.elapsed() < LEASE * 3 {
            shift(&server, seconds);
            assert_eq!(judge.restore_expired().await.unwrap(), 0);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        gate.cancel();
        for id in &ids {
            assert_eq!(final_result(&client, id).await.status, Status::Success);
        }
        drained(&holder).await;
        live.stop().await.unwrap();
        assert_eq!(journal.lines().len(), 5, "no task ran twice");
    }
}

#[tokio::test]
async fn a_dead_workers_lease_ends_whatever_its_time() {
    for seconds in [-86_000.0, 86_000.0] {
        let server = Server::start();
        let (dead, judge) = (broker(server.url()), broker(server.url()));
        let client = Client::new(judge.clone());
        client.send(Signature::new("add").arg(1).arg(1)).await.unwrap();
        dead.receive(&["celery".to_owned()], 1).await.unwrap();
        shift(&server, seconds);
        let begin = std::time::Instant::now();
        eventually("the message is restored", async || {
            (judge.restore_expired().await.unwrap() == 1).then_some(())
        })
        .await;
        assert!(begin.elapsed() >= LEASE, "{:?}", begin.elapsed());
        assert!(begin.elapsed() < LEASE * 10, "{:?}", begin.elapsed());
    }
}

/// Earlier releases renew a lease of 20 seconds every 5 seconds, and do not state its length.
#[tokio::test]
async fn a_worker_of_an_earlier_release_is_not_judged_by_a_shorter_lease() {
    let server = Server::start();
    let judge = broker(server.url());
    let connection = &mut server.connection();
    let tag = "bfdd5872-fa2e-40ae-9f05-f9e43e9553b6/000000000000";
    let (now, _): (f64, f64) = cmd("TIME").query(connection).unwrap();
    let message = include_str!("../vectors/message.json").trim();
    redis::pipe()
        .zadd("celeriac.leases", tag.split('/').next().unwrap(), now - 1.0)
        .zadd("unacked_index", tag, now - 5.0)
        .hset("unacked", tag, format!("[{message}, \"\", \"celery\"]"))
        .exec(connection)
        .unwrap();
    let begin = std::time::Instant::now();
    // Where the judge itself is held up, it begins to watch the lease anew.
    while judge.restore_expired().await.unwrap() == 0 {
        assert!(begin.elapsed() < 4 * PATIENCE, "the message is not restored");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(
        begin.elapsed() >= Duration::from_secs(20),
        "{:?}",
        begin.elapsed()
    );
}

#[test]
fn a_lease_must_be_renewed_several_times_before_it_ends() {
    let config = |lease: u64, interval: u64| {
        RedisConfig::new("redis://localhost:1/0")
            .lease(Duration::from_millis(lease))
            .renewal_interval(Duration::from_millis(interval))
    };
    for (lease, interval) in [(50, 10), (3000, 1001)] {
        assert_eq!(
            RedisBroker::new(config(lease, interval)).unwrap_err(),
            ConfigError::Lease
        );
    }
    let broker = RedisBroker::new(config(3000, 1000)).unwrap();
    assert_eq!(broker.renew_interval(), Duration::from_secs(1));
    let default = RedisBroker::new(RedisConfig::new("redis://localhost:1/0")).unwrap();
    assert_eq!(
        (default.lease(), default.renew_interval()),
        (Duration::from_secs(6), Duration::from_secs(1))
    );
}
