//! Planted faults: for each, telemetry of a service that has the fault, and the problem that names it.

use opentelemetry_proto::tonic::{
    common::v1::any_value::Value,
    metrics::v1::{AggregationTemporality, Histogram, HistogramDataPoint, Metric, metric},
    trace::v1::{
        Span,
        span::{Event, SpanKind},
    },
};

use super::{Kind, ProblemSearch, Problems, Since};
use crate::{
    export::Export,
    store::{
        Store,
        fixture::{
            MS, NOW, attribute, counted, failed, lasting, metrics as metrics_of, of_kind, record, records,
            span, spans, text,
        },
    },
};

/// Time of the search: long enough after [`NOW`] that parents can no longer arrive.
const LATER: u64 = NOW + 60_000 * MS;

fn request(trace: u64, route: &str, status: i64) -> Span {
    let attributes = [("http.request.method", "GET"), ("http.route", route)];
    let mut request = of_kind(span(trace, 1, 0, "GET"), SpanKind::Server, &attributes);
    request
        .attributes
        .push(attribute("http.response.status_code", Value::IntValue(status)));
    request
}

fn statement(trace: u64, id: u64, statement: &str) -> Span {
    let attributes = [("db.system.name", "postgresql"), ("db.query.text", statement)];
    of_kind(span(trace, id, 1, "SELECT"), SpanKind::Client, &attributes)
}

fn call(trace: u64, id: u64) -> Span {
    of_kind(
        span(trace, id, 1, "GET"),
        SpanKind::Client,
        &[("server.address", "pay.example")],
    )
}

fn task(trace: u64, id: u64, parent: u64, message: &str) -> Span {
    let attributes = [
        ("messaging.system", "celery"),
        ("messaging.operation.type", "process"),
        ("messaging.message.id", message),
        ("celery.task_name", "mail.send"),
    ];
    of_kind(
        span(trace, id, parent, "celery.run"),
        SpanKind::Consumer,
        &attributes,
    )
}

fn raised(span: Span, kind: &str, message: &str, stack: &str) -> Span {
    let mut span = failed(span);
    span.events.push(Event {
        name: "exception".to_owned(),
        attributes: vec![
            text("exception.type", kind),
            text("exception.message", message),
            text("exception.stacktrace", stack),
        ],
        ..Event::default()
    });
    span
}

const STACK: &str =
    "Traceback (most recent call last):\n  File \"/app/orders.py\", line 12, in load\n    raise ValueError";

fn shop(spans_of_shop: Vec<Span>) -> Vec<Export> {
    vec![spans("shop", spans_of_shop)]
}

fn with(first: Span, others: impl IntoIterator<Item = Span>) -> Vec<Export> {
    shop(std::iter::once(first).chain(others).collect())
}

/// Returns the planted faults: the kind and a part of the title of the problem, and the telemetry.
fn faults() -> Vec<(Kind, &'static str, Vec<Export>)> {
    let skewed = |shift: i64| {
        let client = call(1, 2);
        let mut server = of_kind(span(1, 3, 2, "GET /pay"), SpanKind::Server, &[]);
        server.start_time_unix_nano = server.start_time_unix_nano.saturating_add_signed(shift);
        server.end_time_unix_nano = server.end_time_unix_nano.saturating_add_signed(shift);
        let requests = vec![request(1, "/orders", 200), client];
        vec![spans("shop", requests), spans("pay", vec![server])]
    };
    let sent = |waited: u64| {
        let mut sent = of_kind(span(1, 2, 1, "send"), SpanKind::Producer, &[]);
        sent.start_time_unix_nano = NOW - waited - 2 * MS;
        sent.end_time_unix_nano = NOW - waited - MS;
        let mut root = lasting(request(1, "/orders", 200), 500 * MS);
        root.start_time_unix_nano = NOW - waited - 3 * MS;
        root.end_time_unix_nano = NOW - waited;
        vec![
            spans("shop", vec![root, sent]),
            spans("worker", vec![task(1, 3, 2, "m1")]),
        ]
    };
    let author = |id: u64| statement(1, id, &format!("SELECT name FROM author WHERE id = {id}"));
    vec![
        (
            Kind::Error,
            "ValueError in File \"/app/orders.py\", line 12, in load",
            shop(vec![raised(
                request(1, "/orders", 500),
                "ValueError",
                "no order 7",
                STACK,
            )]),
        ),
        (
            Kind::Error,
            "it failed in SELECT",
            with(
                failed(request(1, "/orders", 500)),
                [failed(statement(1, 2, "SELECT broken"))],
            ),
        ),
        (
            Kind::NPlusOne,
            "20 × SELECT name FROM author WHERE id = ? in GET /orders",
            with(request(1, "/orders", 200), (2..22).map(author)),
        ),
        (
            Kind::NPlusOne,
            "7 × GET in GET /orders",
            with(request(1, "/orders", 200), (2..9).map(|id| call(1, id))),
        ),
        (
            Kind::SlowStatement,
            "SELECT a FROM b WHERE c = ?",
            with(
                lasting(request(1, "/orders", 200), 160 * MS),
                [lasting(
                    statement(1, 2, "SELECT a FROM b WHERE c = 'x'"),
                    150 * MS,
                )],
            ),
        ),
        (
            Kind::SlowRequest,
            "GET /report is slow",
            shop(vec![lasting(request(1, "/report", 200), 1_500 * MS)]),
        ),
        (
            Kind::SlowCall,
            "the call GET is slow",
            with(
                lasting(request(1, "/orders", 200), 1_300 * MS),
                [lasting(call(1, 2), 1_200 * MS)],
            ),
        ),
        (
            Kind::SlowTask,
            "mail.send is slow",
            shop(vec![lasting(task(1, 1, 0, "m1"), 3_000 * MS)]),
        ),
        (
            Kind::FailedTask,
            "mail.send failed: SMTPError in File \"/app/orders.py\"",
            shop(vec![raised(task(1, 1, 0, "m1"), "SMTPError", "refused", STACK)]),
        ),
        (
            Kind::PoisonMessage,
            "a message of mail.send failed 4 times",
            (1..=4)
                .flat_map(|trace| shop(vec![failed(task(trace, 1, 0, "m1"))]))
                .collect(),
        ),
        (
            Kind::DuplicateMessage,
            "a message of mail.send was processed 2 times",
            (1..=2)
                .flat_map(|trace| shop(vec![task(trace, 1, 0, "m1")]))
                .collect(),
        ),
        (
            Kind::RetryStorm,
            "6 × GET in GET /orders, after failures",
            with(
                request(1, "/orders", 200),
                (2..7).map(|id| failed(call(1, id))).chain([call(1, 7)]),
            ),
        ),
        (
            Kind::PoolExhausted,
            "TimeoutError in GET /orders",
            shop(vec![raised(
                request(1, "/orders", 500),
                "TimeoutError",
                "QueuePool limit of size 5 overflow 10 reached, connection timed out",
                "",
            )]),
        ),
        (
            Kind::PoolExhausted,
            "pool timed out while waiting for an open connection",
            vec![records(
                "shop",
                vec![record(
                    0,
                    13,
                    "pool timed out while waiting for an open connection",
                )],
            )],
        ),
        (
            Kind::PoolWait,
            "pool.acquire waited for a connection",
            with(
                request(1, "/orders", 200),
                [lasting(span(1, 2, 1, "pool.acquire"), 80 * MS)],
            ),
        ),
        (
            Kind::WrongStatus,
            "GET /orders got 500, but its status is not an error",
            shop(vec![request(1, "/orders", 500)]),
        ),
        (
            Kind::WrongStatus,
            "GET /orders responded 404, but its status is an error",
            shop(vec![failed(request(1, "/orders", 404))]),
        ),
        (
            Kind::WrongStatus,
            "GET /orders responded 200 although SELECT failed",
            with(request(1, "/orders", 200), [failed(statement(1, 2, "SELECT 1"))]),
        ),
        (
            Kind::QueueDelay,
            "messages of mail.send waited in the queue",
            sent(4_000 * MS),
        ),
        (
            Kind::LostParent,
            "the parent of step is missing",
            shop(vec![span(1, 2, 9, "step")]),
        ),
        (
            Kind::ClockSkew,
            "the clock of pay is behind that of shop",
            skewed(-5_000_000_000),
        ),
        (
            Kind::ClockSkew,
            "the clock of pay is ahead of that of shop",
            skewed(5_000_000_000),
        ),
        (
            Kind::UnnamedService,
            "step has no service name",
            vec![spans("", vec![span(1, 1, 0, "step")])],
        ),
        (
            Kind::ErrorLog,
            "cannot write order #",
            vec![records("shop", vec![record(0, 17, "cannot write order 12")])],
        ),
    ]
}

fn problems(store: &Store, search: &ProblemSearch) -> Problems {
    let search = ProblemSearch {
        limit: 100,
        ..search.clone()
    };
    store.problems(&search, LATER)
}

fn store_of(exports: Vec<Export>, now: u64) -> Store {
    let store = Store::new(1 << 20);
    for export in exports {
        store.insert_at(export, now);
    }
    store
}

#[test]
fn every_planted_fault_is_named() {
    for (kind, title, exports) in faults() {
        let store = store_of(exports, NOW);
        let found = problems(&store, &ProblemSearch::default());
        assert!(
            found
                .problems
                .iter()
                .any(|problem| problem.kind == kind && problem.title.contains(title)),
            "{kind:?} {title}: {:?}",
            found.problems
        );
    }
}

#[test]
fn pools_without_connections_are_found_in_their_metrics() {
    let second = 1_000 * MS;
    let timeouts = |time, value| {
        let mut metric = counted("db.client.connection.timeouts", "/", time, value);
        if let Some(metric::Data::Sum(sum)) = &mut metric.data {
            sum.data_points[0].attributes = vec![text("db.client.connection.pool.name", "main")];
        }
        metric
    };
    let waits = |time, counts: [u64; 2]| Metric {
        name: "db.client.connection.wait_time".to_owned(),
        unit: "s".to_owned(),
        data: Some(metric::Data::Histogram(Histogram {
            data_points: vec![HistogramDataPoint {
                start_time_unix_nano: NOW - second,
                time_unix_nano: time,
                count: counts.iter().sum(),
                sum: Some(0.1),
                bucket_counts: counts.to_vec(),
                explicit_bounds: vec![0.2],
                ..HistogramDataPoint::default()
            }],
            aggregation_temporality: AggregationTemporality::Cumulative as i32,
        })),
        ..Metric::default()
    };
    let found = |metrics: Vec<Metric>| -> Vec<(Kind, String, u64)> {
        let store = store_of(vec![metrics_of("shop", metrics)], NOW);
        let found = problems(&store, &ProblemSearch::default()).problems.into_iter();
        found
            .map(|problem| (problem.kind, problem.title, problem.count))
            .collect()
    };
    let points = |values: [i64; 3]| {
        let mut time = NOW;
        values.map(|value| {
            time += second;
            timeouts(time, value)
        })
    };
    assert_eq!(
        found(points([0, 2, 5]).into()),
        [(
            Kind::PoolExhausted,
            "requests for a connection of the pool main timed out".to_owned(),
            2
        )]
    );
    assert_eq!(found(points([0, 0, 0]).into()), []);
    assert_eq!(
        found(vec![waits(NOW, [0, 0]), waits(NOW + second, [5, 95])]),
        [(
            Kind::PoolWait,
            "requests waited for a connection of the pool".to_owned(),
            1
        )]
    );
    let short = |time, count| {
        let mut metric = waits(time, [count, 0]);
        if let Some(metric::Data::Histogram(histogram)) = &mut metric.data {
            histogram.data_points[0].explicit_bounds = vec![0.02];
        }
        metric
    };
    assert_eq!(found(vec![short(NOW, 1), short(NOW + second, 100)]), []);
}

#[test]
fn telemetry_without_faults_has_no_problems() {
    let retried = with(
        request(1, "/orders", 200),
        [failed(statement(1, 2, "SELECT 1")), statement(1, 3, "SELECT 1")],
    );
    let few = with(
        request(1, "/orders", 200),
        (2..6).map(|id| statement(1, id, "SELECT a FROM b WHERE c = 1")),
    );
    let different = with(
        request(1, "/orders", 200),
        (2..20).map(|id| statement(1, id, &format!("SELECT a{id} FROM b"))),
    );
    let distinct_messages = (1..=5).flat_map(|trace| shop(vec![task(trace, 1, 0, &format!("m{trace}"))]));
    for exports in [
        few,
        different,
        distinct_messages.collect(),
        shop(vec![request(1, "/orders", 404)]),
    ] {
        let found = problems(&store_of(exports, NOW), &ProblemSearch::default());
        assert!(found.problems.is_empty(), "{:?}", found.problems);
    }
    // A failed statement that succeeded later is an error, but not a wrong status.
    let found = problems(&store_of(retried, NOW), &ProblemSearch::default());
    let kinds: Vec<_> = found.problems.iter().map(|problem| problem.kind).collect();
    assert_eq!(kinds, [Kind::Error]);
}

#[test]
fn an_exception_is_counted_where_it_was_raised() {
    let raise = |trace| {
        let inner = raised(statement(trace, 2, "SELECT 1"), "ValueError", "no", STACK);
        let outer = raised(request(trace, "/orders", 500), "ValueError", "no", STACK);
        let mut log = record(trace, 17, "request failed");
        log.attributes.push(text("exception.type", "ValueError"));
        [spans("shop", vec![outer, inner]), records("shop", vec![log])]
    };
    let store = store_of((1..=4).flat_map(raise).collect(), NOW);
    let found = problems(&store, &ProblemSearch::default());
    assert_eq!(found.problems.len(), 1, "{:?}", found.problems);
    let json = serde_json::to_value(&found.problems[0]).expect("JSON");
    let id = |trace: u64| format!("{trace:032x}");
    assert_eq!(
        json,
        serde_json::json!({
            "kind": "error", "title": "ValueError in File \"/app/orders.py\", line 12, in load", "service": "shop",
            "count": 4, "traces": 4, "new": false,
            "first_seen_unix_nano": NOW.to_string(), "last_seen_unix_nano": NOW.to_string(),
            "total_ns": 4_000_000, "max_ns": 1_000_000,
            "trace_ids": [id(4), id(3), id(2)], "span_id": "0000000000000002",
        })
    );
}

#[test]
fn problems_are_new_if_they_did_not_occur_before() {
    let store = Store::new(1 << 20);
    let slow = |trace, route| lasting(request(trace, route, 200), 2_000 * MS);
    let at = |span: Span, time: u64| {
        let duration = span.end_time_unix_nano - span.start_time_unix_nano;
        Span {
            start_time_unix_nano: time - duration,
            end_time_unix_nano: time,
            ..span
        }
    };
    let instance = |export: Export, instance: &str| {
        let Export::Traces(mut request) = export else {
            unreachable!("traces");
        };
        let resource = request.resource_spans[0].resource.as_mut().expect("a resource");
        resource.attributes.push(text("service.instance.id", instance));
        Export::Traces(request)
    };
    let second = NOW + 1_000 * MS;
    let third = NOW + 2_000 * MS;
    store.insert_at(instance(spans("shop", vec![slow(1, "/old")]), "1"), NOW);
    store.insert_at(instance(spans("shop", vec![at(slow(2, "/both"), NOW)]), "1"), NOW);
    store.insert_at(
        instance(spans("shop", vec![at(slow(3, "/both"), second)]), "2"),
        second,
    );
    store.insert_at(
        instance(spans("shop", vec![at(slow(4, "/new"), third)]), "2"),
        third,
    );

    let titles = |since| -> Vec<(String, bool)> {
        let search = ProblemSearch {
            since,
            ..ProblemSearch::default()
        };
        let found = problems(&store, &search).problems.into_iter();
        found.map(|problem| (problem.title, problem.is_new)).collect()
    };
    let title = |route: &str, is_new| (format!("GET {route} is slow"), is_new);
    assert_eq!(
        titles(Since::Ever),
        [title("/both", false), title("/new", false), title("/old", false)]
    );
    let expected = [title("/new", true), title("/both", false)];
    assert_eq!(titles(Since::Time(second)), expected);
    assert_eq!(titles(Since::Restart), expected);
    assert_eq!(titles(Since::Time(third + 1)), []);

    let found = serde_json::to_value(problems(&store, &ProblemSearch::default())).expect("JSON");
    assert_eq!(
        found["services"],
        serde_json::json!([{"service": "shop", "started_unix_nano": second.to_string(), "restarted": true}])
    );
}

#[test]
fn the_largest_of_each_kind_come_first() {
    let mut exports = Vec::new();
    for trace in 1..=9 {
        let route = ["/a", "/b", "/b", "/c", "/c", "/c", "/a", "/c", "/b"][trace as usize - 1];
        exports.extend(shop(vec![lasting(request(trace, route, 200), 2_000 * MS)]));
    }
    exports.extend(shop(vec![span(99, 2, 9, "step")]));
    let store = store_of(exports, NOW);
    let search = ProblemSearch {
        limit: 3,
        ..ProblemSearch::default()
    };
    let found = store.problems(&search, LATER);
    let titles: Vec<_> = found
        .problems
        .iter()
        .map(|problem| (&*problem.title, problem.count))
        .collect();
    assert_eq!(
        titles,
        [
            ("GET /c is slow", 4),
            ("the parent of step is missing", 1),
            ("GET /b is slow", 3)
        ]
    );
    assert_eq!(found.total, 4);
    let only = |kind, service: &str| ProblemSearch {
        kind,
        service: Some(service.to_owned()),
        ..ProblemSearch::default()
    };
    assert_eq!(
        problems(&store, &only(Some(Kind::LostParent), "shop"))
            .problems
            .len(),
        1
    );
    assert_eq!(problems(&store, &only(None, "other")).problems.len(), 0);
}

#[test]
fn parents_may_arrive_late_and_may_form_cycles() {
    let store = store_of(shop(vec![span(1, 2, 9, "step")]), NOW);
    let search = ProblemSearch {
        limit: 10,
        ..ProblemSearch::default()
    };
    assert!(store.problems(&search, NOW + 4_000 * MS).problems.is_empty());
    let cycle = (1..=60).map(|id| {
        let mut one = statement(1, id, "SELECT a FROM b");
        one.parent_span_id = (id % 60 + 1).to_be_bytes().to_vec();
        one
    });
    let store = store_of(shop(cycle.collect()), NOW);
    store.problems(&search, LATER);
}
