//! Installations with a read replica, and with a pooler in front of PostgreSQL.
#![expect(clippy::disallowed_methods, reason = "tests query the server directly")]

use std::net::SocketAddr;

use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::json;

use super::installation::{Installation, People, create};
use crate::support::{
    eventually,
    otlp::{integer, text},
    pgbouncer::{CONNECTIONS, PgBouncer},
    postgres::{self, Database},
    postgres_server::Server,
    process, raw,
};

fn port_of(url: &str) -> i64 {
    i64::from(url::Url::parse(url).unwrap().port().unwrap())
}

/// Returns the spans of statements sent to the server on `port`.
fn statements(installation: &Installation, port: i64) -> Vec<Span> {
    let spans = installation.otlp.spans().into_iter().map(|(_, span)| span);
    spans
        .filter(|span| {
            text(&span.attributes, "db.system.name").as_deref() == Some("postgresql")
                && integer(&span.attributes, "server.port") == Some(port)
        })
        .collect()
}

async fn status(api: SocketAddr, target: &str, token: Option<&str>) -> u16 {
    raw::request(api, "GET", target, token, None).await.status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anonymous_reads_use_the_replica_while_it_is_available() {
    let primary = Server::start();
    let installation = Installation::on(primary.url(), None).await;
    let replica = primary.replica();
    let replica_port = port_of(&replica.url());
    let (serve, api) = installation
        .serve_with(&[("DATABASE_READ_URL", &replica.url())])
        .await;
    let read_from_replica = async |what: &str| {
        let before = statements(&installation, replica_port).len();
        eventually(what, async || {
            assert_eq!(status(api, "/api/articles/", None).await, 200);
            (statements(&installation, replica_port).len() > before).then_some(())
        })
        .await;
    };
    read_from_replica("the first read from the replica").await;

    let people = People::new(api, &installation).await;
    let created = create(api, &people.alice, "Second", None).await;
    let article = format!("/api/articles/{}", created.json()["slug"].as_str().unwrap());
    // A new article is visible immediately, to its author and to others.
    assert_eq!(status(api, &article, Some(&people.alice)).await, 200);
    assert_eq!(status(api, &article, None).await, 200);
    let change = json!({"title": "Changed"});
    let updated = raw::request(api, "PUT", &article, Some(&people.alice), Some(&change)).await;
    assert_eq!(updated.status, 200);
    let own = raw::request(api, "GET", &article, Some(&people.alice), None).await;
    assert_eq!(own.json()["title"], "Changed");

    replica.stop();
    for _ in 0..20 {
        assert_eq!(status(api, "/api/articles/", None).await, 200);
        assert_eq!(status(api, &article, None).await, 200);
        assert_eq!(status(api, "/api/health/ready", None).await, 200);
    }
    eventually("a line in the log", async || {
        serve.output().contains("the replica is not usable").then_some(())
    })
    .await;
    replica.resume();
    read_from_replica("reads from the replica again").await;

    for span in &statements(&installation, replica_port) {
        assert_eq!(
            text(&span.attributes, "db.operation.name").as_deref(),
            Some("SELECT"),
            "{span:?}"
        );
    }
    assert!(!statements(&installation, port_of(&primary.url())).is_empty());
    for pool in ["postgres.replica.reads", "postgres.replica.lists"] {
        eventually(pool, async || installation.otlp.contains(pool).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_without_effect_are_logged_once() {
    let database = Database::empty().await;
    let url = format!("{}?statement_cache_size=0&connection_limit=3", database.url);
    let installation = Installation::on(url, Some(database)).await;
    let (mut serve, _api) = installation.serve().await;
    assert!(serve.terminate().await.success());
    let logged = serve.output();
    assert_eq!(
        logged.matches("statement_cache_size, connection_limit").count(),
        1,
        "{logged}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_features_work_through_pgbouncer_in_transaction_mode() {
    all_features_work_through(PgBouncer::without_prepared_statements).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_features_work_through_pgbouncer_with_prepared_statements() {
    all_features_work_through(PgBouncer::with_prepared_statements).await;
}

async fn all_features_work_through(pooler: fn(&str) -> PgBouncer) {
    let database = Database::empty().await;
    let pooler = pooler(&database.url);
    let installation = Installation::on(pooler.url(&database.url), None).await;
    let again = process::run(&["migrate"], &[("DATABASE_URL", &pooler.url(&database.url))]);
    assert!(again.status.success());

    // Two API processes and two workers share the pooler's connections.
    let (mut serve, api) = installation.serve().await;
    let (mut second, other) = installation.serve().await;
    let people = People::new(api, &installation).await;
    let mut workers = [
        installation.worker_with(&[("CELERY_HOSTNAME", "one@%h")]),
        installation.worker_with(&[("CELERY_HOSTNAME", "two@%h")]),
    ];
    for (number, api) in [api, other, api, other].into_iter().enumerate() {
        let created = create(api, &people.alice, &format!("Title {number}"), None).await;
        let favorite = format!(
            "/api/articles/{}/favorite",
            created.json()["slug"].as_str().unwrap()
        );
        let favourited = raw::request(api, "POST", &favorite, Some(&people.alice), None).await;
        assert_eq!(favourited.json()["favorites_count"], 1);
        let found = raw::request(other, "GET", "/api/articles/?search=title", None, None).await;
        assert_eq!(found.json()["total"], number + 1);
    }
    installation.mails(4).await;
    eventually("the workers' response", async || {
        let health = raw::request(other, "GET", "/api/health", None, None).await.json();
        (health["status"] == "healthy").then_some(())
    })
    .await;

    let client = postgres::client(&database.url).await;
    let open = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let open: i64 = client.query_one(open, &[]).await.unwrap().get(0);
    assert!((1..=CONNECTIONS).contains(&open), "{open}");
    for process in [&mut serve, &mut second].into_iter().chain(&mut workers) {
        assert!(process.terminate().await.success(), "{}", process.output());
        let printed = process.output();
        assert!(
            !printed.contains("WARN") && !printed.contains("ERROR"),
            "{printed}"
        );
    }
}
