//! `pressroom tasks inspect` and `pressroom tasks control` with a worker that is a process of its own.

use std::process::Output;

use serde_json::{Value, json};

use crate::support::{
    eventually,
    postgres_server::free_port,
    process::{self, Folder, Process},
    redis_server::RedisServer,
};

/// A worker, whose database is away: it waits for tasks all the same.
fn start_worker(redis: &RedisServer, folder: &Folder) -> Process {
    let database = format!("postgresql://nobody@127.0.0.1:{}/none", free_port());
    let variables = [
        ("DATABASE_URL", database.as_str()),
        ("REDIS_URL", &redis.url()),
        ("OTEL_SDK_DISABLED", "true"),
    ];
    process::start("worker", &["worker"], &variables, folder.path())
}

fn tasks(redis: &RedisServer, arguments: &[&str]) -> Output {
    let arguments = [&["tasks"], arguments].concat();
    process::run(&arguments, &[("REDIS_URL", &redis.url())])
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What one worker answered.
fn answer(output: &Output) -> Value {
    assert!(output.status.success(), "{}", stderr(output));
    let answers: Value = serde_json::from_slice(&output.stdout).unwrap();
    let answers = answers.as_object().unwrap();
    assert_eq!(answers.len(), 1, "{answers:?}");
    let (node, answer) = answers.iter().next().unwrap();
    assert!(node.starts_with("celery@"), "{node}");
    answer.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_asked_and_steered_from_the_command_line() {
    let (redis, folder) = (RedisServer::start(), Folder::new());
    let nobody = tasks(&redis, &["inspect", "ping"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert_eq!(stderr(&nobody), "pressroom: no worker has answered\n");

    let mut worker = start_worker(&redis, &folder);
    eventually("the worker answers", async || {
        tasks(&redis, &["inspect", "ping"]).status.success().then_some(())
    })
    .await;
    let inspect = |method| answer(&tasks(&redis, &["inspect", method, "--timeout", "10"]));
    assert_eq!(inspect("ping"), json!({"ok": "pong"}));
    assert_eq!(inspect("stats")["pid"], worker.id());
    assert_eq!(
        inspect("registered"),
        json!(["app.jobs.tasks.send_article_notification"])
    );
    assert_eq!(inspect("active_queues")[0]["name"], "celery");
    for none in ["active", "reserved", "scheduled", "revoked"] {
        assert_eq!(inspect(none), json!([]), "{none}");
    }
    let query = answer(&tasks(&redis, &["inspect", "query_task", "none-such"]));
    assert_eq!(query, json!({}));
    let elsewhere = tasks(&redis, &["inspect", "ping", "--destination", "celery@elsewhere"]);
    assert_eq!(elsewhere.status.code(), Some(1));
    let beside = tasks(
        &redis,
        &["inspect", "ping", "--destination", "celery@%h", "--timeout", "10"],
    );
    assert_eq!(answer(&beside), json!({"ok": "pong"}));

    let id = "11111111-1111-4111-8111-111111111111";
    let revoked = answer(&tasks(&redis, &["control", "revoke", id]));
    assert_eq!(
        revoked,
        json!({"ok": format!("tasks {{'{id}'}} flagged as revoked")})
    );
    assert_eq!(inspect("revoked"), json!([id]));
    let limit = [
        "control",
        "rate-limit",
        "app.jobs.tasks.send_article_notification",
        "10/s",
    ];
    assert_eq!(
        answer(&tasks(&redis, &limit)),
        json!({"ok": "new rate limit set successfully"})
    );
    let unknown = tasks(&redis, &["control", "rate-limit", "none.such", "10/s"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(
        stderr(&unknown).contains("refused by 1 of them"),
        "{}",
        stderr(&unknown)
    );
    let events = answer(&tasks(&redis, &["control", "enable-events"]));
    assert_eq!(events, json!({"ok": "task events enabled"}));

    let shutdown = tasks(&redis, &["control", "shutdown"]);
    assert_eq!(
        String::from_utf8_lossy(&shutdown.stdout),
        "Workers that have heard it: 1\n"
    );
    assert!(worker.ended().await.success(), "{}", worker.output());
    assert_eq!(
        stderr(&tasks(&redis, &["control", "shutdown"])),
        "pressroom: no worker listens\n"
    );
}

#[test]
fn a_redis_that_is_away_is_said() {
    let url = format!("redis://127.0.0.1:{}/0", free_port());
    let output = process::run(&["tasks", "inspect", "ping"], &[("REDIS_URL", &url)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("the broker is unavailable"),
        "{}",
        stderr(&output)
    );
}
