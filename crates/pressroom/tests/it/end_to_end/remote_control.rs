//! `pressroom tasks inspect` and `pressroom tasks control` with a worker in another process.

use std::process::Output;

use serde_json::{Value, json};

use crate::support::{
    eventually,
    postgres_server::free_port,
    process::{self, Folder, Process},
    redis_server::RedisServer,
};

/// Starts a worker without a database; it consumes tasks regardless.
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

/// Returns the reply of the only worker.
fn reply(output: &Output) -> Value {
    assert!(output.status.success(), "{}", stderr(output));
    let replies: Value = serde_json::from_slice(&output.stdout).unwrap();
    let replies = replies.as_object().unwrap();
    assert_eq!(replies.len(), 1, "{replies:?}");
    let (node, reply) = replies.iter().next().unwrap();
    assert!(node.starts_with("celery@"), "{node}");
    reply.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_inspected_and_controlled_from_the_command_line() {
    let (redis, folder) = (RedisServer::start(), Folder::new());
    let without_reply = tasks(&redis, &["inspect", "ping"]);
    assert_eq!(without_reply.status.code(), Some(1));
    assert_eq!(
        stderr(&without_reply),
        "pressroom: no worker replied in time; --timeout waits longer\n"
    );

    let mut worker = start_worker(&redis, &folder);
    eventually("the worker to reply", async || {
        tasks(&redis, &["inspect", "ping"]).status.success().then_some(())
    })
    .await;
    let inspect = |method| reply(&tasks(&redis, &["inspect", method, "--timeout", "10"]));
    assert_eq!(inspect("ping"), json!({"ok": "pong"}));
    assert_eq!(inspect("stats")["pid"], worker.id());
    assert_eq!(
        inspect("registered"),
        json!(["app.jobs.tasks.send_article_notification"])
    );
    assert_eq!(inspect("active_queues")[0]["name"], "celery");
    for method in ["active", "reserved", "scheduled", "revoked"] {
        assert_eq!(inspect(method), json!([]), "{method}");
    }
    let query = reply(&tasks(&redis, &["inspect", "query_task", "none-such"]));
    assert_eq!(query, json!({}));
    let elsewhere = tasks(&redis, &["inspect", "ping", "--destination", "celery@elsewhere"]);
    assert_eq!(elsewhere.status.code(), Some(1));
    let same_host = tasks(
        &redis,
        &["inspect", "ping", "--destination", "celery@%h", "--timeout", "10"],
    );
    assert_eq!(reply(&same_host), json!({"ok": "pong"}));

    let id = "11111111-1111-4111-8111-111111111111";
    let revoked = reply(&tasks(&redis, &["control", "revoke", id]));
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
        reply(&tasks(&redis, &limit)),
        json!({"ok": "new rate limit set successfully"})
    );
    let unknown = tasks(&redis, &["control", "rate-limit", "none.such", "10/s"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(
        stderr(&unknown).contains("workers that rejected the command: 1"),
        "{}",
        stderr(&unknown)
    );
    let events = reply(&tasks(&redis, &["control", "enable-events"]));
    assert_eq!(events, json!({"ok": "task events enabled"}));

    let shutdown = tasks(&redis, &["control", "shutdown"]);
    assert_eq!(String::from_utf8_lossy(&shutdown.stdout), "Workers notified: 1\n");
    assert!(worker.wait_for_exit().await.success(), "{}", worker.output());
    assert_eq!(
        stderr(&tasks(&redis, &["control", "shutdown"])),
        "pressroom: no worker is listening\n"
    );
}

#[test]
fn an_unavailable_redis_is_reported() {
    let url = format!("redis://127.0.0.1:{}/0", free_port());
    let output = process::run(&["tasks", "inspect", "ping"], &[("REDIS_URL", &url)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("the broker is unavailable"),
        "{}",
        stderr(&output)
    );
}
