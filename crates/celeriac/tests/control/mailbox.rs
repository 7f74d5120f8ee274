//! The worker's mailbox: invalid commands, lost connections, and its keys in Redis.

use std::{sync::Arc, time::Duration};

use celeriac::Control;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    Fixture,
    logs::Logs,
    ok,
    server::Server,
    support::{Journal, PATIENCE, Running, eventually, worker},
};

#[tokio::test(flavor = "multi_thread")]
async fn invalid_commands_get_an_error_and_undecodable_messages_are_ignored() {
    let fixture = Fixture::start().await;
    assert_eq!(
        fixture.query("nosuch", json!({})).await,
        json!({"error": "KeyError('nosuch')"})
    );
    let wrong = fixture.query("query_task", json!({"ids": 3})).await;
    assert!(
        wrong["error"].as_str().unwrap().starts_with("TypeError("),
        "{wrong}"
    );
    let garbage = [
        "nonsense".to_owned(),
        "{}".to_owned(),
        json!({"body": "{}"}).to_string(),
        json!({"body": "{\"method\": 3}"}).to_string(),
        json!({"body": "{\"method\": \"revoke\", \"arguments\": [1]}"}).to_string(),
    ];
    for text in garbage {
        assert_eq!(
            fixture.broker.broadcast("celery.pidbox", "", text).await.unwrap(),
            1
        );
    }
    assert_eq!(fixture.query("ping", json!({})).await, ok("pong"));
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_control_works_again_after_an_outage() {
    let mut fixture = Fixture::start().await;
    fixture.server.crash();
    assert!(fixture.control().ping().await.is_err());
    fixture.server.start_again();
    eventually("the worker replies again", async || {
        let nodes = fixture
            .control()
            .timeout(Duration::from_secs(1))
            .ping()
            .await
            .ok()?;
        (nodes == ["celery@test"]).then_some(())
    })
    .await;
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_subscription_is_renewed() {
    let fixture = Fixture::start().await;
    let killed: u64 = redis::cmd("CLIENT")
        .arg(&["KILL", "TYPE", "pubsub"])
        .query(&mut fixture.server.connection())
        .unwrap();
    assert_eq!(killed, 1, "the worker has one subscription");
    eventually("the worker replies again", async || {
        let nodes = fixture.control().ping().await.unwrap();
        (nodes == ["celery@test"]).then_some(())
    })
    .await;
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mailbox_is_declared_as_in_kombu_and_removed_at_shutdown() {
    const BINDINGS: &str = "_kombu.binding.celery.pidbox";
    let Fixture { server, running, .. } = Fixture::start().await;
    let connection = &mut server.connection();
    let mut bindings = || -> Vec<String> { redis::cmd("SMEMBERS").arg(BINDINGS).query(connection).unwrap() };
    eventually("the mailbox is declared", async || {
        (bindings() == ["\u{6}\u{16}\u{6}\u{16}celery@test.celery.pidbox"]).then_some(())
    })
    .await;
    let mut deadline = redis::cmd("ZSCORE");
    deadline.arg(&["_kombu.binding_deadlines", "celery.pidbox"]);
    let deadline: f64 = deadline.query(&mut server.connection()).unwrap();
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as f64;
    let left = deadline - now;
    assert!(
        (3_500_000.0..3_700_000.0).contains(&left),
        "expected an hour in milliseconds, got {left}"
    );
    running.stop().await.unwrap();
    assert_eq!(bindings(), Vec::<String>::new());
}

#[tokio::test]
async fn a_duplicate_worker_name_is_logged_as_a_warning() {
    let (logs, _guard) = Logs::capture();
    let server = Server::start();
    let start = async || {
        let broker = Arc::new(server.broker());
        let built = worker(broker, &Journal::default(), &CancellationToken::new()).build();
        Running::start(built, PATIENCE)
    };
    let control = Control::new(Arc::new(server.broker())).timeout(Duration::from_secs(5));
    let wait_for_workers = async |count: usize| {
        eventually("all workers reply", async || {
            (control.ping().await.unwrap().len() == count).then_some(())
        })
        .await;
    };
    let one = start().await;
    wait_for_workers(1).await;
    assert_eq!(logs.problems(), Vec::<String>::new());
    let two = start().await;
    wait_for_workers(2).await;
    let warnings = eventually("the second worker logs a warning", async || {
        Some(logs.problems()).filter(|lines| !lines.is_empty())
    })
    .await;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("another worker has the same name"),
        "{warnings:?}"
    );
    one.stop().await.unwrap();
    two.stop().await.unwrap();
}
