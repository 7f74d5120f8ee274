//! Limits of attempts as they are without being configured, on processes that share a Redis.

use std::net::SocketAddr;

use serde_json::json;

use super::installation::Installation;
use crate::support::{eventually, raw};

async fn login(address: SocketAddr, email: &str) -> u16 {
    let body = json!({"email": email, "password": "a wrong one"});
    raw::request(address, "POST", "/api/login", None, Some(&body))
        .await
        .status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_count_together_and_say_once_when_they_cannot() {
    const ALONE: &str = "rate limits hold for this process alone until Redis is back";
    let installation = Installation::new().await;
    let (one, first) = installation.serve().await;
    let (_other, second) = installation.serve().await;
    for address in [first, second] {
        for _ in 0..5 {
            assert_eq!(login(address, "nobody@example.com").await, 401);
        }
    }
    for address in [first, second] {
        assert_eq!(login(address, "nobody@example.com").await, 429);
    }

    installation.redis.stop();
    for _ in 0..10 {
        assert_eq!(login(first, "nobody@example.com").await, 401);
    }
    assert_eq!(login(first, "nobody@example.com").await, 429);
    eventually("the line in the log", async || {
        one.output().contains(ALONE).then_some(())
    })
    .await;
    assert_eq!(one.output().matches(ALONE).count(), 1, "{}", one.output());
    assert!(!one.output().contains("nobody@example.com"), "{}", one.output());
}
