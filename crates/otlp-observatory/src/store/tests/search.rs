//! Search filters, pages and cursors.

use std::collections::BTreeSet;

use opentelemetry_proto::tonic::{common::v1::any_value::Value, trace::v1::span::SpanKind};

use super::{LIMIT, bodies, found, id};
use crate::store::{
    Attribute, LogSearch, SpanId, StatusFilter, Store, Text, TraceSearch,
    fixture::{MS, NOW, attribute, failed, lasting, of_kind, record, records, span, spans},
    position::TimePosition,
};

fn attribute_filter(text: &str) -> Attribute {
    Attribute::parse(text).expect(text)
}

#[test]
fn all_filters_apply_to_the_same_span() {
    let store = Store::new(LIMIT);
    let sql = of_kind(
        span(1, 2, 1, "SELECT articles"),
        SpanKind::Client,
        &[
            ("db.system.name", "postgresql"),
            ("db.query.text", "select * from Articles"),
        ],
    );
    let mut request = of_kind(
        span(1, 1, 0, "GET /api/articles/"),
        SpanKind::Server,
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
        attributes: vec![attribute_filter(of)],
        ..search()
    };
    for (search, expected) in [
        (search(), &["1", "2"][..]),
        (by_service("app"), &["1"]),
        (by_service("ap"), &[]),
        (by_name("ARTICLES"), &["1"]),
        (by_name("nothing"), &[]),
        (
            TraceSearch {
                status: Some(StatusFilter::Error),
                ..search()
            },
            &["2"],
        ),
        (
            TraceSearch {
                status: Some(StatusFilter::Ok),
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
            &["1", "2"],
        ),
        (
            TraceSearch {
                max_duration: Some(2 * MS),
                status: Some(StatusFilter::Error),
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
            // The filters match different spans.
            TraceSearch {
                attributes: vec![attribute_filter("db.system.name"), attribute_filter("http.route")],
                ..search()
            },
            &[],
        ),
        (
            TraceSearch {
                from: Some(NOW - 10 * MS),
                ..search()
            },
            &["1", "2"],
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
fn every_trace_is_on_exactly_one_page() {
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
        all.extend(page.entries.into_iter().map(|trace| trace.trace_id.to_string()));
        // New traces must not shift the pages.
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
    let trace = |number| Some(id(number));
    let position = |number| Some(TimePosition { time: NOW, number });
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
                before: position(3),
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
                before: position(2),
                ..search()
            },
            &["created"],
        ),
        (
            LogSearch {
                before: position(1),
                ..search()
            },
            &[],
        ),
        (
            LogSearch {
                attributes: vec![attribute_filter("service.name=app")],
                ..search()
            },
            &["broke", "Slow", "created"],
        ),
    ] {
        assert_eq!(bodies(&store, &search), expected, "{search:?}");
    }
}

#[test]
fn records_of_a_trace_are_found_after_older_ones_are_evicted() {
    let store = Store::new(LIMIT);
    let rounds = 20_000;
    for round in 0..rounds {
        let body = format!("{round}");
        store.insert_at(records("app", vec![record(1 + round % 7, 9, &body)]), NOW);
    }
    let usage = store.usage();
    assert!(usage.evicted.logs > 0);
    let first = usage.evicted.logs;
    let of_trace = LogSearch {
        trace: Some(id(1)),
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
