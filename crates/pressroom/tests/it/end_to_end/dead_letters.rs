//! `pressroom tasks dead`, `failed` and `retry`, run as processes against a real Redis.

use std::process::Output;

use celeriac::{Broker, DeadLetters as _, Message, RedisBroker, RedisConfig};
use serde_json::{Value, json};

use super::installation::{Installation, People, create};
use crate::support::{
    eventually, postgres_server::free_port, process, redis_server::RedisServer, webhook::Webhook,
};

const SECRET: &str = "hunter2";
const TASK: &str = "app.jobs.tasks.send_article_notification";
const GOOD: &str = "11111111-1111-4111-8111-111111111111";
const OTHER: &str = "22222222-2222-4222-8222-222222222222";
const BAD: &str = "33333333-3333-4333-8333-333333333333";

/// Returns a message with a secret argument; its body is invalid JSON when `broken`.
fn message(id: &str, broken: bool) -> String {
    let arguments = json!([[SECRET], {}, null]).to_string();
    json!({
        "body": if broken { format!("%{arguments}") } else { arguments },
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": TASK, "id": id, "celeriac_deliveries": 20},
        "properties": {
            "delivery_info": {"exchange": "", "routing_key": "celery"},
            "delivery_tag": id,
        },
    })
    .to_string()
}

/// Starts a Redis with four dead letters: two messages that were delivered too often, one with an invalid body, and one
/// that names no task.
fn redis_with_dead_letters() -> RedisServer {
    let redis = RedisServer::start();
    for (raw, reason) in [
        (message(GOOD, false), "delivered too often"),
        (message(BAD, true), "the body is not JSON"),
        (format!("\u{1b}[31m {SECRET}"), "the message is not a JSON object"),
        (message(OTHER, false), "delivered too often"),
    ] {
        let letter = json!({"reason": reason, "time": "2026-11-22T06:51:26.372432+00:00", "queue": "celery", "message": raw});
        redis
            .command(&["LPUSH", "celeriac.dead", &letter.to_string()])
            .unwrap();
    }
    redis
}

fn dead(redis: &RedisServer, arguments: &[&str]) -> Output {
    tasks(redis, &[&["dead"], arguments].concat())
}

fn tasks(redis: &RedisServer, arguments: &[&str]) -> Output {
    let arguments = [&["tasks"], arguments].concat();
    process::run(&arguments, &[("REDIS_URL", &redis.url())])
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn listed(redis: &RedisServer) -> Vec<Value> {
    let output = dead(redis, &["list", "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let lines = stdout(&output);
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn task_ids(redis: &RedisServer) -> Vec<Option<String>> {
    let letters = listed(redis);
    letters
        .iter()
        .map(|letter| letter["task_id"].as_str().map(str::to_owned))
        .collect()
}

fn queue_length(redis: &RedisServer) -> String {
    redis.command(&["LLEN", "celery"]).unwrap().trim().to_owned()
}

#[test]
fn letters_are_listed_for_people_and_programs_without_their_arguments() {
    let redis = redis_with_dead_letters();
    let output = dead(&redis, &["list"]);
    assert!(output.status.success());
    let printed = stdout(&output);
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 5, "{printed}");
    assert_eq!(
        lines[1],
        format!("2026-11-22T06:51:26Z  {GOOD}  celery        {TASK}  delivered too often")
    );
    assert!(
        lines[3].ends_with("celery        -  the message is not a JSON object"),
        "{printed}"
    );
    assert!(
        !printed.contains(SECRET) && !printed.contains('\u{1b}'),
        "{printed}"
    );
    let letters = listed(&redis);
    assert_eq!(letters.len(), 4);
    assert_eq!(
        letters[1],
        json!({
            "id": letters[1]["id"], "time": "2026-11-22T06:51:26.372432Z", "queue": "celery", "task": TASK,
            "task_id": BAD, "reason": "the body is not JSON", "bytes": message(BAD, true).len(),
        })
    );
}

#[test]
fn an_empty_list_prints_a_note() {
    let redis = RedisServer::start();
    assert_eq!(stdout(&dead(&redis, &["list"])), "No dead letters.\n");
    assert_eq!(stdout(&dead(&redis, &["list", "--json"])), "");
    let output = dead(&redis, &["requeue", "--all"]);
    assert_eq!(
        (stdout(&output).as_str(), output.status.code()),
        ("Requeued: 0\n", Some(0))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_requeued_by_task_id_without_its_delivery_count() {
    let redis = redis_with_dead_letters();
    let output = dead(&redis, &["requeue", GOOD]);
    assert_eq!(
        (stdout(&output).as_str(), output.status.code()),
        ("Requeued: 1\n", Some(0))
    );
    assert_eq!(
        task_ids(&redis),
        [Some(BAD.to_owned()), None, Some(OTHER.to_owned())]
    );
    let broker = RedisBroker::new(RedisConfig::new(redis.url())).unwrap();
    let delivery = broker.receive(&["celery".to_owned()], 1).await.unwrap().remove(0);
    let message: Message = delivery.message().unwrap();
    assert_eq!(message.headers.id, GOOD);
    assert_eq!(message.headers.extra.get("celeriac_deliveries"), None);
    assert_eq!(broker.dead_letter_count().await.unwrap(), 3);
}

#[test]
fn requeue_all_fails_for_messages_that_no_worker_can_run_unless_forced() {
    let redis = redis_with_dead_letters();
    let output = dead(&redis, &["requeue", "--all"]);
    assert_eq!(
        (stdout(&output).as_str(), output.status.code()),
        ("Requeued: 2\n", Some(1))
    );
    let message = stderr(&output);
    assert!(
        message.contains(&format!("{BAD}: no worker can run it: the body is not JSON")),
        "{message}"
    );
    assert!(
        message.ends_with(
            "pressroom: dead letters not requeued: 2, because no worker can run them; \
             --force requeues them anyway\n"
        ),
        "{message}"
    );
    assert!(!message.contains(SECRET), "{message}");
    assert_eq!(queue_length(&redis), ":2");
    let output = dead(&redis, &["requeue", "--all", "--force"]);
    assert_eq!(
        (stdout(&output).as_str(), output.status.code()),
        ("Requeued: 2\n", Some(0))
    );
    assert_eq!((queue_length(&redis).as_str(), listed(&redis).len()), (":4", 0));
}

#[test]
fn purge_deletes_letters_and_fails_for_an_unknown_id() {
    let redis = redis_with_dead_letters();
    let nameless = listed(&redis)[2]["id"].as_str().unwrap().to_owned();
    let output = dead(&redis, &["purge", &nameless, BAD, "no-such-task"]);
    assert_eq!(
        (stdout(&output).as_str(), output.status.code()),
        ("Purged: 2\n", Some(1))
    );
    assert_eq!(
        stderr(&output),
        "no-such-task: no such dead letter\npressroom: dead letters not found: 1\n"
    );
    assert_eq!(task_ids(&redis), [Some(GOOD.to_owned()), Some(OTHER.to_owned())]);
    assert_eq!(stdout(&dead(&redis, &["purge", "--all"])), "Purged: 2\n");
    assert_eq!((queue_length(&redis).as_str(), listed(&redis).len()), (":0", 0));
}

#[test]
fn a_closed_output_does_not_hide_that_letters_were_rejected_or_not_found() {
    let redis = redis_with_dead_letters();
    for arguments in [&["requeue", "--all"][..], &["purge", "no-such-task"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let folder = process::Folder::new();
        let url = redis.url();
        let command = [&["tasks", "dead"], arguments].concat();
        let mut command = process::pressroom(&command, &[("REDIS_URL", &url)], folder.path());
        let output = command.stdout(writer).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(1),
            "{arguments:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn requeue_and_purge_require_a_selection() {
    let redis = redis_with_dead_letters();
    for arguments in [
        &["purge"][..],
        &["requeue"],
        &["purge", "--all", GOOD],
        &["requeue", "--force"],
    ] {
        assert_eq!(dead(&redis, arguments).status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(listed(&redis).len(), 4);
}

#[test]
fn an_unavailable_redis_is_reported_in_one_line() {
    let url = format!("redis://:{SECRET}@127.0.0.1:{}/0", free_port());
    let output = process::run(&["tasks", "dead", "list"], &[("REDIS_URL", &url)]);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        message.starts_with("pressroom: REDIS_URL: 127.0.0.1:")
            && message.contains(": the broker is unavailable: "),
        "{message}"
    );
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(!message.contains(SECRET), "{message}");
}

#[test]
fn only_tasks_that_can_run_are_listed_as_failed_and_retried() {
    let redis = redis_with_dead_letters();
    let listed_failed = tasks(&redis, &["failed"]);
    let printed = stdout(&listed_failed);
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 3, "{printed}");
    assert_eq!(
        lines[1],
        format!("2026-11-22T06:51:26Z  {GOOD}  celery        {TASK} [\"{SECRET}\"]  delivered too often")
    );
    let unknown = tasks(&redis, &["retry", BAD]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).starts_with(&format!("{BAD}: no such dead letter\n")));
    let output = tasks(&redis, &["retry", "--all"]);
    assert_eq!(
        (stdout(&output).as_str(), output.status.code()),
        ("Requeued: 2\n", Some(0))
    );
    assert_eq!(stdout(&tasks(&redis, &["failed"])), "No failed tasks.\n");
    assert_eq!((queue_length(&redis).as_str(), listed(&redis).len()), (":2", 2));
    assert_eq!(tasks(&redis, &["retry"]).status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_notification_is_listed_with_its_arguments_and_sent_by_one_command() {
    let installation = Installation::new().await;
    let (_serve, api) = installation.serve().await;
    let people = People::new(api, &installation).await;
    let (rejecting, webhook) = (format!("http://{api}/api/nowhere"), Webhook::start().await);
    let secret = ("WEBHOOK_SECRET", "0123456789abcdef0123456789abcdef");
    let mut worker = installation.worker_with(&[("WEBHOOK_URL", &rejecting), secret]);
    create(api, &people.alice, "Second", None).await;
    let failed = eventually("the task to fail", async || {
        let output = stdout(&tasks(&installation.redis, &["failed", "--json"]));
        output
            .lines()
            .next()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
    })
    .await;
    assert_eq!(
        (&failed["task"], &failed["args"]),
        (&json!(TASK), &json!([2, "created"]))
    );
    assert_eq!(failed["kwargs"], json!({}));
    let reason = failed["reason"].as_str().unwrap();
    let expected =
        "the task failed: NotificationError: 1 deliveries failed, one of them because the receiver responded";
    assert!(reason.starts_with(expected), "{reason}");
    let log = worker.output();
    assert!(!log.contains("Notifications sent"), "{log}");
    let line = log
        .lines()
        .find(|line| line.contains(r#""task failed""#))
        .unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    assert!(line.to_string().contains(r#""[2, \"created\"]""#), "{line}");

    assert!(worker.terminate().await.success());
    let url = webhook.url();
    let _worker = installation.worker_with(&[("WEBHOOK_URL", &url), secret]);
    let output = tasks(&installation.redis, &["retry", "--all"]);
    assert_eq!(stdout(&output), "Requeued: 1\n", "{}", stderr(&output));
    let id = failed["task_id"].as_str().unwrap();
    let result = tasks(&installation.redis, &["result", id, "--wait", "30"]);
    assert!(
        stdout(&result).contains(r#""status": "SUCCESS""#),
        "{}",
        stdout(&result)
    );
    // The receiver answers the first request with 503.
    assert_eq!(webhook.received().len(), 2);
    assert_eq!(
        stdout(&tasks(&installation.redis, &["failed"])),
        "No failed tasks.\n"
    );
}
