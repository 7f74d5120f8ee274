//! Scripts of an application's own on the broker's server.

#![expect(clippy::unwrap_used, reason = "a test may panic, and its helpers with it")]

#[expect(dead_code, reason = "these tests use little of it")]
#[path = "support/redis.rs"]
mod server;

use std::time::{Duration, Instant};

use celeriac::{BrokerError, RedisBroker, RedisConfig};

use crate::server::Server;

const PATIENCE: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_script_gets_its_keys_and_arguments_and_answers_with_a_number() {
    let server = Server::start();
    let broker = RedisBroker::new(RedisConfig::new(server.url())).unwrap();
    let script = broker.script(
        "return redis.call('INCRBY', KEYS[1], ARGV[1]) + ARGV[2]",
        PATIENCE,
    );
    let keys = ["mine:counter".to_owned()];
    assert_eq!(script.run(&keys, &[5, 100]).await.unwrap(), 105);
    assert_eq!(script.run(&keys, &[5, 100]).await.unwrap(), 110);
}

#[tokio::test]
async fn a_script_that_fails_is_refused_and_others_go_on() {
    let server = Server::start();
    let broker = RedisBroker::new(RedisConfig::new(server.url())).unwrap();
    let faulty = broker.script("return redis.call('LPUSH', 'text')", PATIENCE);
    let refused = faulty.run(&[], &[]).await;
    assert!(matches!(refused, Err(BrokerError::Refused { .. })), "{refused:?}");
    assert_eq!(
        broker.script("return 7", PATIENCE).run(&[], &[]).await.unwrap(),
        7
    );
}

#[tokio::test]
async fn nobody_waits_long_for_a_server_that_is_away_and_it_is_found_again() {
    let mut server = Server::start();
    let broker = RedisBroker::new(RedisConfig::new(server.url())).unwrap();
    let script = broker.script("return 7", PATIENCE);
    assert_eq!(script.run(&[], &[]).await.unwrap(), 7);
    server.crash();
    for _ in 0..5 {
        let asked = Instant::now();
        let away = script.run(&[], &[]).await;
        assert!(matches!(away, Err(BrokerError::Unavailable { .. })), "{away:?}");
        assert!(asked.elapsed() < PATIENCE * 4, "{:?}", asked.elapsed());
    }
    server.start_again();
    let back = Instant::now();
    while script.run(&[], &[]).await.ok() != Some(7) {
        assert!(back.elapsed() < Duration::from_secs(20), "is not found again");
        tokio::task::yield_now().await;
    }
}

/// A server that takes connections and says nothing.
#[tokio::test]
async fn nobody_waits_long_for_a_server_that_hangs() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}/0", silent.local_addr().unwrap());
    let script = RedisBroker::new(RedisConfig::new(url))
        .unwrap()
        .script("return 7", PATIENCE);
    for _ in 0..3 {
        let asked = Instant::now();
        let away = script.run(&[], &[]).await;
        assert!(matches!(away, Err(BrokerError::Unavailable { .. })), "{away:?}");
        assert!(asked.elapsed() < PATIENCE * 4, "{:?}", asked.elapsed());
    }
}
