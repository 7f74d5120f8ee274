//! Responses during and after outages of PostgreSQL and Redis.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use celeriac::{Broker, RedisBroker, RedisConfig};
use pressroom::{
    health::TaskQueue,
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

/// Maximum time to a 503 response while the database is unavailable.
const RESPONSE_LIMIT: Duration = Duration::from_secs(2);

/// Maximum time for the service to recover once the server is back.
const PATIENCE: Duration = Duration::from_secs(20);

fn recorded_during(outage: &str) -> Vec<Recorded> {
    let requests: Vec<Recorded> = recorded()
        .filter(|request| request.name.starts_with(outage))
        .collect();
    assert!(!requests.is_empty());
    requests
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_return_503_during_a_postgresql_outage() {
    let server = Server::start();
    let config = PostgresConfig::parse(&server.url()).unwrap();
    migrate(&config).await.unwrap();
    let store = Arc::new(PostgresStore::connect(&config).unwrap());
    let api = api::start(store).await;
    let token = raw::register(api.address, "alice@example.com").await;

    server.stop();
    for request in recorded_during("pgdown-") {
        let bytes = request.request.replace("{alice_token}", &token).into_bytes();
        let sent = Instant::now();
        let response = raw::send(api.address, &bytes).await;
        assert!(
            sent.elapsed() < RESPONSE_LIMIT,
            "{} took {:?}",
            request.name,
            sent.elapsed()
        );
        assert_eq!(response.status, 503, "{}", request.name);
        assert_eq!(response.header("retry-after"), Some("1"), "{}", request.name);
        assert_eq!(response.json()["error"]["code"], "service_unavailable");
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
        assert!(back.elapsed() < PATIENCE, "the service did not recover");
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
    // Health checks have a connection of their own, which may be opened again a moment later.
    let back = Instant::now();
    while raw::request(api.address, "GET", "/api/health", None, None)
        .await
        .status
        != 200
    {
        assert!(back.elapsed() < PATIENCE, "the health check did not recover");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_outage_affects_only_the_health_endpoint() {
    let redis = RedisServer::start();
    let broker: Arc<dyn Broker> = Arc::new(RedisBroker::new(RedisConfig::new(redis.url())).unwrap());
    let fixture = on_sqlite();
    let queue = TaskQueue::through(broker);
    let api = api::start_with(fixture.store.clone(), queue, Arc::new(RecordedTime)).await;
    let token = raw::register(api.address, "alice@example.com").await;

    let health = raw::request(api.address, "GET", "/api/health", None, None).await;
    assert_eq!(health.status, 200, "degraded because no worker runs");
    assert_eq!(health.json()["status"], "degraded");
    assert_eq!(health.json()["components"]["redis"], "healthy");
    assert_eq!(health.json()["components"]["celery"], "unhealthy");

    redis.stop();
    for request in recorded_during("redisdown-") {
        let bytes = request.request.replace("{alice_token}", &token).into_bytes();
        let response = raw::send(api.address, &bytes).await;
        let expected = if request.name == "redisdown-create" {
            201
        } else {
            request.status
        };
        assert_eq!(response.status, expected, "{}", request.name);
    }
    redis.resume();
    let back = Instant::now();
    while raw::request(api.address, "GET", "/api/health", None, None)
        .await
        .json()["components"]["redis"]
        != "healthy"
    {
        assert!(back.elapsed() < PATIENCE, "Redis did not become healthy in time");
    }
}
