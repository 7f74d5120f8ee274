//! Lua scripts of the application on the broker's server.

#![expect(clippy::unwrap_used, reason = "tests and their helpers may panic")]

#[expect(dead_code, reason = "these tests use only parts of the module")]
#[path = "support/redis.rs"]
mod server;

use std::time::{Duration, Instant};

use celeriac::{BrokerError, RedisBroker, RedisConfig};

use crate::server::Server;

const TIMEOUT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_script_receives_keys_and_arguments_and_returns_a_number() {
    let server = Server::start();
    let broker = RedisBroker::new(RedisConfig::new(server.url())).unwrap();
    let script = broker.script("return redis.call('INCRBY', KEYS[1], ARGV[1]) + ARGV[2]", TIMEOUT);
    let keys = ["mine:counter".to_owned()];
    assert_eq!(script.run(&keys, &[5, 100]).await.unwrap(), 105);
    assert_eq!(script.run(&keys, &[5, 100]).await.unwrap(), 110);
}

#[tokio::test]
async fn a_failing_script_is_an_error_and_others_still_run() {
    let server = Server::start();
    let broker = RedisBroker::new(RedisConfig::new(server.url())).unwrap();
    let faulty = broker.script("return redis.call('LPUSH', 'text')", TIMEOUT);
    let failed = faulty.run(&[], &[]).await;
    assert!(matches!(failed, Err(BrokerError::Refused { .. })), "{failed:?}");
    assert_eq!(broker.script("return 7", TIMEOUT).run(&[], &[]).await.unwrap(), 7);
}

#[tokio::test]
async fn scripts_fail_quickly_during_an_outage_and_work_again_after_it() {
    let mut server = Server::start();
    let broker = RedisBroker::new(RedisConfig::new(server.url())).unwrap();
    let script = broker.script("return 7", TIMEOUT);
    assert_eq!(script.run(&[], &[]).await.unwrap(), 7);
    server.crash();
    for _ in 0..5 {
        let start = Instant::now();
        let failed = script.run(&[], &[]).await;
        assert!(
            matches!(failed, Err(BrokerError::Unavailable { .. })),
            "{failed:?}"
        );
        assert!(start.elapsed() < TIMEOUT * 4, "{:?}", start.elapsed());
    }
    server.start_again();
    let restart = Instant::now();
    while script.run(&[], &[]).await.ok() != Some(7) {
        assert!(
            restart.elapsed() < Duration::from_secs(20),
            "scripts do not work again"
        );
        tokio::task::yield_now().await;
    }
}

/// The server accepts connections and never responds.
#[tokio::test]
async fn scripts_fail_quickly_when_the_server_does_not_respond() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}/0", silent.local_addr().unwrap());
    let script = RedisBroker::new(RedisConfig::new(url))
        .unwrap()
        .script("return 7", TIMEOUT);
    for _ in 0..3 {
        let start = Instant::now();
        let failed = script.run(&[], &[]).await;
        assert!(
            matches!(failed, Err(BrokerError::Unavailable { .. })),
            "{failed:?}"
        );
        assert!(start.elapsed() < TIMEOUT * 4, "{:?}", start.elapsed());
    }
}
