//! Memory limits and eviction.

use opentelemetry_proto::tonic::metrics::v1::metric::Data;

use super::{LIMIT, bodies, found, id};
use crate::store::{
    LogSearch, Store, TraceSearch,
    fixture::{NOW, counted, metrics, record, records, span, spans, text},
};

#[test]
fn the_oldest_traces_are_evicted_whole() {
    let store = Store::new(LIMIT);
    for trace in 1..=2_000 {
        let parts = (1..=5).map(|id| span(trace, id, id - 1, "work")).collect();
        store.insert_at(spans("app", parts), NOW);
    }
    let usage = store.usage();
    assert!(usage.evicted.spans > 0);
    assert_eq!(usage.kept.spans + usage.evicted.spans, 10_000);
    assert_eq!(usage.evicted.spans % 5, 0, "traces are evicted whole");
    let first_kept = usage.evicted.spans / 5 + 1;
    let newest: Vec<_> = (first_kept..=2_000)
        .rev()
        .take(500)
        .map(|trace| format!("{trace:x}"))
        .collect();
    assert_eq!(found(&store, &TraceSearch::default()), newest);
    assert!(store.trace(id(first_kept - 1)).is_none());
}

#[test]
fn a_late_span_of_an_evicted_trace_creates_a_new_trace() {
    let store = Store::new(LIMIT);
    store.insert_at(spans("app", vec![span(1, 1, 0, "first")]), NOW);
    for trace in 2..=10_000 {
        store.insert_at(spans("app", vec![span(trace, 1, 0, "work")]), NOW);
    }
    store.insert_at(spans("app", vec![span(1, 2, 1, "late")]), NOW);
    let trace = store.trace(id(1)).expect("kept");
    assert_eq!(trace.spans.len(), 1);
    assert_eq!(&*trace.summary.root.name, "late");
}

#[test]
fn the_limit_holds_for_any_input() {
    let store = Store::new(LIMIT);
    let long = "x".repeat(3_000);
    for round in 1..=3_000_u64 {
        let name = format!("{round} {}", &long[..(round as usize * 7) % 3_000]);
        // Unique names, services and scopes, a trace that never ends, and invalid ids.
        let mut unique = span(round, round, 0, &name);
        unique.attributes = vec![text(&name, &name)];
        let endless = span(u64::MAX, round, 0, &name);
        let mut broken = span(round, 1, 0, &name);
        broken.trace_id = vec![1; 15];
        store.insert_at(spans(&name, vec![unique, endless, broken]), NOW);
        store.insert_at(records(&name, vec![record(round, 9, &name)]), NOW);
        let sums = vec![counted("steady", "/", NOW, 1), counted(&name, &name, NOW, 1)];
        store.insert_at(metrics(&name, sums), NOW);
        let usage = store.usage();
        assert!(
            usage.memory.traces_bytes <= LIMIT / 100 * 60,
            "{}",
            usage.memory.traces_bytes
        );
        assert!(
            usage.memory.logs_bytes <= LIMIT / 100 * 25,
            "{}",
            usage.memory.logs_bytes
        );
        assert!(
            usage.memory.metrics_bytes <= LIMIT / 100 * 15,
            "{}",
            usage.memory.metrics_bytes
        );
    }
    let usage = store.usage();
    assert!(
        usage.memory.traces_bytes > LIMIT / 100 * 30,
        "the store uses its memory: {}",
        usage.memory.traces_bytes
    );
    assert!(
        usage.kept.spans > 10 && usage.kept.logs > 10 && usage.kept.points > 10,
        "{usage:?}"
    );
}

#[test]
fn oversized_entries_are_rejected_and_counted() {
    let store = Store::new(LIMIT);
    let huge = "x".repeat(LIMIT);
    store.insert_at(
        spans("app", vec![span(1, 1, 0, &huge), span(2, 1, 0, "small")]),
        NOW,
    );
    store.insert_at(
        records("app", vec![record(0, 9, &huge), record(0, 9, "small")]),
        NOW,
    );
    let usage = store.usage();
    assert_eq!((usage.refused.spans, usage.refused.logs), (1, 1));
    assert_eq!(found(&store, &TraceSearch::default()), ["2"]);
    assert_eq!(bodies(&store, &LogSearch::default()), ["small"]);
}

#[test]
fn a_single_trace_is_bounded_and_counts_dropped_spans() {
    let store = Store::new(LIMIT);
    let parts = (1..=10_000).map(|id| span(1, id, 0, "work")).collect();
    store.insert_at(spans("app", vec![span(2, 1, 0, "other")]), NOW);
    store.insert_at(spans("app", parts), NOW);
    assert_eq!(found(&store, &TraceSearch::default()), ["1", "2"]);
    let trace = store.trace(id(1)).expect("kept");
    assert_eq!(trace.spans.len() as u64 + trace.summary.dropped, 10_000);
    assert!(trace.spans.len() > 50);
}

#[test]
fn arbitrary_timestamps_are_harmless() {
    let store = Store::new(LIMIT);
    let timestamps = [
        (0, 0),
        (u64::MAX, u64::MAX),
        (u64::MAX, 0),
        (0, u64::MAX),
        (NOW, NOW - 1),
    ];
    for (trace, (start, end)) in (1..).zip(timestamps) {
        let mut odd = span(trace, 1, 0, "odd");
        odd.start_time_unix_nano = start;
        odd.end_time_unix_nano = end;
        store.insert_at(spans("app", vec![odd]), NOW);
        let mut odd = record(trace, i32::MIN, "odd");
        odd.time_unix_nano = start;
        store.insert_at(records("app", vec![odd]), NOW);
    }
    assert_eq!(found(&store, &TraceSearch::default()).len(), 5);
    assert_eq!(bodies(&store, &LogSearch::default()).len(), 5);
    assert!(store.usage().kept.oldest_unix_nano.is_some());
}

#[test]
fn an_oversized_resource_evicts_nothing() {
    let store = Store::new(LIMIT);
    store.insert_at(spans("app", vec![span(1, 1, 0, "kept")]), NOW);
    store.insert_at(records("app", vec![record(1, 9, "kept")]), NOW);
    store.insert_at(metrics("app", vec![counted("kept", "/", NOW, 1)]), NOW);
    let huge = "x".repeat(LIMIT);
    store.insert_at(spans(&huge, vec![span(2, 1, 0, "refused")]), NOW);
    store.insert_at(records(&huge, vec![record(1, 9, "refused")]), NOW);
    let mut two_points = counted("refused", "/", NOW, 1);
    if let Some(Data::Sum(sum)) = &mut two_points.data {
        sum.data_points.push(sum.data_points[0].clone());
    }
    store.insert_at(metrics(&huge, vec![two_points]), NOW);
    store.insert_at(metrics("app", vec![counted(&huge, "/", NOW, 1)]), NOW);
    let usage = store.usage();
    assert_eq!((usage.kept.spans, usage.kept.logs, usage.kept.points), (1, 1, 1));
    assert_eq!(
        (usage.refused.spans, usage.refused.logs, usage.refused.points),
        (1, 1, 3)
    );
}

#[test]
fn results_are_bounded_in_size() {
    let store = Store::new(512 * LIMIT);
    let long = "x".repeat(100_000);
    for number in 1..=300 {
        store.insert_at(spans("app", vec![span(number, 1, 0, &long)]), NOW);
        store.insert_at(records("app", vec![record(0, 9, &long)]), NOW);
    }
    let traces = store.search_traces(&TraceSearch {
        limit: 500,
        ..TraceSearch::default()
    });
    assert!(
        (40..60).contains(&traces.entries.len()),
        "{}",
        traces.entries.len()
    );
    assert!(traces.next.is_some());
    let logs = store.search_logs(&LogSearch {
        limit: 500,
        ..LogSearch::default()
    });
    assert!((40..60).contains(&logs.entries.len()), "{}", logs.entries.len());
    assert!(logs.next.is_some());

    let parts = (1..=200).map(|id| span(1_000, id, 0, &long)).collect();
    store.insert_at(spans("app", parts), NOW);
    let trace = store.trace(id(1_000)).expect("kept");
    assert!((150..170).contains(&trace.spans.len()), "{}", trace.spans.len());
    assert_eq!(trace.spans.len() as u64 + trace.summary.dropped, 200);
}
