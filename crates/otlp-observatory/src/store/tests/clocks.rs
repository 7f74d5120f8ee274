//! Clocks that disagree, unset and distant timestamps, and missing parents.

use opentelemetry_proto::tonic::trace::v1::Span;

use super::{LIMIT, id};
use crate::store::{
    Store, StoredTrace, TraceSearch,
    fixture::{MS, NOW, record, records, span, spans},
};

fn at(mut span: Span, start_ms: i64, duration_ms: u64) -> Span {
    span.start_time_unix_nano = NOW.saturating_add_signed(start_ms * MS as i64);
    span.end_time_unix_nano = span.start_time_unix_nano + duration_ms * MS;
    span
}

/// Returns the start before now and the duration of the trace, in milliseconds, as both the list and the trace have it.
fn scale(store: &Store, trace: &StoredTrace) -> (u64, u64) {
    let search = TraceSearch {
        limit: 1,
        ..TraceSearch::default()
    };
    let listed = &store.search_traces(&search).entries[0];
    assert_eq!(listed.start_unix_nano, trace.summary.start_unix_nano);
    assert_eq!(listed.duration_ns, trace.summary.duration_ns);
    ((NOW - listed.start_unix_nano.0) / MS, listed.duration_ns / MS)
}

#[test]
fn a_skewed_clock_is_marked_and_does_not_stretch_the_trace() {
    for skew in [-3_000, 3_000] {
        let store = Store::new(LIMIT);
        let request = at(span(1, 1, 0, "GET /skew"), -300, 200);
        let call = at(span(1, 2, 1, "call"), -280, 150);
        store.insert_at(spans("a", vec![request, call]), NOW);
        let inner = at(span(1, 3, 2, "GET /inner"), -255 + skew, 100);
        let below = at(span(1, 4, 3, "SELECT"), -250 + skew, 10);
        store.insert_at(spans("b", vec![inner, below]), NOW);
        let mut log = record(1, 9, "inside");
        log.time_unix_nano = NOW.saturating_add_signed((-249 + skew) * MS as i64);
        log.span_id = 4_u64.to_be_bytes().to_vec();
        store.insert_at(records("b", vec![log]), NOW);

        let raw = store.trace(id(1), false).expect("kept");
        assert_eq!(scale(&store, &raw), (300, 200));
        let offsets: Vec<_> = raw
            .spans
            .iter()
            .map(|span| span.clock_offset / MS as i64)
            .collect();
        assert_eq!(offsets, [0, 0, -skew, -skew]);
        assert_eq!(raw.skewed, 2);
        assert!(raw.spans.iter().all(|span| !span.is_orphan));
        assert_eq!((NOW as i64 - raw.logs[0].time as i64) / MS as i64, 249 - skew);
        let aligned = store.trace(id(1), true).expect("kept");
        assert_eq!((NOW - aligned.logs[0].time) / MS, 249);
        let parents: Vec<_> = aligned.spans.iter().map(|span| span.parent).collect();
        assert_eq!(parents, [None, Some(0), Some(1), Some(2)]);
    }
}

#[test]
fn unset_and_distant_timestamps_do_not_stretch_the_trace() {
    let year = 365 * 86_400_000;
    for odd in [i64::MIN, -year, year] {
        for parent in [1, 0, 99] {
            for service in ["a", "b"] {
                let store = Store::new(LIMIT);
                store.insert_at(spans("a", vec![at(span(1, 1, 0, "root"), -300, 200)]), NOW);
                let mut odd_span = at(span(1, 2, parent, "odd"), odd.max(-year), 1);
                if odd == i64::MIN {
                    odd_span.start_time_unix_nano = 0;
                }
                let is_unset_root = parent == 0 && odd == -year;
                store.insert_at(spans(service, vec![odd_span]), NOW);
                let trace = store.trace(id(1), false).expect("kept");
                let (_, duration) = scale(&store, &trace);
                // A root of last year is the earliest root, and has its own duration.
                assert_eq!(
                    duration,
                    if is_unset_root { 1 } else { 200 },
                    "{odd} {parent} {service}"
                );
                assert_eq!(trace.skewed, 1, "{odd} {parent} {service}");
                assert_eq!(
                    trace.spans.iter().filter(|span| span.is_orphan).count(),
                    usize::from(parent == 99)
                );
            }
        }
    }
    let store = Store::new(LIMIT);
    let mut only = at(span(1, 1, 0, "root"), 0, 0);
    only.start_time_unix_nano = 0;
    store.insert_at(spans("a", vec![only]), NOW);
    assert_eq!(store.trace(id(1), false).expect("kept").summary.duration_ns, 0);
}

#[test]
fn spans_that_outlast_the_root_stretch_the_trace() {
    let store = Store::new(LIMIT);
    let send = at(span(1, 2, 1, "background"), -200, 500);
    store.insert_at(spans("a", vec![at(span(1, 1, 0, "root"), -300, 200), send]), NOW);
    let trace = store.trace(id(1), false).expect("kept");
    assert_eq!(scale(&store, &trace), (300, 600));
    assert_eq!(trace.skewed, 0);
}
