//! Rust sends, Python runs, Rust reads the result.

use std::{sync::Arc, time::Duration};

use celeriac::{Canvas, Client, Compression, ExactNumber, ResultMeta, Signature, Status, chunks};
use serde_json::json;

use crate::{
    celery::{Python, PythonWorker},
    patient_broker,
    server::Server,
    support::{PATIENCE, eventually, final_result},
    with_every_celery,
};

with_every_celery! {
    a_task_runs_and_its_result_is_found
    a_task_runs_once_for_each_item
    arguments_arrive_as_they_were_sent
    a_failure_names_the_exception_raised
    a_task_is_retried_until_it_succeeds_or_fails_with_the_cause
    expiry_and_countdown_are_respected
    lower_priority_numbers_run_first
    time_limits_are_respected
    headers_are_passed_on
    compressed_messages_are_run_and_unreadable_results_are_errors
}

struct Fixture {
    server: Server,
    client: Client,
    celery: String,
}

impl Fixture {
    fn new(python: &Python) -> Self {
        let server = Server::start();
        Self {
            client: Client::new(Arc::new(patient_broker(&server))),
            celery: python.celery.clone(),
            server,
        }
    }

    async fn worker(&self, python: &Python) -> PythonWorker {
        python.worker(&self.server.url(), &[], &[]).await
    }

    /// Sends a task and waits for its result.
    async fn call(&self, signature: Signature) -> ResultMeta {
        let id = self.client.send(signature).await.unwrap();
        final_result(&self.client, &id).await
    }

    fn journal(&self) -> Vec<String> {
        redis::cmd("LRANGE")
            .arg("journal")
            .arg(0)
            .arg(-1)
            .query(&mut self.server.connection())
            .unwrap()
    }
}

async fn a_task_runs_once_for_each_item(python: Python) {
    let fixture = Fixture::new(&python);
    let _worker = fixture.worker(&python).await;
    let pairs = || [[1, 1], [2, 2], [3, 3]].map(|pair| json!(pair));
    let canvases: [(Canvas, _); 4] = [
        (Signature::map("total", pairs()).into(), json!([2, 4, 6])),
        (Signature::starmap("add", pairs()).into(), json!([2, 4, 6])),
        (chunks("add", pairs(), 2), json!([[2, 4], [6]])),
        (
            chunks("add", pairs(), 2).then(Signature::map("total", pairs())),
            json!([2, 4, 6]),
        ),
    ];
    for (canvas, expected) in canvases {
        let result = fixture.client.apply(canvas).await.unwrap();
        assert_eq!(
            result.wait(PATIENCE).await,
            Ok(expected),
            "Celery {}",
            fixture.celery
        );
    }
    let chained = Signature::new("add").arg(1).then(Signature::new("add").arg(10));
    let result = fixture.client.apply(chained.args([json!(100)])).await.unwrap();
    assert_eq!(result.wait(PATIENCE).await, Ok(json!(111)));
}

async fn a_task_runs_and_its_result_is_found(python: Python) {
    let fixture = Fixture::new(&python);
    let worker = fixture.worker(&python).await;
    for (signature, sum) in [
        (Signature::new("add").arg(2).arg(3), 5),
        (Signature::new("add").arg(2).kwarg("b", -40), -38),
        (Signature::new("add").kwarg("a", 1).kwarg("b", 1), 2),
    ] {
        let meta = fixture.call(signature).await;
        assert_eq!(
            (meta.status, meta.result),
            (Status::Success, json!(sum)),
            "Celery {}",
            fixture.celery
        );
    }
    let ignored = Signature::new("note").arg("x").ignore_result(true);
    let ignored = fixture.client.send(ignored).await.unwrap();
    eventually("the task runs", async || {
        (fixture.journal() == ["x"]).then_some(())
    })
    .await;
    // Tasks run in order: when a later task has finished, the first task has too.
    fixture.call(Signature::new("add").arg(1).arg(1)).await;
    assert_eq!(
        fixture.client.result(&ignored).await.unwrap(),
        None,
        "Celery {}",
        fixture.celery
    );
    worker.stop().await;
}

async fn arguments_arrive_as_they_were_sent(python: Python) {
    let fixture = Fixture::new(&python);
    let worker = fixture.worker(&python).await;
    let values = [
        json!([
            null,
            true,
            "",
            "\0\n\"\\",
            "ü你🦀",
            "\u{2028}",
            "x".repeat(100_000)
        ]),
        json!([[], {}, [[], {"": []}, [[[1]]]], {"ü": {"b": 1, "a": 2}}]),
        json!([0, -1, (1_i64 << 53) + 1, i64::MIN, i64::MAX, u64::MAX]),
        json!([
            0.1,
            0.1 + 0.2,
            1.0 / 3.0,
            1e300,
            5e-324,
            -0.0,
            f64::MAX,
            123_456_789.123_456_79,
            3.0
        ]),
    ];
    for value in values {
        let meta = fixture
            .call(
                Signature::new("echo")
                    .args(value.as_array().unwrap().clone())
                    .kwarg("clé", value.clone()),
            )
            .await;
        assert_eq!(
            meta.result,
            json!({"args": value, "kwargs": {"clé": value}}),
            "Celery {}",
            fixture.celery
        );
    }
    let meta = fixture.call(Signature::new("no_number")).await;
    let number: ExactNumber = serde_json::from_value(meta.result).unwrap();
    assert_eq!((meta.status, number.as_str()), (Status::Success, "NaN"));
    let large: ExactNumber = "1180591620717411303424".parse().unwrap();
    let sent = serde_json::to_value(&large).unwrap();
    let meta = fixture.call(Signature::new("pass").arg(sent)).await;
    assert_eq!(serde_json::from_value::<ExactNumber>(meta.result).unwrap(), large);
    worker.stop().await;
}

async fn compressed_messages_are_run_and_unreadable_results_are_errors(python: Python) {
    let fixture = Fixture::new(&python);
    let compressed = fixture.client.clone().compression(Compression::Zlib);
    let value = "x".repeat(3000);
    let id = compressed
        .send(Signature::new("pass").arg(value.as_str()))
        .await
        .unwrap();
    let stored: Vec<u8> = redis::cmd("LINDEX")
        .arg("celery")
        .arg(0)
        .query(&mut fixture.server.connection())
        .unwrap();
    assert!(stored.len() < 3000, "{} bytes", stored.len());
    let worker = fixture.worker(&python).await;
    assert_eq!(fixture.client.wait(id, PATIENCE).await, Ok(json!(value)));
    worker.stop().await;
    if python.celery.starts_with("5.7") {
        let env = [("TEST_CELERY_RESULT_COMPRESSION", "gzip")];
        let worker = python.worker(&fixture.server.url(), &[], &env).await;
        let id = fixture
            .client
            .send(Signature::new("pass").arg(value.as_str()))
            .await
            .unwrap();
        assert_eq!(fixture.client.wait(&id, PATIENCE).await, Ok(json!(value)));
        let statuses = fixture.client.statuses(&[id]).await.unwrap();
        assert_eq!(statuses, [Some(Status::Success)]);
        worker.stop().await;
    }
    let env = [("TEST_CELERY_RESULT_SERIALIZER", "pickle")];
    let worker = python.worker(&fixture.server.url(), &[], &env).await;
    let id = fixture
        .client
        .send(Signature::new("add").arg(1).arg(2))
        .await
        .unwrap();
    let error = fixture.client.wait(&id, PATIENCE).await.unwrap_err();
    let expected = "a result cannot be read: the result is serialised as pickle, and only JSON is accepted";
    assert_eq!(error.to_string(), expected);
    assert_eq!(
        fixture.client.result(&id).await.unwrap_err().to_string(),
        expected
    );
    worker.stop().await;
}

async fn a_failure_names_the_exception_raised(python: Python) {
    let fixture = Fixture::new(&python);
    let worker = fixture.worker(&python).await;
    let cases = [
        (
            Signature::new("broken").arg("no more"),
            "app",
            "OutOfStock",
            json!(["no more"]),
        ),
        (
            Signature::new("key_error").arg("k"),
            "builtins",
            "KeyError",
            json!(["k"]),
        ),
        (
            Signature::new("nope.task"),
            "celery.exceptions",
            "NotRegistered",
            json!(["nope.task"]),
        ),
    ];
    for (signature, module, exception, arguments) in cases {
        let meta = fixture.call(signature).await;
        assert_eq!(
            meta.status,
            Status::Failure,
            "Celery {}: {exception}",
            fixture.celery
        );
        assert_eq!(
            meta.result,
            json!({"exc_type": exception, "exc_message": arguments, "exc_module": module}),
            "Celery {}",
            fixture.celery
        );
        if exception != "NotRegistered" {
            let traceback = meta.traceback.unwrap();
            assert!(
                traceback.contains("Traceback (most recent call last)"),
                "{traceback}"
            );
            assert!(traceback.contains(exception), "{traceback}");
        }
    }
    worker.stop().await;
}

async fn a_task_is_retried_until_it_succeeds_or_fails_with_the_cause(python: Python) {
    let fixture = Fixture::new(&python);
    let worker = fixture.worker(&python).await;
    let meta = fixture.call(Signature::new("flaky").arg(2)).await;
    assert_eq!(
        (meta.status, meta.result),
        (Status::Success, json!(2)),
        "Celery {}",
        fixture.celery
    );
    let meta = fixture.call(Signature::new("flaky").arg(1000)).await;
    assert_eq!(
        (meta.status, &meta.result["exc_type"]),
        (Status::Failure, &json!("OutOfStock")),
        "Celery {}",
        fixture.celery
    );
    worker.stop().await;
}

async fn expiry_and_countdown_are_respected(python: Python) {
    let fixture = Fixture::new(&python);
    let worker = fixture.worker(&python).await;
    let past = "2020-01-01T00:00:00Z".parse().unwrap();
    let meta = fixture
        .call(Signature::new("note").arg("expired").expires(past))
        .await;
    assert_eq!(meta.status, Status::Revoked, "Celery {}", fixture.celery);
    assert_eq!(meta.result["exc_message"], json!(["expired"]));
    let countdown = Duration::from_millis(1500);
    let begin = std::time::Instant::now();
    let late = Signature::new("note").arg("late").countdown(countdown);
    let late = fixture.client.send(late).await.unwrap();
    fixture.call(Signature::new("note").arg("soon")).await;
    final_result(&fixture.client, &late).await;
    assert!(begin.elapsed() >= countdown, "Celery {}", fixture.celery);
    assert_eq!(fixture.journal(), ["soon", "late"], "Celery {}", fixture.celery);
    worker.stop().await;
}

async fn lower_priority_numbers_run_first(python: Python) {
    let fixture = Fixture::new(&python);
    for (line, priority) in [
        ("last", 9),
        ("third", 6),
        ("second", 3),
        ("first a", 0),
        ("first b", 2),
    ] {
        let note = Signature::new("note").arg(line).priority(priority);
        fixture.client.send(note).await.unwrap();
    }
    let worker = fixture.worker(&python).await;
    eventually("all tasks have run", async || {
        (fixture.journal().len() == 5).then_some(())
    })
    .await;
    assert_eq!(
        fixture.journal(),
        ["first a", "first b", "second", "third", "last"],
        "Celery {}",
        fixture.celery
    );
    worker.stop().await;
}

async fn time_limits_are_respected(python: Python) {
    let fixture = Fixture::new(&python);
    // Only processes can be terminated from outside.
    let pool = ["--pool", "prefork", "--concurrency", "1"];
    let worker = python.worker(&fixture.server.url(), &pool, &[]).await;
    let sleeps = || Signature::new("sleeps").arg(100);
    for (signature, exception) in [
        (
            sleeps().soft_time_limit(Duration::from_secs(1)),
            "SoftTimeLimitExceeded",
        ),
        (sleeps().time_limit(Duration::from_secs(1)), "TimeLimitExceeded"),
    ] {
        let meta = fixture.call(signature).await;
        assert_eq!(meta.result["exc_type"], exception, "Celery {}", fixture.celery);
    }
    worker.stop().await;
}

async fn headers_are_passed_on(python: Python) {
    let fixture = Fixture::new(&python);
    let worker = fixture.worker(&python).await;
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let signature = Signature::new("describe")
        .header("traceparent", traceparent)
        .header("x-tenant", json!({"id": 7}));
    let meta = fixture.call(signature).await;
    let headers = &meta.result["headers"];
    assert_eq!(headers["traceparent"], traceparent, "Celery {}", fixture.celery);
    assert_eq!(headers["x-tenant"], json!({"id": 7}), "Celery {}", fixture.celery);
    worker.stop().await;
}
