//! The mailbox itself: what it survives, and what it leaves behind.

use std::{sync::Arc, time::Duration};

use celeriac::Control;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    Stage,
    logs::Logs,
    ok,
    server::Server,
    support::{Journal, PATIENCE, Running, eventually, worker},
};

#[tokio::test(flavor = "multi_thread")]
async fn wrong_commands_are_answered_and_garbage_is_survived() {
    let stage = Stage::set().await;
    assert_eq!(
        stage.ask("nosuch", json!({})).await,
        json!({"error": "KeyError('nosuch')"})
    );
    let wrong = stage.ask("query_task", json!({"ids": 3})).await;
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
            stage.broker.broadcast("celery.pidbox", "", text).await.unwrap(),
            1
        );
    }
    assert_eq!(stage.ask("ping", json!({})).await, ok("pong"));
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_control_comes_back_with_redis() {
    let mut stage = Stage::set().await;
    stage.server.crash();
    assert!(stage.control().ping().await.is_err());
    stage.server.start_again();
    eventually("the worker answers again", async || {
        let nodes = stage
            .control()
            .timeout(Duration::from_secs(1))
            .ping()
            .await
            .ok()?;
        (nodes == ["celery@test"]).then_some(())
    })
    .await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_subscription_is_made_again() {
    let stage = Stage::set().await;
    let killed: u64 = redis::cmd("CLIENT")
        .arg(&["KILL", "TYPE", "pubsub"])
        .query(&mut stage.server.connection())
        .unwrap();
    assert_eq!(killed, 1, "the worker has one subscription");
    eventually("the worker answers again", async || {
        let nodes = stage.control().ping().await.unwrap();
        (nodes == ["celery@test"]).then_some(())
    })
    .await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mailbox_is_declared_as_kombu_does_and_removed_at_the_end() {
    const BINDINGS: &str = "_kombu.binding.celery.pidbox";
    let Stage { server, running, .. } = Stage::set().await;
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
        "an hour, in milliseconds: {left}"
    );
    running.stop().await.unwrap();
    assert_eq!(bindings(), Vec::<String>::new());
}

#[tokio::test]
async fn a_name_that_is_taken_is_warned_about() {
    let (logs, _guard) = Logs::capture();
    let server = Server::start();
    let start = async || {
        let broker = Arc::new(server.broker());
        let built = worker(broker, &Journal::default(), &CancellationToken::new()).build();
        Running::start(built, PATIENCE)
    };
    let control = Control::new(Arc::new(server.broker())).timeout(Duration::from_secs(5));
    let answers = async |count: usize| {
        eventually("all answer", async || {
            (control.ping().await.unwrap().len() == count).then_some(())
        })
        .await;
    };
    let one = start().await;
    answers(1).await;
    assert_eq!(logs.troubles(), Vec::<String>::new());
    let two = start().await;
    answers(2).await;
    let said = eventually("the second is told", async || {
        Some(logs.troubles()).filter(|lines| !lines.is_empty())
    })
    .await;
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("another worker has the same name"), "{said:?}");
    one.stop().await.unwrap();
    two.stop().await.unwrap();
}
