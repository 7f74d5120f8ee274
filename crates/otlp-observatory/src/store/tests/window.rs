//! Overview and service map of a time window.

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::json;

use super::LIMIT;
use crate::store::{
    Store,
    fixture::{MS, NOW, failed, lasting, of_kind, span, spans},
};

/// Returns a store with two recent requests, one of them failed, one old request, and a task.
fn busy_store() -> Store {
    let store = Store::new(LIMIT);
    let http = [("http.request.method", "GET"), ("http.route", "/articles/{slug}")];
    let request = |trace, duration| {
        of_kind(
            lasting(span(trace, 1, 0, "GET"), duration),
            SpanKind::Server,
            &http,
        )
    };
    let sql = [("db.system.name", "postgresql"), ("db.namespace", "pressroom")];
    let queue = [
        ("messaging.system", "celery"),
        ("messaging.destination.name", "celery"),
        ("messaging.operation.type", "process"),
        ("celery.task_name", "notify"),
        ("celery.state", "RETRY"),
    ];
    let long_ago = NOW - 3_600_000 * MS;
    store.insert_at(spans("app", vec![request(9, MS)]), long_ago);
    store.insert_at(
        spans(
            "app",
            vec![
                request(1, 10 * MS),
                of_kind(lasting(span(1, 2, 1, "SELECT"), 3 * MS), SpanKind::Client, &sql),
                of_kind(span(1, 3, 1, "send"), SpanKind::Producer, &queue[..2]),
                of_kind(
                    span(1, 5, 1, "call"),
                    SpanKind::Client,
                    &[("server.address", "api.example.com")],
                ),
                of_kind(
                    span(1, 6, 1, "call"),
                    SpanKind::Client,
                    &[("server.address", "billing.internal")],
                ),
                failed(request(2, 20 * MS)),
            ],
        ),
        NOW,
    );
    store.insert_at(
        spans(
            "worker",
            vec![of_kind(span(1, 4, 3, "run"), SpanKind::Consumer, &queue)],
        ),
        NOW,
    );
    store.insert_at(
        spans(
            "billing",
            vec![of_kind(span(1, 7, 6, "POST /bill"), SpanKind::Server, &[])],
        ),
        NOW,
    );
    store
}

#[test]
fn the_overview_counts_requests_and_tasks_of_its_window() {
    let overview = busy_store().overview(300_000 * MS, NOW);
    let overview = serde_json::to_value(&overview).expect("JSON");
    let rate = 2.0 / 300.0;
    assert_eq!(
        overview["routes"][0],
        json!({
            "service": "app", "route": "GET /articles/{slug}", "requests": 2, "rate": rate, "errors": 1,
            "p50_ns": 10_000_000, "p95_ns": 20_000_000, "p99_ns": 20_000_000,
        })
    );
    assert_eq!(overview["services"][0]["service"], "app");
    assert_eq!(overview["services"][0]["requests"], 2);
    assert_eq!(overview["services"][0]["last_seen_unix_nano"], NOW.to_string());
    assert_eq!(overview["services"][2]["service"], "worker");
    assert_eq!(overview["services"][2]["p50_ns"], json!(null));
    assert_eq!(
        overview["tasks"],
        json!([{
            "service": "worker", "task": "notify", "states": {"RETRY": 1}, "rate": 1.0 / 300.0,
            "p50_ns": 1_000_000, "p95_ns": 1_000_000, "p99_ns": 1_000_000,
        }])
    );
    let steps = overview["series"]["requests"].as_array().expect("steps");
    assert_eq!(steps.len(), 60);
    assert_eq!(steps[59], 3, "includes the request to billing");
    assert_eq!(overview["series"]["errors"][59], 1);
    assert_eq!(overview["series"]["p95_ns"][59], 20_000_000);
    assert_eq!(overview["series"]["p95_ns"][0], json!(null));
}

#[test]
fn rows_beyond_the_maximum_are_counted() {
    let store = Store::new(LIMIT);
    let request = |number| {
        of_kind(
            span(number, 1, 0, &format!("GET /{number}")),
            SpanKind::Server,
            &[],
        )
    };
    store.insert_at(spans("app", (1..=507).map(request).collect()), NOW);
    let overview = serde_json::to_value(store.overview(60_000 * MS, NOW)).expect("JSON");
    assert_eq!(overview["routes"].as_array().map(Vec::len), Some(500));
    assert_eq!(
        overview["left_out"],
        json!({"services": 0, "routes": 7, "tasks": 0})
    );
}

#[test]
fn only_timestamps_within_the_trusted_delay_count() {
    let store = Store::new(LIMIT);
    let at = |trace, end| {
        let mut request = of_kind(span(trace, 1, 0, "GET"), SpanKind::Server, &[]);
        request.end_time_unix_nano = end;
        request
    };
    let late = NOW - 30_000 * MS;
    store.insert_at(spans("app", vec![at(1, late), at(2, 0), at(3, u64::MAX)]), NOW);
    let overview = serde_json::to_value(store.overview(60_000 * MS, NOW)).expect("JSON");
    let steps = overview["series"]["requests"].as_array().expect("steps");
    assert_eq!((&steps[30], &steps[59]), (&json!(1), &json!(2)));
}

#[test]
fn the_map_contains_the_calls_between_services() {
    let map = serde_json::to_value(busy_store().map(300_000 * MS, NOW, None)).expect("JSON");
    let edges = map["edges"].as_array().expect("edges").iter();
    let mut edges: Vec<_> = edges
        .map(|edge| {
            format!(
                "{} > {} {}/{}",
                edge["from"], edge["to"], edge["calls"], edge["errors"]
            )
            .replace('"', "")
        })
        .collect();
    edges.sort();
    assert_eq!(
        edges,
        [
            "external:clients > service:app 2/1",
            "queue:celery/celery > service:worker 1/0",
            "service:app > database:postgresql/pressroom 1/0",
            "service:app > external:api.example.com 1/0",
            "service:app > queue:celery/celery 1/0",
            "service:app > service:billing 1/0",
        ]
    );
    assert_eq!(
        map["nodes"][0],
        json!({
            "id": "database:postgresql/pressroom", "kind": "database", "name": "pressroom", "system": "postgresql",
            "attributes": {"db.namespace": "pressroom", "db.system.name": "postgresql"},
        })
    );
    let all = serde_json::to_value(busy_store().map(u64::MAX, NOW, None)).expect("JSON");
    assert_eq!(all["edges"][0]["calls"], 3);
}

#[test]
fn a_trace_with_many_spans_has_the_same_callers_as_a_short_one() {
    let store = Store::new(16 << 20);
    let kind = |span, kind| of_kind(span, kind, &[]);
    let many = (10..500).map(|id| span(1, id, 1, "step"));
    let app = [kind(span(1, 1, 0, "GET"), SpanKind::Server)]
        .into_iter()
        .chain(many);
    store.insert_at(spans("app", app.collect()), NOW);
    store.insert_at(
        spans("billing", vec![kind(span(1, 2, 400, "POST"), SpanKind::Server)]),
        NOW,
    );
    let map = serde_json::to_value(store.map(300_000 * MS, NOW, None)).expect("JSON");
    let froms: Vec<_> = map["edges"]
        .as_array()
        .expect("edges")
        .iter()
        .map(|edge| &edge["from"])
        .collect();
    assert_eq!(froms, ["service:app", "external:clients"]);
}
