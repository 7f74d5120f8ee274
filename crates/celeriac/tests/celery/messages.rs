//! Messages recorded with a Celery worker. Messages that it accepted run here too; messages that stopped it or
//! that it dropped go to the dead-letter list, and the next message runs.

use std::{collections::BTreeMap, sync::Arc};

use celeriac::{Client, Status, TaskContext, TaskError, TaskOptions, Worker};
use serde_json::{Value, json};

use crate::{
    patient_broker,
    server::Server,
    support::{PATIENCE, Running, eventually, final_result},
};

/// List elements by the name of their form.
type Messages = BTreeMap<String, String>;

fn push(server: &Server, message: &str) {
    redis::cmd("LPUSH")
        .arg("celery")
        .arg(message)
        .exec(&mut server.connection())
        .unwrap();
}

fn id(message: &str) -> String {
    let message: Value = serde_json::from_str(message).unwrap();
    let id = message["headers"]["id"].as_str();
    // Protocol 1 has the id in the body, and here also in the correlation id.
    id.or(message["properties"]["correlation_id"].as_str())
        .unwrap()
        .to_owned()
}

fn start(server: &Server) -> (Client, Running) {
    let broker = Arc::new(patient_broker(server));
    let options = TaskOptions::new().parameters(&["article_id", "event_type"]);
    let worker = Worker::builder(broker.clone()).concurrency(1).task(
        "app.jobs.tasks.send_article_notification",
        options,
        async |_: TaskContext, (article, event): (u64, String)| Ok::<_, TaskError>(json!([article, event])),
    );
    (Client::new(broker), Running::start(worker.build(), PATIENCE))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_that_celery_accepts_runs() {
    let messages: Messages = serde_json::from_str(include_str!("../vectors/raw-accepted.json")).unwrap();
    assert_eq!(messages.len(), 17);
    let server = Server::start();
    let (client, worker) = start(&server);
    for (form, message) in &messages {
        push(&server, message);
        let expected = match form.as_str() {
            "ignore_result" => continue,
            "expired" => {
                let meta = final_result(&client, &id(message)).await;
                assert_eq!(meta.status, Status::Revoked, "{form}");
                continue;
            }
            "kwargs" => json!([6, "kw"]),
            "missing article" => json!([999_999, "x"]),
            "unicode" => json!([6, "ü你"]),
            "protocol v1" => json!([6, "v1"]),
            _ => json!([6, "raw"]),
        };
        let meta = final_result(&client, &id(message)).await;
        assert_eq!((meta.status, meta.result), (Status::Success, expected), "{form}");
    }
    // Tasks run one at a time: this task has finished before the later tasks.
    assert_eq!(
        client.result(&id(&messages["ignore_result"])).await.unwrap(),
        None
    );
    let dead: u64 = redis::cmd("LLEN")
        .arg("celeriac.dead")
        .query(&mut server.connection())
        .unwrap();
    assert_eq!(dead, 0);
    worker.stop().await.unwrap();
}

/// Expected result of a message.
enum Expected {
    /// The message is in the dead-letter list, with this reason.
    Dead(&'static str),
    /// The task failed with this exception.
    Failed(&'static str),
    /// The task succeeded.
    Runs,
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_stops_the_worker_and_the_next_message_runs() {
    let mut messages: Messages = serde_json::from_str(include_str!("../vectors/raw-bad.json")).unwrap();
    let good: Messages = serde_json::from_str(include_str!("../vectors/raw-accepted.json")).unwrap();
    let cases = [
        (
            "args dict",
            Expected::Dead("the body is not [args, kwargs, embed]: args is not a list"),
        ),
        (
            "bad base64",
            Expected::Dead("the body is not base64: invalid character at offset 0"),
        ),
        (
            "bad json body",
            Expected::Dead("the body is not JSON: Syntax error at line 1 column 2"),
        ),
        (
            "body not 3-tuple",
            Expected::Dead("the body is not [args, kwargs, embed]: expected three parts"),
        ),
        (
            "eta garbage",
            Expected::Dead("the header eta is not an ISO 8601 time"),
        ),
        (
            "expires garbage",
            Expected::Dead("the header expires is not an ISO 8601 time"),
        ),
        ("missing arg", Expected::Failed("TypeError")),
        (
            "no delivery_info",
            Expected::Dead("properties.delivery_info is missing or has the wrong type"),
        ),
        (
            "no delivery_tag",
            Expected::Dead("properties.delivery_tag is missing or has the wrong type"),
        ),
        (
            "no id",
            Expected::Dead("headers.id is missing or has the wrong type"),
        ),
        (
            "no properties",
            Expected::Dead("properties is missing or has the wrong type"),
        ),
        (
            "no task header",
            Expected::Dead("headers.task is missing or has the wrong type"),
        ),
        (
            "not json at all",
            Expected::Dead("the message is not a JSON object: Syntax error at line 1 column 2"),
        ),
        (
            "pickle content-type",
            Expected::Dead(
                "content type \"application/x-python-serialize\" is not accepted; send the task with the serializer json",
            ),
        ),
        (
            "retries string",
            Expected::Dead("the header retries is not a non-negative integer"),
        ),
        ("timelimit null", Expected::Runs),
        (
            "unknown content-type",
            Expected::Dead(
                "content type \"application/unknown\" is not accepted; send the task with the serializer json",
            ),
        ),
    ];
    let server = Server::start();
    let (client, worker) = start(&server);
    let next = &good["baseline"];
    let connection = &mut server.connection();
    for (form, expected) in cases {
        let message = messages.remove(form).unwrap();
        push(&server, &message);
        push(&server, next);
        let meta = final_result(&client, &id(next)).await;
        assert_eq!(meta.status, Status::Success, "after {form}");
        redis::cmd("DEL")
            .arg(format!("celery-task-meta-{}", id(next)))
            .exec(connection)
            .unwrap();
        match expected {
            Expected::Runs => assert_eq!(final_result(&client, &id(&message)).await.status, Status::Success),
            Expected::Failed(exception) => {
                let meta = final_result(&client, &id(&message)).await;
                assert_eq!(meta.result["exc_type"], exception, "{form}");
            }
            Expected::Dead(reason) => {
                let letter: Option<String> =
                    eventually("the message is in the dead-letter list", async || {
                        redis::cmd("LPOP").arg("celeriac.dead").query(connection).unwrap()
                    })
                    .await;
                let letter: Value = serde_json::from_str(&letter.unwrap()).unwrap();
                assert_eq!(letter["reason"], reason, "{form}");
                assert_eq!(letter["queue"], "celery", "{form}");
                assert_eq!(letter["message"], message, "{form}: the message is unchanged");
            }
        }
    }
    assert!(messages.is_empty(), "no expectation for {:?}", messages.keys());
    worker.stop().await.unwrap();
}
