//! What is kept, what goes, and what is found.

use std::collections::BTreeSet;

use opentelemetry_proto::tonic::{common::v1::any_value::Value, trace::v1::span::SpanKind};
use serde_json::json;

use super::{
    fixture::{
        MS, NOW, attribute, counted, failed, lasting, metrics, of_kind, record, records, span, spans, text,
    },
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
        let sums = vec![counted("steady", "/", NOW, 1), counted(&name, &name, NOW, 1)];
        store.insert_at(metrics(&name, sums), NOW);
        let fill = store.fill();
        assert!(fill.traces_bytes <= LIMIT / 100 * 60, "{}", fill.traces_bytes);
        assert!(fill.logs_bytes <= LIMIT / 100 * 25, "{}", fill.logs_bytes);
        assert!(fill.metrics_bytes <= LIMIT / 100 * 15, "{}", fill.metrics_bytes);
    }
    let fill = store.fill();
    assert!(
        fill.traces_bytes > LIMIT / 100 * 30,
        "it is used: {}",
        fill.traces_bytes
    );
    assert!(
        fill.kept.spans > 10 && fill.kept.logs > 10 && fill.kept.points > 10,
        "{fill:?}"
    );
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

/// The values of the counter's points, by series, as they are read.
fn values(store: &Store, name: &str) -> Vec<Vec<f64>> {
    let search = SeriesSearch {
        name: Some(name.to_owned()),
        ..SeriesSearch::default()
    };
    let value = |reading: &Reading| match reading.value {
        readings::ReadingValue::Counter { value, .. } => value,
        ref other => panic!("{other:?}"),
    };
    let readings = store.readings(&search, 100);
    readings
        .iter()
        .map(|series| series.readings.iter().map(value).collect())
        .collect()
}

#[test]
fn a_series_keeps_its_newest_points_and_leaves_with_the_last() {
    let store = Store::new(8 * LIMIT);
    store.insert_at(metrics("app", vec![counted("old", "/", NOW, 1)]), NOW);
    for round in 0..2_000 {
        store.insert_at(
            metrics("app", vec![counted("busy", "/", NOW + round, round as i64)]),
            NOW + round,
        );
    }
    assert_eq!(
        values(&store, "old"),
        [[1.0]],
        "others' points are no reason to go while there is room"
    );
    let busy: Vec<_> = (2_000 - 720..2_000).map(|round| round as f64).collect();
    assert_eq!(values(&store, "busy"), [busy]);
    assert_eq!(store.fill().kept.points, 721);

    for round in 0..5_000 {
        let route = format!("/{round}");
        store.insert_at(metrics("app", vec![counted("many", &route, NOW, 1)]), NOW);
    }
    assert!(
        values(&store, "old").is_empty(),
        "the oldest point left, and its series with it"
    );
    let fill = store.fill();
    assert_eq!(fill.kept.points + fill.evicted.points, 7_001);
    assert!(fill.series > 100, "{}", fill.series);
}

#[test]
fn the_same_attributes_in_another_order_are_the_same_series() {
    let store = Store::new(LIMIT);
    let with = |attributes| {
        let mut metric = counted("requests", "/", NOW, 1);
        if let Some(opentelemetry_proto::tonic::metrics::v1::metric::Data::Sum(sum)) = &mut metric.data {
            sum.data_points[0].attributes = attributes;
        }
        metrics("app", vec![metric])
    };
    store.insert_at(with(vec![text("a", "1"), text("b", "2")]), NOW);
    store.insert_at(with(vec![text("b", "2"), text("a", "1")]), NOW);
    store.insert_at(with(vec![text("a", "1"), text("b", "3")]), NOW);
    assert_eq!(store.fill().series, 2);
}

/// Two requests of which one failed, one that is too old, and a task.
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
    assert_eq!(steps[59], 3, "billing's too");
    assert_eq!(overview["series"]["errors"][59], 1);
    assert_eq!(overview["series"]["p95_ns"][59], 20_000_000);
    assert_eq!(overview["series"]["p95_ns"][0], json!(null));
}

#[test]
fn a_senders_clock_counts_only_while_it_can_be_believed() {
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
fn the_map_shows_who_calls_whom() {
    let map = serde_json::to_value(busy_store().map(300_000 * MS, NOW)).expect("JSON");
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
        json!({"id": "database:postgresql/pressroom", "kind": "database", "name": "pressroom", "system": "postgresql"})
    );
    let all = serde_json::to_value(busy_store().map(u64::MAX, NOW)).expect("JSON");
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
    let map = serde_json::to_value(store.map(300_000 * MS, NOW)).expect("JSON");
    let froms: Vec<_> = map["edges"]
        .as_array()
        .expect("edges")
        .iter()
        .map(|edge| &edge["from"])
        .collect();
    assert_eq!(froms, ["service:app", "external:clients"]);
}
