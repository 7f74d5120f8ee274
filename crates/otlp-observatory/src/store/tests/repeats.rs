//! Requests that arrive more than once, and spans with equal ids.

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use super::{LIMIT, bodies, found, id};
use crate::store::{
    LogSearch, Store, TraceSearch,
    fixture::{MS, NOW, counted, failed, lasting, metrics, of_kind, record, records, span, spans},
};

#[test]
fn a_resent_request_counts_once_everywhere() {
    let store = Store::new(LIMIT);
    let request = || {
        let get = [("http.request.method", "GET"), ("http.route", "/retry")];
        let root = of_kind(
            failed(lasting(span(1, 1, 0, "GET"), 2 * MS)),
            SpanKind::Server,
            &get,
        );
        let sql = of_kind(
            span(1, 2, 1, "SELECT"),
            SpanKind::Client,
            &[("db.system.name", "sqlite")],
        );
        spans("app", vec![root, sql])
    };
    for _ in 0..3 {
        store.insert_at(request(), NOW);
        store.insert_at(
            records("app", vec![record(1, 9, "tick"), record(1, 9, "tick")]),
            NOW,
        );
        store.insert_at(metrics("app", vec![counted("requests", "/", NOW, 1)]), NOW);
    }
    let usage = store.usage();
    assert_eq!((usage.kept.spans, usage.kept.logs, usage.kept.points), (2, 2, 1));
    assert_eq!(
        (usage.repeated.spans, usage.repeated.logs, usage.repeated.points),
        (4, 4, 2)
    );
    assert_eq!((usage.evicted.spans, usage.refused.spans), (0, 0));
    let search = TraceSearch {
        limit: 10,
        ..TraceSearch::default()
    };
    let listed = serde_json::to_value(&store.search_traces(&search).entries).expect("JSON");
    assert_eq!(
        (&listed[0]["spans"], &listed[0]["errors"], &listed[0]["logs"]),
        (&2.into(), &1.into(), &2.into())
    );
    let overview = serde_json::to_value(store.overview(60_000 * MS, NOW)).expect("JSON");
    assert_eq!(
        (
            &overview["routes"][0]["requests"],
            &overview["routes"][0]["errors"]
        ),
        (&1.into(), &1.into())
    );
    let map = serde_json::to_value(store.map(60_000 * MS, NOW, None)).expect("JSON");
    assert_eq!(map["edges"][0]["calls"], 1);
    assert_eq!(bodies(&store, &LogSearch::default()), ["tick", "tick"]);
}

#[test]
fn repeats_are_found_in_long_traces_and_in_any_order() {
    let store = Store::new(16 * LIMIT);
    let parts = |ids: std::ops::Range<u64>| ids.map(|id| span(1, id, 1, "step")).collect();
    store.insert_at(spans("app", parts(2..31)), NOW);
    store.insert_at(spans("app", parts(20..600)), NOW);
    let mut reversed: Vec<_> = parts(2..601);
    reversed.reverse();
    store.insert_at(spans("app", reversed), NOW);
    assert_eq!(store.trace(id(1), false).expect("kept").spans.len(), 599);
    assert_eq!(store.usage().repeated.spans, 11 + 598);
}

#[test]
fn spans_that_differ_are_all_kept_although_their_ids_are_equal() {
    for others in [0, 100] {
        let store = Store::new(16 * LIMIT);
        let parts = (10..10 + others).map(|id| span(1, id, 1, "step")).collect();
        store.insert_at(spans("app", parts), NOW);
        store.insert_at(
            spans("app", vec![span(1, 1, 0, "root"), span(1, 2, 1, "call")]),
            NOW,
        );
        store.insert_at(spans("other", vec![span(1, 2, 1, "call")]), NOW);
        store.insert_at(spans("app", vec![span(1, 2, 1, "changed")]), NOW);
        assert_eq!(found(&store, &TraceSearch::default()), ["1"]);
        assert_eq!(
            store.trace(id(1), false).expect("kept").spans.len() as u64,
            4 + others
        );
        assert_eq!(store.usage().repeated.spans, 0);
    }
}

#[test]
fn equal_records_of_different_requests_are_only_repeats_if_time_and_source_are_equal() {
    let store = Store::new(LIMIT);
    let at = |time, body: &str| {
        let mut record = record(0, 9, body);
        record.time_unix_nano = time;
        vec![record]
    };
    store.insert_at(records("app", at(NOW, "x")), NOW);
    store.insert_at(records("other", at(NOW, "x")), NOW);
    store.insert_at(records("app", at(NOW + 1, "x")), NOW);
    store.insert_at(records("app", at(NOW, "y")), NOW);
    // Without a timestamp, the time of arrival counts, which never repeats a request.
    store.insert_at(records("app", at(0, "x")), NOW + 5);
    store.insert_at(records("app", at(0, "x")), NOW + 6);
    assert_eq!(store.usage().kept.logs, 6);
    store.insert_at(records("app", at(NOW, "x")), NOW + 7);
    assert_eq!(store.usage().kept.logs, 6);
}

#[test]
fn the_map_finds_the_parent_in_the_same_service_among_spans_with_the_same_id() {
    for others in [0, 100] {
        let store = Store::new(16 * LIMIT);
        let steps = (10..10 + others).map(|id| span(1, id, 1, "step")).collect();
        store.insert_at(spans("a", steps), NOW);
        let call = of_kind(
            span(1, 2, 1, "call"),
            SpanKind::Client,
            &[("server.address", "remote")],
        );
        store.insert_at(spans("a", vec![span(1, 1, 0, "root"), call]), NOW);
        let parts = vec![span(1, 2, 0, "other root"), span(1, 3, 2, "inner")];
        store.insert_at(spans("b", parts), NOW);
        let map = serde_json::to_value(store.map(60_000 * MS, NOW, None)).expect("JSON");
        let edges = map["edges"].as_array().expect("edges").iter();
        let edges: Vec<_> = edges
            .map(|edge| format!("{} {}", edge["from"], edge["to"]))
            .collect();
        assert_eq!(edges, [r#""service:a" "external:remote""#]);
    }
}
