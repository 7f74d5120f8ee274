//! Order of lists by the senders' timestamps, and their pages while telemetry arrives.

use std::collections::BTreeSet;

use super::{LIMIT, bodies, found, id};
use crate::store::{
    LogSearch, Store, TraceSearch,
    fixture::{MS, NOW, record, records, span, spans},
};
use opentelemetry_proto::tonic::{logs::v1::LogRecord, trace::v1::Span};

fn record_at(trace: u64, time: u64, body: &str) -> LogRecord {
    LogRecord {
        time_unix_nano: time,
        ..record(trace, 9, body)
    }
}

fn span_at(trace: u64, id: u64, parent: u64, start: u64) -> Span {
    Span {
        start_time_unix_nano: start,
        end_time_unix_nano: start + MS,
        ..span(trace, id, parent, "work")
    }
}

#[test]
fn records_are_in_order_of_time_and_the_tail_gets_those_that_arrive_late() {
    let store = Store::new(LIMIT);
    store.insert_at(
        records(
            "b",
            vec![record_at(1, NOW - 2_000, "B"), record_at(1, NOW - 1_000, "C")],
        ),
        NOW,
    );
    store.insert_at(records("a", vec![record_at(1, NOW - 3_000, "A")]), NOW);
    store.insert_at(spans("a", vec![span(1, 1, 0, "work")]), NOW);
    let all = LogSearch::default();
    assert_eq!(bodies(&store, &all), ["C", "B", "A"]);
    assert_eq!(
        bodies(
            &store,
            &LogSearch {
                trace: Some(id(1)),
                ..all.clone()
            }
        ),
        ["C", "B", "A"]
    );
    assert_eq!(
        bodies(
            &store,
            &LogSearch {
                after: Some(2),
                ..all.clone()
            }
        ),
        ["A"]
    );
    let trace = store.trace(id(1), false).expect("kept");
    let times: Vec<_> = trace.logs.iter().map(|record| NOW - record.time).collect();
    assert_eq!(times, [3_000, 2_000, 1_000]);
}

#[test]
fn traces_are_in_order_of_their_root_s_start() {
    let store = Store::new(LIMIT);
    store.insert_at(spans("app", vec![span_at(1, 2, 1, NOW - 4_000 * MS)]), NOW);
    store.insert_at(spans("app", vec![span_at(2, 1, 0, NOW - 5_000 * MS)]), NOW);
    assert_eq!(found(&store, &TraceSearch::default()), ["1", "2"]);
    store.insert_at(spans("app", vec![span_at(1, 1, 0, NOW - 10_000 * MS)]), NOW);
    store.insert_at(spans("app", vec![span_at(3, 1, 0, NOW - 7_000 * MS)]), NOW);
    store.insert_at(spans("app", vec![span_at(4, 1, 0, 0)]), NOW);
    assert_eq!(found(&store, &TraceSearch::default()), ["4", "2", "3", "1"]);
}

#[test]
fn every_record_is_on_exactly_one_page_while_records_of_any_time_arrive() {
    let store = Store::new(8 * LIMIT);
    // Multiplication by a number that is coprime to 107 visits every time once.
    let time = |number: u64| NOW - (number * 40 % 107) * MS;
    let first = (0..107).map(|number| record_at(1, time(number), &number.to_string()));
    store.insert_at(records("app", first.collect()), NOW);
    for trace in [None, Some(id(1))] {
        let mut search = LogSearch {
            trace,
            limit: 10,
            ..LogSearch::default()
        };
        let mut seen = Vec::new();
        for page in 0.. {
            let found = store.search_logs(&search);
            seen.extend(found.entries.iter().map(|record| (record.time, record.sequence)));
            // Records above, at and below the position.
            for number in 0..107 {
                let late = record_at(1, NOW - number * MS, &format!("late {page} {number} {trace:?}"));
                store.insert_at(records("app", vec![late]), NOW);
            }
            match found.next {
                Some(next) => search.before = Some(next),
                None => break,
            }
            assert!(page < 1_000, "the pages end");
            if seen.len() > 500 {
                break;
            }
        }
        let is_descending = seen.is_sorted_by(|a, b| a > b);
        assert!(is_descending, "{seen:?}");
        let oldest = seen.last().expect("records").0;
        let sequences: BTreeSet<_> = seen.iter().map(|(_, sequence)| *sequence).collect();
        assert_eq!(sequences.len(), seen.len());
        for number in (0..107).filter(|&number| time(number) > oldest) {
            assert!(sequences.contains(&(number + 1)), "record {number}");
        }
    }
}

#[test]
fn new_records_beyond_the_limit_are_on_further_pages() {
    let store = Store::new(LIMIT);
    let insert = |numbers: std::ops::Range<u64>| {
        let batch = numbers.map(|number| record_at(0, NOW - number * 7 % 100, &number.to_string()));
        store.insert_at(records("app", batch.collect()), NOW);
    };
    insert(0..50);
    insert(50..100);
    let mut search = LogSearch {
        after: Some(50),
        limit: 20,
        ..LogSearch::default()
    };
    let mut seen = Vec::new();
    loop {
        let page = store.search_logs(&search);
        seen.extend(page.entries.iter().map(|record| record.sequence));
        match page.next {
            Some(next) => search.before = Some(next),
            None => break,
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, (51..=100).collect::<Vec<_>>());
}
