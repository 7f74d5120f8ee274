//! Filters find the same in the archive as in memory, although an index skips most of the archive.

use opentelemetry_proto::tonic::{
    common::v1::{ArrayValue, any_value::Value},
    trace::v1::{
        Span,
        span::{Event, SpanKind},
    },
};

use super::*;
use crate::{
    archive::blocks::BlockFilter,
    store::{
        Attribute, SearchPage, StatusFilter, StoredRecord, Subject, Text, TimePosition, TraceSummary,
        fixture::{attribute, of_kind, text},
        parse_query,
    },
};

const TRACES: u64 = 400;

/// Returns the telemetry of a trace, whose texts and values depend on its number.
fn telemetry(number: u64) -> [Export; 3] {
    let time = NOW + number * 1_000 * MS;
    let at = |mut span: Span, offset: u64, duration: u64| {
        span.start_time_unix_nano = time + offset * MS;
        span.end_time_unix_nano = span.start_time_unix_nano + duration * MS;
        span
    };
    let attributes = [("http.request.method", "GET"), ("http.route", "/api/carts/{id}")];
    let request = of_kind(span(number, 1, 0, "GET"), SpanKind::Server, &attributes);
    let mut request = at(request, 0, 40 + number % 50);
    let code = if number % 90 == 7 { 503 } else { 200 };
    let elements = ["first", "second"].map(|text| Value::StringValue(format!("{text}-{number}")));
    let elements = elements.map(|value| attribute("", value).value.expect("a value"));
    request.attributes.extend([
        attribute("http.response.status_code", Value::IntValue(code)),
        attribute("ratio", Value::DoubleValue(number as f64 / 4.0)),
        attribute("cached", Value::BoolValue(number % 100 == 3)),
        attribute("lag", Value::DoubleValue((number % 100) as f64)),
        text("enduser.id", &number.to_string()),
        attribute(
            "parts",
            Value::ArrayValue(ArrayValue {
                values: elements.to_vec(),
            }),
        ),
        text(
            "url.full",
            &format!("https://Shop-{number}.example.com/carts?id={number}"),
        ),
    ]);
    if number % 120 == 11 {
        request.events.push(Event {
            name: "exception".to_owned(),
            attributes: vec![text("exception.type", &format!("Overflow{number}"))],
            ..Event::default()
        });
    }
    let mut statement = at(
        of_kind(
            span(number, 2, 1, "SELECT carts"),
            SpanKind::Client,
            &[("db.system", "sqlite")],
        ),
        5,
        if number == 77 { 900 } else { 10 },
    );
    if number % 110 == 9 {
        statement = failed(statement);
    }
    let severity = if number % 130 == 21 { 17 } else { 9 };
    let mut log = record(number, severity, &format!("Cart of user {number} was read"));
    log.time_unix_nano = time;
    log.attributes
        .push(attribute("size", Value::IntValue(number.cast_signed())));
    let service = if number % 150 == 33 { "rare" } else { "worker" };
    [
        spans(service, vec![statement]),
        spans("shop", vec![request]),
        records(service, vec![log]),
    ]
}

/// Returns an archive and a store with the same telemetry.
fn filled(file: &File) -> (Explorer, Store) {
    let explorer = start(&file.keep(), 64 << 10);
    let all = Store::new(64 << 20);
    for number in 1..TRACES {
        for export in telemetry(number) {
            let now = NOW + number * 1_000 * MS;
            all.insert_at(export.clone(), now);
            insert(&explorer, export, now);
        }
    }
    flush(&explorer);
    (explorer, all)
}

/// Returns the entries of all pages.
fn all_pages<T>(
    mut before: Option<TimePosition>,
    mut search: impl FnMut(Option<TimePosition>) -> SearchPage<T>,
) -> Vec<T> {
    let mut all = Vec::new();
    loop {
        let page = search(before);
        all.extend(page.entries);
        match page.next {
            Some(next) => before = Some(next),
            None => return all,
        }
    }
}

#[test]
fn filters_find_the_same_traces_on_disk_and_in_memory() {
    let file = File::new("trace-filters");
    let (explorer, all) = filled(&file);
    let archive = explorer.archive.as_ref().expect("an archive");
    let attribute = |filter: &str| TraceSearch {
        attributes: vec![Attribute::parse(filter).expect(filter)],
        ..PAGE
    };
    let query = |query: &str| TraceSearch {
        query: Some(parse_query(query, Subject::Spans).expect(query)),
        ..PAGE
    };
    let name = |name: &str| TraceSearch {
        name: Some(Text::new(name)),
        ..PAGE
    };
    let text = |text: &str| TraceSearch {
        text: Some(Text::new(text)),
        ..PAGE
    };
    let service = TraceSearch {
        service: Some("rare".to_owned()),
        ..PAGE
    };
    let slow = TraceSearch {
        min_duration: Some(100 * MS),
        ..PAGE
    };
    let status = TraceSearch {
        status: Some(StatusFilter::Error),
        ..PAGE
    };
    let times = TraceSearch {
        from: Some(NOW + 100_003 * MS),
        to: Some(NOW + 110_000 * MS),
        ..PAGE
    };
    let searches = [
        (service, true),
        (slow, true),
        (status, true),
        (times, true),
        (attribute("http.response.status_code=503"), true),
        (attribute("http.response.status_code>500"), true),
        (attribute("http.status_code=503"), true),
        (attribute("http.response.status_code!=200"), true),
        (attribute("ratio=12.50"), true),
        (attribute("ratio=12.5"), true),
        (attribute("lag=-0"), true),
        (attribute("cached=true"), true),
        (attribute("enduser.id=42"), true),
        (attribute("enduser.id=042"), false),
        (attribute("enduser.id~42"), true),
        (attribute("parts=second-42"), true),
        (attribute("parts~D-42"), true),
        (attribute("server.address=Shop-42.example.com"), true),
        (attribute("server.address=shop-42.example"), false),
        (attribute("db.system.name=sqlite"), true),
        (attribute("exception.type"), false),
        (name("get /api/CARTS"), true),
        (name("t car"), true),
        (name("select carts"), true),
        (name("select  carts"), false),
        (text("overflow131"), true),
        (text("OVERFLOW"), true),
        (text("it failed"), true),
        (text("absent"), false),
        (query("service=rare"), true),
        (query("service~ARE"), true),
        (query("service!=shop service!=worker"), true),
        (query("name=\"GET /api/carts/{id}\" enduser.id=42"), true),
        (query("name=GET enduser.id=42"), true),
        (query("enduser.id=42 OR enduser.id=43"), true),
        (query("!enduser.id~1 dur>80ms"), true),
        (query("dur>100ms"), true),
        (query("dur>=900ms"), true),
        (query("error=true"), true),
        (query("event=exception"), true),
        (query("event~excep exception.type=Overflow131"), true),
        (query("exception.type~flow1"), true),
        (query("overflow131"), true),
        (query("status>500"), true),
        (query("spans>2"), false),
        (query(&format!("trace={:032x}", 42)), true),
        (query(&format!("{:032x}", 42)), true),
        (query(&format!("{:032x}", 4_242)), false),
    ];
    for (search, is_found) in searches {
        let expected = all_pages(None, |before| {
            all.search_traces(&TraceSearch {
                before,
                ..search.clone()
            })
        });
        let found = all_pages(Some(TimePosition::END), |before| {
            let before = before.expect("a position");
            archive.search_traces(&search, before, 7).expect("a page")
        });
        let ids = |all: &[_]| {
            all.iter()
                .map(|trace: &TraceSummary| number(trace.trace_id))
                .collect::<Vec<_>>()
        };
        let (found, expected) = (ids(&found), ids(&expected));
        assert_eq!(found, expected, "{search:?}");
        assert_eq!(!found.is_empty(), is_found, "{search:?}");
    }
}

#[test]
fn filters_find_the_same_records_on_disk_and_in_memory() {
    let file = File::new("record-filters");
    let (explorer, all) = filled(&file);
    let archive = explorer.archive.as_ref().expect("an archive");
    let query = |query: &str| LogSearch {
        query: Some(parse_query(query, Subject::Records).expect(query)),
        ..LogSearch::default()
    };
    let trace = TraceId::from_bytes(&crate::store::fixture::trace_id(42));
    let searches = [
        (
            LogSearch {
                service: Some("rare".to_owned()),
                ..LogSearch::default()
            },
            true,
        ),
        (
            LogSearch {
                severity: Some(13),
                ..LogSearch::default()
            },
            true,
        ),
        (
            LogSearch {
                text: Some(Text::new("USER 42 ")),
                ..LogSearch::default()
            },
            true,
        ),
        (
            LogSearch {
                attributes: vec![Attribute::parse("size=42").expect("a filter")],
                ..LogSearch::default()
            },
            true,
        ),
        (
            LogSearch {
                trace,
                ..LogSearch::default()
            },
            true,
        ),
        (
            LogSearch {
                from: Some(NOW + 100_000 * MS),
                to: Some(NOW + 110_000 * MS),
                ..LogSearch::default()
            },
            true,
        ),
        (query("level>=error"), true),
        (query("level=error"), true),
        (query("level<error service=rare"), true),
        (query("body~\"user 42 \""), true),
        (query("body=\"Cart of user 42 was read\""), true),
        (query("size=42 OR size=43"), true),
        (query("size>397"), true),
        (query(&format!("trace={:032x}", 42)), true),
        (query(&format!("{:032x}", 42)), true),
    ];
    for (search, is_found) in searches {
        let expected = all_pages(None, |before| {
            all.search_logs(&LogSearch {
                before,
                limit: 7,
                ..search.clone()
            })
        });
        let found = all_pages(Some(TimePosition::END), |before| {
            let before = before.expect("a position");
            archive.search_logs(&search, before, 7).expect("a page")
        });
        let ids = |all: &[_]| {
            all.iter()
                .map(|record: &StoredRecord| record.time)
                .collect::<Vec<_>>()
        };
        let (found, expected) = (ids(&found), ids(&expected));
        assert_eq!(found, expected, "{search:?}");
        assert_eq!(!found.is_empty(), is_found, "{search:?}");
    }
}

#[test]
fn the_index_skips_blocks_without_the_text() {
    let file = File::new("blocks");
    let (explorer, _) = filled(&file);
    let reader = explorer
        .archive
        .as_ref()
        .expect("an archive")
        .readers
        .get()
        .expect("a reader");
    let blocks: Vec<i64> = reader
        .prepare("SELECT block FROM blocks")
        .and_then(|mut blocks| blocks.query_map([], |row| row.get(0))?.collect())
        .expect("blocks");
    assert_eq!(blocks.len(), (3 * (TRACES as usize - 1)) / 256 + 1);
    let accepted = |text: &str| {
        let mut grams = Vec::new();
        Text::new(text).grams(|gram| grams.push(gram));
        let mut filter = BlockFilter::new(&reader, &grams);
        let mut accepted = blocks.clone();
        accepted.retain(|block| filter.accepts(block << blocks::SHIFT).expect("a bitmap"));
        accepted.len()
    };
    assert_eq!((accepted("overflow131"), accepted("absent-text")), (1, 0));
    assert_eq!(accepted("SELECT carts"), blocks.len());
}
