//! Health endpoints and the log, which name the reason that requests cannot be served, and the remedy.
#![expect(clippy::disallowed_methods, reason = "the tests change the database directly")]

use std::{net::SocketAddr, process::Output};

use serde_json::Value;

use super::installation::Installation;
use crate::support::{
    eventually,
    postgres::{self, Database},
    postgres_server::Server,
    process::{self, Process},
    raw,
};

/// Starts the API without waiting until it is ready.
async fn serve(installation: &Installation) -> (Process, SocketAddr) {
    let variables = installation.variables(&[]);
    process::start_api_until_ok("/api/health/live", &["serve"], &variables, installation.folder()).await
}

async fn get(api: SocketAddr, target: &str) -> (u16, Value) {
    let response = raw::request(api, "GET", target, None, None).await;
    (response.status, response.json())
}

/// Asserts that readiness, health and the log of a process give this reason.
async fn assert_reason(serve: &Process, api: SocketAddr, reason: &str) {
    serve.wait_for_output(reason).await;
    let (status, ready) = get(api, "/api/health/ready").await;
    assert_eq!((status, &ready["error"]["message"]), (503, &reason.into()));
    assert_eq!(ready["error"]["code"], "service_unavailable");
    let (status, health) = get(api, "/api/health").await;
    assert_eq!((status, &health["status"]), (503, &"unhealthy".into()));
    assert_eq!(health["components"]["database"], "unhealthy");
    assert_eq!(health["messages"][0], reason);
}

fn healthcheck(api: SocketAddr, arguments: &[&str]) -> Output {
    let port = api.port().to_string();
    let arguments = [&["healthcheck"], arguments].concat();
    process::run(&arguments, &[("HOST", "127.0.0.1"), ("PORT", &port)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_or_old_schema_is_reported_with_the_remedy() {
    let database = Database::empty().await;
    let client = database.client().await;
    let installation = Installation::unmigrated(database.url.clone(), Some(database)).await;
    let (serve, api) = serve(&installation).await;
    let worker = installation.worker();
    let start = "schema is at none, this release needs V";
    serve.wait_for_output(start).await;
    worker.wait_for_output(start).await;
    let (_, ready) = get(api, "/api/health/ready").await;
    let reason = ready["error"]["message"].as_str().unwrap();
    assert!(reason.starts_with(start), "{reason}");
    assert!(reason.ends_with(": run pressroom migrate"), "{reason}");
    assert_reason(&serve, api, reason).await;
    assert!(!healthcheck(api, &["--ready"]).status.success());
    for target in ["/api/articles/", "/api/articles/one"] {
        assert_eq!(get(api, target).await.0, 503, "{target}");
    }
    let account = serde_json::json!({"email": "a@example.com", "password": "password123", "name": "A"});
    let registered = raw::request(api, "POST", "/api/register", None, Some(&account)).await;
    assert_eq!(registered.status, 503);

    installation.migrate();
    serve.wait_for_output("the database can serve requests").await;
    worker.wait_for_output("the database can serve requests").await;
    assert_eq!(get(api, "/api/health/ready").await.0, 200);
    assert!(healthcheck(api, &["--ready"]).status.success());
    raw::register(api, "a@example.com").await;

    client
        .batch_execute("DELETE FROM refinery_schema_history WHERE version > 2")
        .await
        .unwrap();
    let reason = reason.replace("none", "V2");
    assert_reason(&serve, api, &reason).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_schema_is_reported_and_migrate_accepts_it() {
    let database = Database::migrated().await;
    let client = database.client().await;
    let newer = "INSERT INTO refinery_schema_history VALUES (999, 'future', '2026-11-28T00:00:00Z', '1')";
    client.batch_execute(newer).await.unwrap();
    let migrated = process::run(&["migrate"], &[("DATABASE_URL", &database.url)]);
    assert!(migrated.status.success(), "{migrated:?}");
    assert_eq!(
        String::from_utf8(migrated.stdout).unwrap(),
        "the schema is newer (V999) than this release; nothing to do\n"
    );

    let installation = Installation::unmigrated(database.url.clone(), Some(database)).await;
    let (serve, api) = serve(&installation).await;
    let notice = "schema is newer (V999) than this release (V";
    serve.wait_for_output(notice).await;
    let (status, ready) = get(api, "/api/health/ready").await;
    assert_eq!((status, &ready["status"]), (200, &"ok".into()));
    assert!(ready["message"].as_str().unwrap().starts_with(notice), "{ready}");
    let (status, health) = get(api, "/api/health").await;
    assert_eq!(
        (status, &health["components"]["database"]),
        (200, &"healthy".into())
    );
    assert!(
        health["messages"][0].as_str().unwrap().starts_with(notice),
        "{health}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_database_is_reported() {
    let server = Server::start();
    let installation = Installation::on(server.url(), None).await;
    let (serve, api) = installation.serve().await;
    let admin = postgres::client(&server.url()).await;
    let set = async |value: &str| {
        for statement in [
            format!("ALTER SYSTEM SET default_transaction_read_only = {value}"),
            "SELECT pg_reload_conf()".to_owned(),
        ] {
            admin.batch_execute(&statement).await.unwrap();
        }
    };
    set("on").await;
    eventually("readiness to turn 503", async || {
        (get(api, "/api/health/ready").await.0 == 503).then_some(())
    })
    .await;
    let (_, ready) = get(api, "/api/health/ready").await;
    let reason = ready["error"]["message"].as_str().unwrap();
    assert!(reason.starts_with("the database is read-only"), "{reason}");
    assert_reason(&serve, api, reason).await;

    // A read-only server still accepts ALTER SYSTEM.
    set("off").await;
    eventually("readiness to return", async || {
        (get(api, "/api/health/ready").await.0 == 200).then_some(())
    })
    .await;
    serve.wait_for_output("the database can serve requests").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_readiness_check_does_not_depend_on_redis() {
    let installation = Installation::new().await;
    let (_serve, api) = installation.serve().await;
    assert!(healthcheck(api, &[]).status.success());
    installation.redis.stop();
    let unhealthy = healthcheck(api, &[]);
    assert!(!unhealthy.status.success());
    let printed = String::from_utf8(unhealthy.stdout).unwrap();
    assert!(printed.contains("Redis is unavailable"), "{printed}");
    assert!(healthcheck(api, &["--ready"]).status.success());
    installation.redis.resume();
}
