//! Memory limits and eviction.

use opentelemetry_proto::tonic::{metrics::v1::metric::Data, trace::v1::Span};
use prost::Message as _;

use super::{LIMIT, bodies, found, id};
use crate::store::{
    LogSearch, Progress, Store, StoredSpan, TraceSearch,
    fixture::{MS, NOW, counted, failed, lasting, metrics, record, records, span, spans, text},
};

fn used(store: &Store) -> usize {
    let memory = store.usage().memory;
    memory.traces_bytes + memory.logs_bytes + memory.metrics_bytes
}

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
    assert!(store.trace(id(first_kept - 1), false).is_none());
}

#[test]
fn the_export_of_a_large_trace_is_in_several_pieces() {
    let store = Store::new(64 << 20);
    let long = "x".repeat(10_000);
    let parts = (1..=300)
        .map(|id| span(1, id, 0, &format!("{id} {long}")))
        .collect();
    store.insert_at(spans("app", parts), NOW);
    store.insert_at(spans("app", vec![span(2, 1, 0, "small")]), NOW);
    let mut progress = Progress::default();
    let (mut found, mut pieces) = (0, 0);
    while let Some(piece) = store.export_piece(&mut progress) {
        let json = serde_json::to_string(&piece).expect("JSON");
        assert!(json.len() < 2 << 20, "{}", json.len());
        found += json.matches("\"spanId\":").count();
        pieces += 1;
    }
    assert_eq!((found, pieces), (301, 3));
}

#[test]
fn a_late_span_of_an_evicted_trace_creates_a_new_trace() {
    let store = Store::new(LIMIT);
    store.insert_at(spans("app", vec![span(1, 1, 0, "first")]), NOW);
    for trace in 2..=10_000 {
        store.insert_at(spans("app", vec![span(trace, 1, 0, "work")]), NOW);
    }
    store.insert_at(spans("app", vec![span(1, 2, 1, "late")]), NOW);
    let trace = store.trace(id(1), false).expect("kept");
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
        assert!(used(&store) <= LIMIT, "{:?}", usage.memory);
    }
    let usage = store.usage();
    assert!(
        used(&store) > LIMIT / 100 * 70,
        "the store uses its memory: {:?}",
        usage.memory
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
fn a_trace_is_cut_only_above_the_limit_and_keeps_root_errors_and_longest_spans() {
    let store = Store::new(4 * LIMIT);
    let mut sent = 0;
    let mut send = |spans_of: std::ops::Range<u64>| {
        sent += spans_of.clone().count() as u64;
        let children = spans_of.map(|id| match id % 1_000 {
            7 => failed(span(1, id, 1, "broken")),
            8 => lasting(span(1, id, 1, "slow"), 50 * MS),
            _ => span(1, id, 1, "step"),
        });
        store.insert_at(spans("app", children.collect()), NOW);
    };
    send(2..5_000);
    let whole = store.trace(id(1), false).expect("kept");
    assert_eq!((whole.spans.len(), whole.summary.dropped), (4_998, 0));
    assert!(used(&store) > LIMIT, "more than a quarter of the memory");
    for batch in 10..60 {
        send(batch * 500..(batch + 1) * 500);
    }
    store.insert_at(spans("app", vec![lasting(span(1, 1, 0, "root"), 90 * MS)]), NOW);
    for batch in 60..100 {
        send(batch * 500..(batch + 1) * 500);
    }
    assert!(used(&store) <= 4 * LIMIT);
    let trace = store.trace(id(1), false).expect("kept");
    assert_eq!(&*trace.summary.root.name, "root");
    let name = |span: &StoredSpan| Span::decode(&*span.encoded).expect("a span").name;
    let named = |wanted: &str| trace.spans.iter().filter(|span| name(span) == wanted).count();
    assert_eq!((named("root"), named("broken"), named("slow")), (1, 50, 50));
    assert!(named("step") > 2_000);
    assert_eq!(trace.spans.len() as u64 + trace.summary.dropped, sent + 1);
    assert!(trace.summary.dropped > 0);
    let listed = store.search_traces(&TraceSearch {
        limit: 1,
        ..TraceSearch::default()
    });
    let listed = serde_json::to_value(&listed.entries[0]).expect("JSON");
    assert_eq!(listed["dropped_spans"], trace.summary.dropped);
}

#[test]
fn one_signal_may_use_all_memory_and_evicts_only_itself_from_the_reserve_of_others() {
    let store = Store::new(4 * LIMIT);
    let traces = |numbers: std::ops::Range<u64>, now| {
        for number in numbers {
            store.insert_at(spans("app", vec![span(number, 1, 0, "work")]), now);
        }
    };
    let logs = |numbers: std::ops::Range<u64>, now| {
        for number in numbers {
            let body = format!("{number} {}", "x".repeat(900));
            store.insert_at(records("app", vec![record(0, 9, &body)]), now);
        }
    };
    traces(1..1_000, NOW);
    logs(0..2_500, NOW + 1);
    let usage = store.usage();
    assert!(usage.memory.logs_bytes > 2 * LIMIT, "{:?}", usage.memory);
    assert_eq!((usage.evicted.logs, usage.evicted.spans), (0, 0));

    logs(2_500..20_000, NOW + 2);
    let usage = store.usage();
    assert!(used(&store) <= 4 * LIMIT);
    assert_eq!(
        usage.evicted.spans, 0,
        "a flood of records leaves a quarter to the traces"
    );
    assert!(usage.evicted.logs > 15_000);

    traces(1_000..30_000, NOW + 3);
    let usage = store.usage();
    assert!(used(&store) <= 4 * LIMIT);
    assert!(usage.evicted.spans > 0);
    assert!(
        (LIMIT / 100 * 90..LIMIT + LIMIT / 50).contains(&usage.memory.logs_bytes),
        "{:?}",
        usage.memory
    );
}

#[test]
fn the_oldest_is_evicted_first_whatever_its_signal() {
    let store = Store::new(4 * LIMIT);
    let mut number = 0;
    for second in 0..1_000 {
        let now = NOW + second;
        let traces = (0..8).map(|_| {
            number += 1;
            span(number, 1, 0, "work")
        });
        store.insert_at(spans("app", traces.collect()), now);
        let logs = (0..8).map(|_| {
            number += 1;
            record(0, 9, &format!("{number} {}", "x".repeat(400)))
        });
        store.insert_at(records("app", logs.collect()), now);
    }
    let usage = store.usage();
    assert!(usage.evicted.spans > 500 && usage.evicted.logs > 500, "{usage:?}");
    assert!(usage.evicted.spans.abs_diff(usage.evicted.logs) < 32, "{usage:?}");
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
        store.insert_at(
            records("app", vec![record(0, 9, &format!("{number} {long}"))]),
            NOW,
        );
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

    let root = lasting(span(1_000, 1, 0, "root"), MS);
    let parts = (2..=400)
        .map(|id| span(1_000, id, 1, &long))
        .chain([root])
        .collect();
    store.insert_at(spans("app", parts), NOW);
    let trace = store.trace(id(1_000), false).expect("kept");
    assert!((310..340).contains(&trace.spans.len()), "{}", trace.spans.len());
    assert_eq!(trace.spans.len() as u64 + trace.summary.dropped, 400);
    assert_eq!(trace.spans[0].parent, None);
    assert!(trace.spans[1..].iter().all(|span| span.parent == Some(0)));
}
