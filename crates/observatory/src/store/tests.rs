//! What is kept, what goes, and what is found.

use std::collections::BTreeSet;

use opentelemetry_proto::tonic::common::v1::any_value::Value;

use super::{
    fixture::{MS, NOW, attribute, failed, lasting, of_kind, record, records, span, spans, text},
    *,
};

const LIMIT: usize = 1 << 20;

/// The numbers of the traces that were found, newest first.
fn found(store: &Store, search: &TraceSearch) -> Vec<String> {
    let search = TraceSearch {
        limit: 500,
        ..search.clone()
    };
    let found = store.search_traces(&search);
    let numbers = found.entries.iter().map(|(trace, _)| trace.id.to_string());
    numbers.map(|id| id.trim_start_matches('0').to_owned()).collect()
}

fn bodies(store: &Store, search: &LogSearch) -> Vec<String> {
    use opentelemetry_proto::tonic::logs::v1::LogRecord;
    use prost::Message as _;
    let search = LogSearch {
        limit: 500,
        ..search.clone()
    };
    let body = |record: &KeptRecord| {
        let record = LogRecord::decode(&*record.encoded).expect("what was kept");
        match record.body.and_then(|body| body.value) {
            Some(Value::StringValue(body)) => body,
            other => panic!("{other:?}"),
        }
    };
    store.search_logs(&search).entries.iter().map(body).collect()
}

#[test]
fn the_oldest_traces_leave_whole() {
    let store = Store::new(LIMIT);
    for trace in 1..=2_000 {
        let parts = (1..=5).map(|id| span(trace, id, id - 1, "work")).collect();
        store.insert_at(spans("app", parts), NOW);
    }
    let fill = store.fill();
    assert!(fill.evicted.spans > 0);
    assert_eq!(fill.kept.spans + fill.evicted.spans, 10_000);
    assert_eq!(fill.evicted.spans % 5, 0, "traces leave whole");
    let first_kept = fill.evicted.spans / 5 + 1;
    let newest: Vec<_> = (first_kept..=2_000)
        .rev()
        .take(500)
        .map(|trace| format!("{trace:x}"))
        .collect();
    assert_eq!(found(&store, &TraceSearch::default()), newest);
    assert!(
        store
            .trace(TraceId::from_bytes(&fixture::trace_id(first_kept - 1)).expect("an id"))
            .is_none()
    );
}

#[test]
fn a_late_span_of_a_trace_that_left_begins_it_again() {
    let store = Store::new(LIMIT);
    store.insert_at(spans("app", vec![span(1, 1, 0, "first")]), NOW);
    for trace in 2..=10_000 {
        store.insert_at(spans("app", vec![span(trace, 1, 0, "work")]), NOW);
    }
    store.insert_at(spans("app", vec![span(1, 2, 1, "late")]), NOW);
    let trace = store
        .trace(TraceId::from_bytes(&fixture::trace_id(1)).expect("an id"))
        .expect("kept");
    assert_eq!(trace.spans.len(), 1);
    assert_eq!(&*trace.summary.root_name, "late");
}

#[test]
fn the_limit_holds_whatever_is_sent() {
    let store = Store::new(LIMIT);
    let long = "x".repeat(3_000);
    for round in 1..=3_000_u64 {
        let name = format!("{round} {}", &long[..(round as usize * 7) % 3_000]);
        // Unique names, services and scopes; one trace that grows on and on; ids that are none.
        let mut mine = span(round, round, 0, &name);
        mine.attributes = vec![text(&name, &name)];
        let endless = span(u64::MAX, round, 0, &name);
        let mut broken = span(round, 1, 0, &name);
        broken.trace_id = vec![1; 15];
        store.insert_at(spans(&name, vec![mine, endless, broken]), NOW);
        store.insert_at(records(&name, vec![record(round, 9, &name)]), NOW);
        let fill = store.fill();
        assert!(fill.traces_bytes <= LIMIT / 100 * 60, "{}", fill.traces_bytes);
        assert!(fill.logs_bytes <= LIMIT / 100 * 25, "{}", fill.logs_bytes);
    }
    let fill = store.fill();
    assert!(
        fill.traces_bytes > LIMIT / 100 * 30,
        "it is used: {}",
        fill.traces_bytes
    );
    assert!(fill.kept.spans > 10 && fill.kept.logs > 10, "{fill:?}");
}

#[test]
fn what_is_too_large_alone_is_refused_and_counted() {
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
    let fill = store.fill();
    assert_eq!((fill.refused.spans, fill.refused.logs), (1, 1));
    assert_eq!(found(&store, &TraceSearch::default()), ["2"]);
    assert_eq!(bodies(&store, &LogSearch::default()), ["small"]);
}

#[test]
fn one_trace_takes_only_its_part_and_says_what_it_lost() {
    let store = Store::new(LIMIT);
    let parts = (1..=10_000).map(|id| span(1, id, 0, "work")).collect();
    store.insert_at(spans("app", vec![span(2, 1, 0, "other")]), NOW);
    store.insert_at(spans("app", parts), NOW);
    assert_eq!(found(&store, &TraceSearch::default()), ["1", "2"]);
    let trace = store
        .trace(TraceId::from_bytes(&fixture::trace_id(1)).expect("an id"))
        .expect("kept");
    assert_eq!(trace.spans.len() as u64 + trace.summary.dropped, 10_000);
    assert!(trace.spans.len() > 50);
}

#[test]
fn clocks_that_say_anything_are_no_matter() {
    let store = Store::new(LIMIT);
    let moments = [
        (0, 0),
        (u64::MAX, u64::MAX),
        (u64::MAX, 0),
        (0, u64::MAX),
        (NOW, NOW - 1),
    ];
    for (trace, (start, end)) in (1..).zip(moments) {
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
    assert!(store.fill().oldest.is_some());
}

#[test]
fn filters_hold_for_one_span_together() {
    let store = Store::new(LIMIT);
    let sql = of_kind(
        span(1, 2, 1, "SELECT articles"),
        opentelemetry_proto::tonic::trace::v1::span::SpanKind::Client,
        &[
            ("db.system.name", "postgresql"),
            ("db.query.text", "select * from Articles"),
        ],
    );
    let mut request = of_kind(
        span(1, 1, 0, "GET /api/articles/"),
        opentelemetry_proto::tonic::trace::v1::span::SpanKind::Server,
        &[("http.request.method", "GET"), ("http.route", "/api/articles/")],
    );
    request
        .attributes
        .push(attribute("http.response.status_code", Value::IntValue(200)));
    store.insert_at(spans("app", vec![request, sql]), NOW);
    store.insert_at(
        spans(
            "worker",
            vec![
                failed(lasting(span(2, 1, 0, "run"), 50 * MS)),
                span(2, 2, 1, "step"),
            ],
        ),
        NOW,
    );

    let search = TraceSearch::default;
    let by_service = |service: &str| TraceSearch {
        service: Some(service.to_owned()),
        ..search()
    };
    let by_name = |name: &str| TraceSearch {
        name: Some(Text::new(name)),
        ..search()
    };
    let by_text = |text: &str| TraceSearch {
        text: Some(Text::new(text)),
        ..search()
    };
    let by_attribute = |of: &str| TraceSearch {
        attributes: vec![Attribute::new(of)],
        ..search()
    };
    for (search, expected) in [
        (search(), &["2", "1"][..]),
        (by_service("app"), &["1"]),
        (by_service("ap"), &[]),
        (by_name("ARTICLES"), &["1"]),
        (by_name("nothing"), &[]),
        (
            TraceSearch {
                outcome: Some(Outcome::Error),
                ..search()
            },
            &["2"],
        ),
        (
            TraceSearch {
                outcome: Some(Outcome::Ok),
                ..search()
            },
            &["1"],
        ),
        (
            TraceSearch {
                min_duration: Some(2 * MS),
                ..search()
            },
            &["2"],
        ),
        (
            TraceSearch {
                max_duration: Some(2 * MS),
                ..search()
            },
            &["2", "1"],
        ),
        (
            TraceSearch {
                max_duration: Some(2 * MS),
                outcome: Some(Outcome::Error),
                ..search()
            },
            &[],
        ),
        (by_text("FROM articles"), &["1"]),
        (by_text("it failed"), &["2"]),
        (by_text("zebra"), &[]),
        (by_attribute("http.response.status_code=200"), &["1"]),
        (by_attribute("http.response.status_code=500"), &[]),
        (by_attribute("service.name=worker"), &["2"]),
        (by_attribute("db.system.name"), &["1"]),
        (
            // Each holds for a span, but not for the same.
            TraceSearch {
                attributes: vec![Attribute::new("db.system.name"), Attribute::new("http.route")],
                ..search()
            },
            &[],
        ),
        (
            TraceSearch {
                from: Some(NOW - 10 * MS),
                ..search()
            },
            &["2", "1"],
        ),
        (
            TraceSearch {
                to: Some(NOW - 10 * MS),
                ..search()
            },
            &["2"],
        ),
        (
            TraceSearch {
                from: Some(NOW),
                ..search()
            },
            &[],
        ),
    ] {
        assert_eq!(found(&store, &search), expected, "{search:?}");
    }
}

#[test]
fn pages_give_every_trace_once() {
    let store = Store::new(LIMIT);
    for trace in 1..=107 {
        store.insert_at(spans("app", vec![span(trace, 1, 0, "work")]), NOW);
    }
    let mut search = TraceSearch {
        limit: 10,
        ..TraceSearch::default()
    };
    let mut all = Vec::new();
    loop {
        let page = store.search_traces(&search);
        all.extend(page.entries.into_iter().map(|(trace, _)| trace.id.to_string()));
        // What comes in between does not move the pages.
        store.insert_at(
            spans("app", vec![span(1_000 + all.len() as u64, 1, 0, "new")]),
            NOW,
        );
        match page.next {
            Some(next) => search.before = Some(next),
            None => break,
        }
    }
    assert_eq!(all.len(), 107);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 107);
}

#[test]
fn log_records_are_found_by_level_text_trace_and_cursor() {
    let store = Store::new(LIMIT);
    store.insert_at(
        records(
            "app",
            vec![
                record(1, 9, "created"),
                record(0, 13, "Slow"),
                record(1, 17, "broke"),
            ],
        ),
        NOW,
    );
    store.insert_at(
        records("worker", vec![record(2, 5, "detail"), record(0, 0, "plain")]),
        NOW,
    );

    let search = LogSearch::default;
    let trace = |number| TraceId::from_bytes(&fixture::trace_id(number));
    for (search, expected) in [
        (search(), &["plain", "detail", "broke", "Slow", "created"][..]),
        (
            LogSearch {
                severity: Some(13),
                ..search()
            },
            &["broke", "Slow"],
        ),
        (
            LogSearch {
                text: Some(Text::new("slow")),
                ..search()
            },
            &["Slow"],
        ),
        (
            LogSearch {
                service: Some("worker".to_owned()),
                ..search()
            },
            &["plain", "detail"],
        ),
        (
            LogSearch {
                trace: trace(1),
                ..search()
            },
            &["broke", "created"],
        ),
        (
            LogSearch {
                trace: trace(1),
                before: Some(3),
                ..search()
            },
            &["created"],
        ),
        (
            LogSearch {
                trace: trace(9),
                ..search()
            },
            &[],
        ),
        (
            LogSearch {
                span: SpanId::from_bytes(&1_u64.to_be_bytes()),
                ..search()
            },
            &["detail", "broke", "created"],
        ),
        (
            LogSearch {
                after: Some(3),
                ..search()
            },
            &["plain", "detail"],
        ),
        (
            LogSearch {
                after: Some(5),
                ..search()
            },
            &[],
        ),
        (
            LogSearch {
                before: Some(2),
                ..search()
            },
            &["created"],
        ),
        (
            LogSearch {
                before: Some(1),
                ..search()
            },
            &[],
        ),
        (
            LogSearch {
                attributes: vec![Attribute::new("service.name=app")],
                ..search()
            },
            &["broke", "Slow", "created"],
        ),
    ] {
        assert_eq!(bodies(&store, &search), expected, "{search:?}");
    }
}

#[test]
fn the_records_of_a_trace_stay_found_while_older_ones_leave() {
    let store = Store::new(LIMIT);
    let rounds = 5_000;
    for round in 0..rounds {
        let body = format!("{round}");
        store.insert_at(records("app", vec![record(1 + round % 7, 9, &body)]), NOW);
    }
    let fill = store.fill();
    assert!(fill.evicted.logs > 0);
    let first = fill.evicted.logs;
    let of_trace = LogSearch {
        trace: TraceId::from_bytes(&fixture::trace_id(1)),
        ..LogSearch::default()
    };
    let expected: Vec<_> = (first..rounds)
        .rev()
        .filter(|round| round % 7 == 0)
        .map(|round| round.to_string())
        .collect();
    assert_eq!(
        bodies(&store, &of_trace),
        expected.into_iter().take(500).collect::<Vec<_>>()
    );
}
