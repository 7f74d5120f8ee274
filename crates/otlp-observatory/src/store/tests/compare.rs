//! Comparison of traces and of spans of time.

use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use serde_json::{Value, json};

use super::{LIMIT, id};
use crate::store::{
    Store,
    fixture::{MS, NOW, failed, lasting, of_kind, span, spans},
};

fn json_of(value: impl serde::Serialize) -> Value {
    serde_json::to_value(value).expect("JSON")
}

#[test]
fn spans_of_two_traces_are_compared_by_path() {
    let store = Store::new(LIMIT);
    let trace = |trace, queries: u64| {
        let mut all = vec![lasting(span(trace, 1, 0, "GET /"), queries * 10 * MS)];
        all.extend((0..queries).map(|query| lasting(span(trace, 10 + query, 1, "SELECT"), 2 * MS)));
        all
    };
    let mut second = trace(2, 3);
    second.push(failed(span(2, 2, 1, "render")));
    store.insert_at(spans("app", trace(1, 1)), NOW);
    store.insert_at(spans("app", second), NOW);
    let compared = json_of(store.compare_traces(id(1), id(2)).expect("two traces"));
    let row = |depth: u64, name: &str, a: Option<[u64; 3]>, b: Option<[u64; 3]>| {
        let side = |side: Option<[u64; 3]>| side.map(|[count, errors, total]| json!([count, errors, total]));
        json!([depth, name, side(a), side(b)])
    };
    let rows: Vec<_> = compared["spans"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| {
            let side = |side: &Value| {
                side.as_object()
                    .map(|side| json!([side["count"], side["errors"], side["total_ns"]]))
            };
            json!([row["depth"], row["name"], side(&row["a"]), side(&row["b"])])
        })
        .collect();
    assert_eq!(
        rows,
        [
            row(0, "GET /", Some([1, 0, 10 * MS]), Some([1, 0, 30 * MS])),
            row(1, "SELECT", Some([1, 0, 2 * MS]), Some([3, 0, 6 * MS])),
            row(1, "render", None, Some([1, 1, MS])),
        ]
    );
    assert_eq!(compared["a"]["duration_ns"], 10 * MS);
    assert_eq!(compared["omitted"], 0);
    assert_eq!(compared["spans"][0]["b"]["span_id"], "0000000000000001");
}

#[test]
fn a_comparison_of_large_traces_is_bounded() {
    let store = Store::new(LIMIT * 16);
    let wide = (1..=600).map(|id| span(1, id, 0, &format!("step {id}")));
    let deep = (1..=600).map(|id| span(2, id, id - 1, &format!("step {id}")));
    store.insert_at(spans("app", wide.collect()), NOW);
    store.insert_at(spans("app", deep.collect()), NOW);
    let compared = json_of(store.compare_traces(id(1), id(2)).expect("two traces"));
    assert_eq!(compared["spans"].as_array().map(Vec::len), Some(500));
    assert_eq!(compared["omitted"], 200);
}

#[test]
fn routes_and_tasks_are_compared_before_and_after_a_moment() {
    let store = Store::new(LIMIT);
    let at = NOW + 10_000 * MS;
    let mut trace = 0;
    let mut insert = |one: Span, time: u64, duration: u64| {
        trace += 1;
        let one = Span {
            trace_id: crate::store::fixture::trace_id(trace),
            start_time_unix_nano: time - duration,
            end_time_unix_nano: time,
            ..one
        };
        store.insert_at(spans("app", vec![one]), time);
    };
    let route = |route: &str| {
        let attributes = [("http.request.method", "GET"), ("http.route", route)];
        of_kind(span(1, 1, 0, "GET"), SpanKind::Server, &attributes)
    };
    let task = of_kind(
        span(1, 1, 0, "run"),
        SpanKind::Consumer,
        &[("celery.task_name", "mail")],
    );
    for number in 1..=4 {
        insert(route("/a"), at - number * 1_000 * MS, 100 * MS);
    }
    insert(failed(route("/a")), at, 300 * MS);
    insert(route("/a"), at + 1_000 * MS, 200 * MS);
    insert(route("/old"), at - 9_000 * MS, 100 * MS);
    insert(route("/new"), at + 500 * MS, 100 * MS);
    insert(task, at + 1_500 * MS, 100 * MS);
    // Outside of the window.
    insert(route("/a"), at - 11_000 * MS, 100 * MS);

    let compared = json_of(store.compare_times(at, 10_000 * MS, at + 2_000 * MS));
    assert_eq!(
        (&compared["before_seconds"], &compared["after_seconds"]),
        (&json!(10.0), &json!(2.0))
    );
    let operations = compared["operations"].as_array().expect("operations");
    let names: Vec<_> = operations
        .iter()
        .map(|one| one["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(names, ["GET /a", "GET /new", "GET /old", "mail"]);
    assert_eq!(
        operations[0],
        json!({
            "service": "app", "kind": "request", "name": "GET /a",
            "before": {"count": 4, "rate": 0.4, "errors": 0, "p50_ns": 100 * MS, "p95_ns": 100 * MS, "p99_ns": 100 * MS},
            "after": {"count": 2, "rate": 1.0, "errors": 1, "p50_ns": 200 * MS, "p95_ns": 300 * MS, "p99_ns": 300 * MS},
            "rate_change": 1.5, "p50_change": 1.0, "p95_change": 2.0,
        })
    );
    assert_eq!(
        (&operations[1]["before"], &operations[1]["p95_change"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(operations[2]["after"], Value::Null);
    assert_eq!(operations[3]["kind"], "task");
}
