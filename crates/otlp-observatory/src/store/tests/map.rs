//! Old semantic conventions on the map and in filters, and the bounds of the map.

use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use serde_json::{Value, json};

use super::LIMIT;
use crate::store::{
    Attribute, Store, TraceSearch,
    fixture::{MS, NOW, of_kind, span, spans},
};

fn map_of(store: &Store, service: Option<&str>) -> Value {
    serde_json::to_value(store.map(300_000 * MS, NOW, service)).expect("JSON")
}

/// Returns the number of traces with all attributes of `filters`, an object.
fn matches(store: &Store, filters: &Value) -> usize {
    let filters = filters.as_object().expect("an object").iter();
    let attributes = filters.map(|(key, value)| format!("{key}={}", value.as_str().expect("text")));
    let search = TraceSearch {
        attributes: attributes
            .map(|filter| Attribute::parse(&filter).expect("a filter"))
            .collect(),
        limit: 10,
        ..TraceSearch::default()
    };
    store.search_traces(&search).entries.len()
}

#[test]
fn old_conventions_make_the_same_nodes_whose_filters_find_the_trace() {
    use SpanKind::{Client, Consumer, Producer};
    for (kind, attributes, id) in [
        (
            Client,
            &[("db.system", "sqlite"), ("db.statement", "SELECT 1")][..],
            "database:sqlite/sqlite",
        ),
        (
            Client,
            &[("db.system", "redis"), ("db.name", "1")],
            "database:redis/1",
        ),
        (
            Client,
            &[("net.peer.name", "a.example"), ("net.peer.ip", "::1")],
            "external:a.example",
        ),
        (
            Client,
            &[("http.url", "http://a.example:81/x")],
            "external:a.example",
        ),
        (
            Client,
            &[("url.full", "https://u@a.example?x")],
            "external:a.example",
        ),
        (
            Client,
            &[("peer.service", "payments"), ("server.address", "::1")],
            "external:payments",
        ),
        (Client, &[("service.peer.name", "payments")], "external:payments"),
        (
            Client,
            &[("net.sock.peer.addr", "192.0.2.1")],
            "external:192.0.2.1",
        ),
        (
            Producer,
            &[("messaging.system", "kafka"), ("messaging.destination", "orders")],
            "queue:kafka/orders",
        ),
        (
            Consumer,
            &[("messaging.system", "kafka"), ("messaging.destination", "orders")],
            "queue:kafka/orders",
        ),
        (Producer, &[("messaging.system", "kafka")], "queue:kafka/kafka"),
    ] {
        let store = Store::new(LIMIT);
        store.insert_at(
            spans("s", vec![of_kind(span(1, 1, 0, "q"), kind, attributes)]),
            NOW,
        );
        let map = map_of(&store, None);
        let node = map["nodes"]
            .as_array()
            .expect("nodes")
            .iter()
            .find(|node| node["id"] == id);
        let node = node.unwrap_or_else(|| panic!("{attributes:?}: {map}"));
        assert_ne!(node["attributes"], json!({}), "{id}");
        assert_eq!(matches(&store, &node["attributes"]), 1, "{node}");
    }
}

#[test]
fn old_conventions_name_requests_and_tasks() {
    let store = Store::new(LIMIT);
    let request = [("http.method", "GET"), ("http.route", "/a")];
    let task = [("messaging.operation", "process")];
    store.insert_at(
        spans(
            "s",
            vec![
                of_kind(span(1, 1, 0, "x"), SpanKind::Server, &request),
                of_kind(span(1, 2, 0, "run"), SpanKind::Consumer, &task),
            ],
        ),
        NOW,
    );
    let overview = serde_json::to_value(store.overview(300_000 * MS, NOW)).expect("JSON");
    assert_eq!(overview["routes"][0]["route"], "GET /a");
    assert_eq!(overview["tasks"][0]["task"], "run");
}

/// Returns 200 services that each call two others, are called by clients, and query a database.
fn large_store() -> Store {
    let store = Store::new(64 << 20);
    let name = |number: u64| format!("svc-{:03}", number % 200);
    for number in 0..200 {
        let trace = number + 1;
        let calls = [2, 3].map(|id| {
            of_kind(
                span(trace, id, 1, "call"),
                SpanKind::Client,
                &[("server.address", "x")],
            )
        });
        let [first, second] = calls;
        let query = of_kind(
            span(trace, 6, 1, "SELECT"),
            SpanKind::Client,
            &[("db.system", "sqlite")],
        );
        let entry = || of_kind(span(trace, 1, 0, "GET"), SpanKind::Server, &[]);
        let more = (10..15).map(|id| Span {
            span_id: u64::to_be_bytes(id).to_vec(),
            ..entry()
        });
        let own = [entry(), first, second, query].into_iter().chain(more);
        store.insert_at(spans(&name(number), own.collect()), NOW);
        for (callee, id, parent) in [(number + 1, 4, 2), (number + 7, 5, 3)] {
            let served = of_kind(span(trace, id, parent, "GET"), SpanKind::Server, &[]);
            store.insert_at(spans(&name(callee), vec![served]), NOW);
        }
    }
    store
}

#[test]
fn calls_between_services_have_precedence_and_the_rest_is_counted() {
    let store = large_store();
    let map = map_of(&store, None);
    let edges = map["edges"].as_array().expect("edges");
    let is = |edge: &Value, end: &str, kind: &str| edge[end].as_str().expect("an id").starts_with(kind);
    let to_kind = |to: &str| {
        let edges = edges
            .iter()
            .filter(|edge| is(edge, "from", "service:") && is(edge, "to", to));
        edges.count()
    };
    assert_eq!(
        (edges.len(), to_kind("service:"), to_kind("database:")),
        (500, 400, 100)
    );
    // 100 calls of a database, and 6 requests by clients for each service.
    assert_eq!(map["left_out"], json!({"edges": 300, "calls": 100 + 6 * 200}));
}

#[test]
fn a_focused_map_has_all_calls_of_one_service_only() {
    let store = large_store();
    let map = map_of(&store, Some("svc-010"));
    let edges = map["edges"].as_array().expect("edges");
    let ends = edges
        .iter()
        .map(|edge| format!("{} {}", edge["from"], edge["to"]).replace('"', ""));
    let mut ends: Vec<_> = ends.collect();
    ends.sort_unstable();
    assert_eq!(
        ends,
        [
            "external:clients service:svc-010",
            "service:svc-003 service:svc-010",
            "service:svc-009 service:svc-010",
            "service:svc-010 database:sqlite/sqlite",
            "service:svc-010 service:svc-011",
            "service:svc-010 service:svc-017",
        ]
    );
    assert_eq!(map["left_out"], json!({"edges": 0, "calls": 0}));
    assert_eq!(map_of(&store, Some("nope"))["edges"], json!([]));
}
