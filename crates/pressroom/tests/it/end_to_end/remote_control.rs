//! `pressroom tasks inspect` and `pressroom tasks control` with a worker in another process.

use std::{process::Output, sync::Arc, time::Duration};

use celeriac::{CancellationToken, RedisBroker, RedisConfig, TaskContext, TaskError, TaskOptions, Worker};
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
    let task = "app.jobs.tasks.send_article_notification";
    for (arguments, expected) in [
        (
            &["time-limit", task, "10", "20.5"][..],
            "time limits set successfully",
        ),
        (&["add-consumer", "other"], "add consumer other"),
    ] {
        let arguments = [&["control"], arguments].concat();
        assert_eq!(reply(&tasks(&redis, &arguments)), json!({"ok": expected}));
    }
    let queues = || {
        let queues = inspect("active_queues");
        let queues = queues.as_array().unwrap().iter();
        queues
            .map(|queue| queue["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(queues(), ["celery", "other"]);
    let cancelled = reply(&tasks(&redis, &["control", "cancel-consumer", "celery"]));
    assert_eq!(cancelled, json!({"ok": "no longer consuming from celery"}));
    assert_eq!(queues(), ["other"]);
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

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_sent_and_observed_from_the_command_line() {
    let (redis, folder) = (RedisServer::start(), Folder::new());
    let succeeds = |arguments: &[&str]| {
        let output = tasks(&redis, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let large = "1180591620717411303424";

    let call = [
        "call",
        "test.echo",
        &format!("[1, {large}]"),
        "--id",
        "first",
        "--priority",
        "9",
    ];
    assert_eq!(succeeds(&call), "first");
    let none = tasks(&redis, &["result", "first"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(stderr(&none).contains("first: no result"), "{}", stderr(&none));
    assert_eq!(
        succeeds(&["send", "test.echo", "--queue", "other", "--id", "second"]),
        "second"
    );
    assert_eq!(succeeds(&["purge", "celery", "other"]), "Purged: 2");
    assert_eq!(succeeds(&["purge", "celery"]), "Purged: 0");

    let broker = Arc::new(RedisBroker::new(RedisConfig::new(redis.url())).unwrap());
    let worker = Worker::builder(broker)
        .hostname("celery@test")
        .events(true)
        .task(
            "test.echo",
            TaskOptions::new().extra_kwargs(true),
            async |context: TaskContext, _: Vec<Value>| {
                let message = context.message();
                Ok::<_, TaskError>(json!([message.args, message.kwargs]))
            },
        )
        .build();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(worker.run(shutdown.clone(), Duration::from_secs(10)));
    let arguments = ["tasks", "events", "--type", "task-succeeded"];
    let events = process::start(
        "events",
        &arguments,
        &[("REDIS_URL", &redis.url())],
        folder.path(),
    );
    let args = format!("[1, {large}, NaN]");
    let call = [
        "call",
        "test.echo",
        &args,
        "--kwargs",
        r#"{"key": "\u001b"}"#,
        "--wait",
        "30",
        "--countdown",
        "0.1",
    ];
    let result = succeeds(&call);
    assert!(result.contains(r#""status": "SUCCESS""#), "{result}");
    assert!(
        result.contains(&format!(r#""result": [{args}, {{"key": "\u001b"}}]"#)),
        "{result}"
    );
    let failed = succeeds(&["call", "none.such", "--id", "failed", "--wait", "30"]);
    assert_eq!(json(&failed)["status"], "FAILURE");
    assert_eq!(json(&succeeds(&["result", "failed"])), json(&failed));
    let shown = eventually("the event to be printed", async || {
        succeeds(&["call", "test.echo", "--id", "shown", "--wait", "30"]);
        let printed = events.output();
        printed.lines().next().map(json)
    })
    .await;
    assert_eq!(shown["type"], "task-succeeded");
    assert_eq!(shown["hostname"], "celery@test");
    for invalid in [
        &["call", "t", "{}"][..],
        &["call", "t", "--kwargs", "[]"],
        &["purge"],
    ] {
        assert_eq!(tasks(&redis, invalid).status.code(), Some(2), "{invalid:?}");
    }
    let late = tasks(&redis, &["call", "t", "--queue", "unserved", "--wait", "0.1"]);
    assert_eq!(late.status.code(), Some(1));
    shutdown.cancel();
    running.await.unwrap().unwrap();
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
