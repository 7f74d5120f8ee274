//! Metrics: instrument kinds, units, attributes with their types, and the values after a known sequence of
//! events.

use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    metrics::v1::{HistogramDataPoint, Metric, NumberDataPoint, metric::Data, number_data_point},
    trace::v1::span::SpanKind,
};
use serde_json::json;

use super::{APP, Is, TASK, WORKER, assert_attributes};
use crate::{
    end_to_end::installation::{Installation, People, create},
    support::{
        eventually,
        otlp::{integer, text},
        raw,
    },
};

/// Kind of an instrument, as seen in the exported metric.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// A monotonic sum of integers.
    Counter,
    /// A monotonic sum of floats.
    FloatCounter,
    /// A non-monotonic sum of integers.
    UpDown,
    Histogram,
    Gauge,
}

fn kind(metric: &Metric) -> Kind {
    match metric.data.as_ref().unwrap() {
        Data::Sum(sum) => {
            let integers = sum
                .data_points
                .iter()
                .all(|point| matches!(point.value, Some(number_data_point::Value::AsInt(_))));
            match (sum.is_monotonic, integers) {
                (true, true) => Kind::Counter,
                (true, false) => Kind::FloatCounter,
                (false, _) => Kind::UpDown,
            }
        }
        Data::Histogram(_) => Kind::Histogram,
        Data::Gauge(_) => Kind::Gauge,
        other => panic!("{} is {other:?}", metric.name),
    }
}

fn numbers(metric: &Metric) -> &[NumberDataPoint] {
    match metric.data.as_ref().unwrap() {
        Data::Sum(sum) => &sum.data_points,
        Data::Gauge(gauge) => &gauge.data_points,
        other => panic!("{} is {other:?}", metric.name),
    }
}

fn distributions(metric: &Metric) -> &[HistogramDataPoint] {
    match metric.data.as_ref().unwrap() {
        Data::Histogram(histogram) => &histogram.data_points,
        other => panic!("{} is {other:?}", metric.name),
    }
}

fn points(metric: &Metric) -> Vec<&[KeyValue]> {
    match metric.data.as_ref().unwrap() {
        Data::Histogram(histogram) => histogram
            .data_points
            .iter()
            .map(|point| point.attributes.as_slice())
            .collect(),
        _ => numbers(metric)
            .iter()
            .map(|point| point.attributes.as_slice())
            .collect(),
    }
}

/// Returns the integer value of the point with these attributes.
pub(super) fn number(metric: &Metric, having: &[(&str, Is<'_>)]) -> Option<i64> {
    let point = numbers(metric).iter().find(|point| {
        having.iter().all(|(key, is)| match is {
            Is::Text(expected) => text(&point.attributes, key).as_deref() == Some(*expected),
            Is::Integer(expected) => integer(&point.attributes, key) == Some(*expected),
            _ => false,
        })
    })?;
    match point.value? {
        number_data_point::Value::AsInt(number) => Some(number),
        number_data_point::Value::AsDouble(number) => panic!("{}: {number} is not an integer", metric.name),
    }
}

/// Waits for a metric and asserts its kind, its unit and the attributes of every point.
async fn metric(
    installation: &Installation,
    service: &str,
    name: &str,
    expected: (Kind, &str),
    of_each_point: &[(&str, Is<'_>)],
) -> Metric {
    let found = eventually(&format!("{name} of {service}"), async || {
        installation
            .otlp
            .metric(service, name)
            .filter(|metric| !points(metric).is_empty())
    })
    .await;
    assert_eq!(
        (kind(&found), found.unit.as_str()),
        expected,
        "{name} of {service}"
    );
    assert!(!found.description.is_empty(), "{name} has no description");
    for attributes in points(&found) {
        assert_attributes(name, attributes, of_each_point);
    }
    found
}

/// Waits until the point with these attributes has the value `count`.
pub(super) async fn counted(
    installation: &Installation,
    service: &str,
    name: &str,
    having: &[(&str, Is<'_>)],
    count: i64,
) {
    eventually(&format!("{name} {having:?} to be {count}"), async || {
        let metric = installation.otlp.metric(service, name)?;
        (number(&metric, having)? == count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_has_its_kind_unit_and_attributes() {
    let installation = Installation::new().await;
    let (_serve, api) = installation.serve().await;
    let people = People::new(api, &installation).await;
    let wrong = json!({"email": "alice@example.com", "password": "wrong-password"});
    let right = json!({"email": "alice@example.com", "password": "password123"});
    for (body, status) in [(&wrong, 401), (&right, 200), (&right, 200)] {
        let response = raw::request(api, "POST", "/api/login", None, Some(body)).await;
        assert_eq!(response.status, status);
    }
    create(api, &people.alice, "Second", None).await;
    let _worker = installation.worker();
    installation.mails(1).await;
    raw::request(api, "GET", "/api/nowhere", None, None).await;

    check_http(&installation).await;
    check_accounts_and_articles(&installation).await;
    check_tasks(&installation).await;
    check_database(&installation).await;
    check_queues(&installation).await;
    check_process(&installation).await;
    check_exemplars(&installation).await;
}

async fn check_http(installation: &Installation) {
    let login = [
        ("method", Is::Text("POST")),
        ("route", Is::Text("/api/login")),
        ("status", Is::Integer(200)),
    ];
    let plain = [
        ("method", Is::AnyText),
        ("route", Is::AnyText),
        ("status", Is::AnyInteger),
    ];
    let name = "http_requests_total";
    metric(installation, APP, name, (Kind::Counter, "{request}"), &plain).await;
    counted(installation, APP, name, &login, 2).await;
    counted(
        installation,
        APP,
        name,
        &[("route", Is::Text("unmatched")), ("status", Is::Integer(404))],
        1,
    )
    .await;
    let name = "http_request_duration_seconds";
    let seconds = metric(installation, APP, name, (Kind::Histogram, "s"), &plain).await;
    let of_login = distributions(&seconds)
        .iter()
        .find(|point| {
            text(&point.attributes, "route").as_deref() == Some("/api/login")
                && integer(&point.attributes, "status") == Some(200)
        })
        .unwrap();
    assert_eq!(of_login.count, 2);
    assert!(of_login.sum.unwrap() > 0.0 && of_login.sum.unwrap() < 60.0);
    assert_eq!(of_login.explicit_bounds.first(), Some(&0.005));

    metric(
        installation,
        APP,
        "http.server.request.duration",
        (Kind::Histogram, "s"),
        &[
            ("http.request.method", Is::AnyText),
            ("url.scheme", Is::Text("http")),
            ("http.response.status_code", Is::AnyInteger),
            ("network.protocol.version", Is::Text("1.1")),
        ],
    )
    .await;
    let name = "http.server.active_requests";
    let of_each = [
        ("http.request.method", Is::AnyText),
        ("url.scheme", Is::Text("http")),
    ];
    metric(installation, APP, name, (Kind::UpDown, "{request}"), &of_each).await;
    for method in ["GET", "POST"] {
        counted(
            installation,
            APP,
            name,
            &[("http.request.method", Is::Text(method))],
            0,
        )
        .await;
    }
}

async fn check_accounts_and_articles(installation: &Installation) {
    let name = "auth.login.attempts";
    metric(
        installation,
        APP,
        name,
        (Kind::Counter, "{attempt}"),
        &[("status", Is::AnyText)],
    )
    .await;
    counted(installation, APP, name, &[("status", Is::Text("success"))], 2).await;
    let failed = [
        ("status", Is::Text("failed")),
        ("reason", Is::Text("invalid_credentials")),
    ];
    counted(installation, APP, name, &failed, 1).await;
    let name = "articles.created";
    let author = [("author_id", Is::Text("1"))];
    metric(installation, APP, name, (Kind::Counter, "{article}"), &author).await;
    counted(installation, APP, name, &author, 2).await;
}

async fn check_tasks(installation: &Installation) {
    let name = "celery_tasks_total";
    let success = [("name", Is::Text(TASK)), ("status", Is::Text("success"))];
    metric(installation, WORKER, name, (Kind::Counter, "{task}"), &success).await;
    counted(installation, WORKER, name, &success, 1).await;
    let seconds = metric(
        installation,
        WORKER,
        "celery_task_duration_seconds",
        (Kind::Histogram, "s"),
        &[("name", Is::Text(TASK))],
    )
    .await;
    assert_eq!(distributions(&seconds)[0].count, 1);

    let of_messages = [
        ("messaging.system", Is::Text("celery")),
        ("messaging.operation.name", Is::AnyText),
        ("messaging.destination.name", Is::Text("celery")),
    ];
    for (service, name, expected) in [
        (
            APP,
            "messaging.client.sent.messages",
            (Kind::Counter, "{message}"),
        ),
        (
            WORKER,
            "messaging.client.consumed.messages",
            (Kind::Counter, "{message}"),
        ),
        (WORKER, "messaging.process.duration", (Kind::Histogram, "s")),
    ] {
        metric(installation, service, name, expected, &of_messages).await;
    }
}

async fn check_database(installation: &Installation) {
    for service in [APP, WORKER] {
        metric(
            installation,
            service,
            "db.client.operation.duration",
            (Kind::Histogram, "s"),
            &[
                ("db.system.name", Is::AnyText),
                ("db.operation.name", Is::AnyText),
                ("db.namespace", Is::AnyText),
                ("server.address", Is::Text("127.0.0.1")),
                ("server.port", Is::AnyInteger),
            ],
        )
        .await;
        let pool = ("db.client.connection.pool.name", Is::AnyText);
        let state = ("db.client.connection.state", Is::AnyText);
        let counts = metric(
            installation,
            service,
            "db.client.connection.count",
            (Kind::UpDown, "{connection}"),
            &[pool, state],
        )
        .await;
        for state in ["idle", "used"] {
            let found = number(&counts, &[("db.client.connection.state", Is::Text(state))]);
            assert!(found.is_some_and(|count| count >= 0), "{state}: {found:?}");
        }
        for (name, unit) in [
            ("db.client.connection.max", "{connection}"),
            ("db.client.connection.pending_requests", "{request}"),
        ] {
            metric(installation, service, name, (Kind::UpDown, unit), &[pool]).await;
        }
        let name = "db.client.connection.create_time";
        metric(installation, service, name, (Kind::Histogram, "s"), &[pool]).await;
    }
    // Reads by key share their connections, so callers neither wait for one nor return it.
    let pool = "db.client.connection.pool.name";
    for name in ["db.client.connection.wait_time", "db.client.connection.use_time"] {
        let is_any = [(pool, Is::AnyText)];
        metric(installation, APP, name, (Kind::Histogram, "s"), &is_any).await;
        eventually(&format!("{name} of the writes"), async || {
            let sent = installation.otlp.metrics(APP, name);
            let pools: Vec<_> = sent
                .iter()
                .flat_map(distributions)
                .filter_map(|point| text(&point.attributes, pool))
                .collect();
            assert!(!pools.iter().any(|pool| pool == "postgres.reads"), "{pools:?}");
            pools.iter().any(|pool| pool == "postgres.writes").then_some(())
        })
        .await;
    }
}

/// Asserts that every exemplar refers to the span whose work was measured.
async fn check_exemplars(installation: &Installation) {
    for (service, name, kind) in [
        (APP, "http.server.request.duration", SpanKind::Server),
        (APP, "http_request_duration_seconds", SpanKind::Server),
        (APP, "db.client.operation.duration", SpanKind::Client),
        (WORKER, "messaging.process.duration", SpanKind::Consumer),
        (WORKER, "celery_task_duration_seconds", SpanKind::Consumer),
    ] {
        eventually(&format!("exemplars of {name} and their spans"), async || {
            let sent = installation.otlp.metrics(service, name);
            let points = sent.iter().flat_map(distributions);
            let exemplars: Vec<_> = points.flat_map(|point| &point.exemplars).collect();
            let spans = installation.otlp.spans();
            let each_has_its_span = exemplars.iter().all(|exemplar| {
                spans.iter().any(|(from, span)| {
                    from == service
                        && span.trace_id == exemplar.trace_id
                        && span.span_id == exemplar.span_id
                        && span.kind() == kind
                })
            });
            (!exemplars.is_empty() && each_has_its_span).then_some(())
        })
        .await;
    }
}

async fn check_queues(installation: &Installation) {
    let queue = [("messaging.destination.name", Is::Text("celery"))];
    for (name, unit) in [
        ("celery.queue.waiting", "{message}"),
        ("celery.queue.unacknowledged", "{message}"),
    ] {
        metric(installation, APP, name, (Kind::Gauge, unit), &queue).await;
    }
    // The age of the oldest message is exported while messages wait, which they do without a worker. The age of
    // the outbox is exported after its first count.
    let without_worker = Installation::new().await;
    let (_serve, api) = without_worker.serve().await;
    let token = raw::register(api, "alice@example.com").await;
    create(api, &token, "Waits", None).await;
    let name = "celery.queue.oldest_age";
    metric(&without_worker, APP, name, (Kind::Gauge, "s"), &queue).await;
    metric(&without_worker, APP, "outbox.tasks", (Kind::Gauge, "{task}"), &[]).await;
    metric(&without_worker, APP, "outbox.age", (Kind::Gauge, "s"), &[]).await;
}

async fn check_process(installation: &Installation) {
    for service in [APP, WORKER] {
        metric(
            installation,
            service,
            "process.cpu.time",
            (Kind::FloatCounter, "s"),
            &[],
        )
        .await;
        let memory = metric(
            installation,
            service,
            "process.memory.usage",
            (Kind::UpDown, "By"),
            &[],
        )
        .await;
        assert!(number(&memory, &[]).unwrap() > 1 << 20);
        eventually("metrics of the tokio runtime", async || {
            let names = installation.otlp.metric_names(service);
            names.iter().any(|name| name.starts_with("tokio.")).then_some(())
        })
        .await;
    }
}
