//! The trace of a task from the sender to the worker, and the gauges of pools and queues.

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use otel_service::{
    ConnectionCounts, Database, Messaging, Outcome, Processed, QueueDepth, RedisServer, Span, TaskMessage,
};
use std::time::Duration;

use crate::support::{self, Behaviour, Problem, number, shown, value};

const MESSAGE: TaskMessage<'static> = TaskMessage {
    task: "app.jobs.notify",
    id: "task-1",
    queue: "celery",
};

async fn run_task(messaging: &Messaging, headers: &[(String, String)], outcome: Outcome) {
    let exception = (outcome != Outcome::Success)
        .then(|| ("SmtpError".into(), "no mail for alice@example.com".to_owned()));
    let result = messaging
        .process(
            &MESSAGE,
            2,
            otel_service::extract_context(headers.iter().map(|(name, value)| (&**name, &**value))),
            Span::internal("job.send_notification").run(async {
                tokio::task::yield_now().await;
                Ok::<_, Problem>(5)
            }),
            |_| Processed { outcome, exception },
        )
        .await;
    assert_eq!(result.unwrap(), 5);
}

fn scenario() {
    let telemetry = otel_service::init(support::SERVICE).unwrap();
    let messaging = Messaging::new("celery@here").with_redis(RedisServer {
        address: "redis.internal".to_owned(),
        port: 6379,
        database: 1,
    });
    messaging.observe_queues(|| {
        vec![QueueDepth {
            queue: "celery".to_owned(),
            waiting: 4,
            unacknowledged: 1,
            oldest: Some(Duration::from_millis(1500)),
        }]
    });
    let database = Database::new("postgresql", "pressroom".to_owned(), None);
    for (pool, idle) in [("statements", 3), ("transactions", 5)] {
        database.observe_connections(pool, move || ConnectionCounts {
            idle,
            used: 2,
            max: 8,
            pending: 1,
        });
    }
    support::block_on(async {
        let sent = Span::internal("article.create")
            .run(async {
                let sending = messaging.send(&MESSAGE, None);
                let headers = sending.headers();
                sending.finish(Ok(()));
                Ok::<_, Problem>(headers)
            })
            .await
            .unwrap();
        assert_eq!(sent.len(), 1, "{sent:?}");
        assert_eq!(sent[0].0, "traceparent");
        run_task(&messaging, &sent, Outcome::Success).await;
        run_task(&messaging, &[], Outcome::Retry).await;

        let parent = otel_service::extract_context([(
            "Traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )]);
        let failed = messaging.send(&MESSAGE, Some(&parent));
        let problem = Problem::Broken("connection refused".to_owned());
        failed.finish(Err(&problem));

        messaging.command("LPUSH", "LPUSH ? ?").finish(Ok(()));
    });
    telemetry.shutdown(Duration::from_secs(10)).unwrap();
}

#[test]
fn sending_and_running_a_task_are_one_trace() {
    let Some(run) = support::run(
        "tasks::sending_and_running_a_task_are_one_trace",
        Behaviour::Takes,
        &[],
        scenario,
    ) else {
        return;
    };
    let received = run.received;
    let business = received.span("article.create");
    let sends: Vec<_> = named(&received, "celery.send_task");
    let send = sends
        .iter()
        .find(|span| span.parent_span_id == business.span_id)
        .unwrap();
    assert_eq!(send.kind(), SpanKind::Producer);
    assert_eq!(
        shown(&send.attributes),
        [
            "celery.task_name=\"app.jobs.notify\"",
            "messaging.destination.name=\"celery\"",
            "messaging.message.id=\"task-1\"",
            "messaging.operation.name=\"send_task\"",
            "messaging.operation.type=\"send\"",
            "messaging.system=\"celery\"",
        ]
    );
    let failed = sends
        .iter()
        .find(|span| support::hex(&span.trace_id) == "0af7651916cd43dd8448eb211c80319c")
        .unwrap();
    assert_eq!(failed.status.as_ref().unwrap().code(), StatusCode::Error);
    assert_eq!(failed.events[0].name, "exception");

    let runs = named(&received, "celery.run");
    let done = runs
        .iter()
        .find(|span| span.parent_span_id == send.span_id)
        .unwrap();
    assert_eq!(done.kind(), SpanKind::Consumer);
    assert_eq!(done.trace_id, business.trace_id);
    assert!(done.events.is_empty());
    assert_eq!(
        shown(&done.attributes),
        [
            "celery.hostname=\"celery@here\"",
            "celery.retries=2",
            "celery.state=\"SUCCESS\"",
            "celery.task_name=\"app.jobs.notify\"",
            "messaging.destination.name=\"celery\"",
            "messaging.message.id=\"task-1\"",
            "messaging.operation.name=\"run\"",
            "messaging.operation.type=\"process\"",
            "messaging.system=\"celery\"",
        ]
    );
    let jobs = named(&received, "job.send_notification");
    assert!(jobs.iter().any(|job| job.parent_span_id == done.span_id));
    let retried = runs.iter().find(|span| span.parent_span_id.is_empty()).unwrap();
    assert_eq!(
        value(&retried.attributes, "celery.state").as_deref(),
        Some("\"RETRY\"")
    );
    assert_eq!(
        value(&retried.events[0].attributes, "exception.message").as_deref(),
        Some("\"no mail for al***@example.com\"")
    );

    let command = received.span("LPUSH");
    assert_eq!(command.kind(), SpanKind::Client);
    assert_eq!(
        shown(&command.attributes),
        [
            "db.namespace=\"1\"",
            "db.operation.name=\"LPUSH\"",
            "db.query.summary=\"LPUSH\"",
            "db.query.text=\"LPUSH ? ?\"",
            "db.system.name=\"redis\"",
            "server.address=\"redis.internal\"",
            "server.port=6379",
        ]
    );

    assert_eq!(
        points(&received, "celery_tasks_total"),
        [
            "name=\"app.jobs.notify\" status=\"retry\" 1",
            "name=\"app.jobs.notify\" status=\"success\" 1",
        ]
    );
    let seconds = received.histogram("celery_task_duration_seconds");
    assert_eq!(seconds.len(), 1);
    assert_eq!(seconds[0].count, 2);
    assert_eq!(
        points(&received, "messaging.client.sent.messages"),
        [
            "error.type=\"problem.broken\" messaging.destination.name=\"celery\" \
             messaging.operation.name=\"send_task\" messaging.system=\"celery\" 1",
            "messaging.destination.name=\"celery\" messaging.operation.name=\"send_task\" \
             messaging.system=\"celery\" 1",
        ]
    );
    assert_eq!(points(&received, "messaging.client.consumed.messages").len(), 1);
    assert_eq!(received.histogram("messaging.process.duration").len(), 2);

    for (name, expected) in [
        ("celery.queue.waiting", 4.0),
        ("celery.queue.unacknowledged", 1.0),
        ("celery.queue.oldest_age", 1.5),
    ] {
        let numbers = received.numbers(name);
        assert_eq!(numbers.len(), 1, "{name}");
        assert!((number(&numbers[0]) - expected).abs() < f64::EPSILON, "{name}");
    }
    assert_eq!(
        points(&received, "db.client.connection.count"),
        [
            "db.client.connection.pool.name=\"statements\" db.client.connection.state=\"idle\" 3",
            "db.client.connection.pool.name=\"statements\" db.client.connection.state=\"used\" 2",
            "db.client.connection.pool.name=\"transactions\" db.client.connection.state=\"idle\" 5",
            "db.client.connection.pool.name=\"transactions\" db.client.connection.state=\"used\" 2",
        ]
    );
}

fn named<'a>(
    received: &'a support::Received,
    name: &str,
) -> Vec<&'a opentelemetry_proto::tonic::trace::v1::Span> {
    received.spans.iter().filter(|span| span.name == name).collect()
}

fn points(received: &support::Received, name: &str) -> Vec<String> {
    let mut points: Vec<String> = received
        .numbers(name)
        .iter()
        .map(|point| format!("{} {}", shown(&point.attributes).join(" "), number(point)))
        .collect();
    points.sort();
    points
}
