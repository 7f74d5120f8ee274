//! What callers see while PostgreSQL or Redis is stopped, and afterwards.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use celeriac::{Broker, RedisBroker, RedisConfig};
use pressroom::{
    health::Queue,
    store::postgres::{PostgresConfig, PostgresStore, migrate},
};
use serde_json::json;

use super::{
    contract::{Recorded, recorded},
    on_sqlite,
};
use crate::support::{
    api::{self, RecordedTime},
    postgres_server::Server,
    raw,
    redis_server::RedisServer,
};

/// How soon a caller is told that the database is away.
const SOON: Duration = Duration::from_secs(2);

/// How long the service may take to notice that the database is back.
const PATIENCE: Duration = Duration::from_secs(20);

fn recorded_during(outage: &str) -> Vec<Recorded> {
    let requests: Vec<Recorded> = recorded()
        .filter(|request| request.name.starts_with(outage))
        .collect();
    assert!(!requests.is_empty());
    requests
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_postgresql_callers_are_told_soon_and_served_again_when_it_is_back() {
    let server = Server::start();
    let config = PostgresConfig::parse(&server.url()).unwrap();
    migrate(&config).await.unwrap();
    let store = Arc::new(PostgresStore::connect(&config).unwrap());
    let api = api::start(store).await;
    let token = raw::register(api.address, "alice@example.com").await;

    server.stop();
    for request in recorded_during("pgdown-") {
        let bytes = request.request.replace("{alice_token}", &token).into_bytes();
        let asked = Instant::now();
        let answer = raw::send(api.address, &bytes).await;
        assert!(
            asked.elapsed() < SOON,
            "{} took {:?}",
            request.name,
            asked.elapsed()
        );
        assert_eq!(answer.status, 503, "{}", request.name);
        assert_eq!(answer.header("retry-after"), Some("1"), "{}", request.name);
        assert_eq!(answer.json()["error"]["code"], "service_unavailable");
    }
    let ready = raw::request(api.address, "GET", "/api/health/ready", None, None).await;
    assert_eq!(ready.status, 503);
    let live = raw::request(api.address, "GET", "/api/health/live", None, None).await;
    assert_eq!(live.status, 200);
    let health = raw::request(api.address, "GET", "/api/health", None, None).await;
    assert_eq!(health.status, 503);
    assert_eq!(health.json()["components"]["database"], "unhealthy");

    server.resume();
    let back = Instant::now();
    while raw::request(api.address, "GET", "/api/user", Some(&token), None)
        .await
        .status
        != 200
    {
        assert!(back.elapsed() < PATIENCE, "not served again");
    }
    let created = json!({"title": "Back", "body": "x"});
    let created = raw::request(
        api.address,
        "POST",
        "/api/articles/",
        Some(&token),
        Some(&created),
    )
    .await;
    assert_eq!(created.status, 201);
    let health = raw::request(api.address, "GET", "/api/health", None, None).await;
    assert_eq!(health.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_everything_but_health_works() {
    let redis = RedisServer::start();
    let broker: Arc<dyn Broker> = Arc::new(RedisBroker::new(RedisConfig::new(redis.url())).unwrap());
    let kept = on_sqlite();
    let queue = Queue::through(broker);
    let api = api::start_with(kept.store.clone(), queue, Arc::new(RecordedTime)).await;
    let token = raw::register(api.address, "alice@example.com").await;

    let health = raw::request(api.address, "GET", "/api/health", None, None).await;
    assert_eq!(health.status, 200, "only the workers are missing");
    assert_eq!(health.json()["status"], "degraded");
    assert_eq!(health.json()["components"]["redis"], "healthy");
    assert_eq!(health.json()["components"]["celery"], "unhealthy");

    redis.stop();
    for request in recorded_during("redisdown-") {
        let bytes = request.request.replace("{alice_token}", &token).into_bytes();
        let answer = raw::send(api.address, &bytes).await;
        let expected = if request.name == "redisdown-create" {
            201
        } else {
            request.status
        };
        assert_eq!(answer.status, expected, "{}", request.name);
    }
    redis.resume();
    let back = Instant::now();
    while raw::request(api.address, "GET", "/api/health", None, None)
        .await
        .json()["components"]["redis"]
        != "healthy"
    {
        assert!(back.elapsed() < PATIENCE, "not healthy again");
    }
}
