//! Tests of the query language: what it finds, and what it refuses.

use opentelemetry_proto::tonic::{
    common::v1::any_value::Value,
    trace::v1::{
        Span,
        span::{Event, SpanKind},
    },
};

use super::{Subject, parse};
use crate::store::{
    LogSearch, Sort, Store, TraceSearch,
    fixture::{MS, NOW, attribute, failed, lasting, of_kind, record, records, span, spans, text},
};

/// A request of "shop" that failed with 500, with a query of 150 ms; a health check of "shop" with a query; a task of
/// "mail".
fn store() -> Store {
    let store = Store::new(1 << 20);
    let request = |trace, route, status| {
        let attributes = [("http.request.method", "GET"), ("http.route", route)];
        let mut request = of_kind(span(trace, 1, 0, "GET"), SpanKind::Server, &attributes);
        let status = attribute("http.response.status_code", Value::IntValue(status));
        request.attributes.push(status);
        request
    };
    let statement = |trace| {
        let attributes = [("db.system.name", "postgresql"), ("a=b", "c d")];
        of_kind(span(trace, 2, 1, "SELECT cart"), SpanKind::Client, &attributes)
    };
    let mut order = lasting(failed(request(1, "/orders/{id}", 500)), 200 * MS);
    order.events.push(Event {
        name: "exception".to_owned(),
        attributes: vec![text("exception.type", "ValueError")],
        ..Event::default()
    });
    store.insert_at(spans("shop", vec![order, lasting(statement(1), 150 * MS)]), NOW);
    store.insert_at(spans("shop", vec![request(2, "/health", 200), statement(2)]), NOW);
    let task = of_kind(
        span(3, 1, 0, "send mail"),
        SpanKind::Consumer,
        &[("messaging.operation.type", "process")],
    );
    store.insert_at(spans("mail", vec![Span { ..task }]), NOW);
    let mut visit = record(2, 0, "visited");
    visit.event_name = "page_view".to_owned();
    visit.attributes.push(attribute("size", Value::IntValue(12)));
    store.insert_at(
        records(
            "shop",
            vec![record(1, 17, "no such Cart"), record(0, 13, "slow (cart)"), visit],
        ),
        NOW,
    );
    store
}

fn found(store: &Store, query: &str) -> Vec<String> {
    let search = TraceSearch {
        query: Some(parse(query, Subject::Spans).expect(query)),
        limit: 10,
        ..TraceSearch::default()
    };
    let traces = store.search_traces(&search).entries.into_iter();
    let mut numbers: Vec<_> = traces
        .map(|trace| trace.trace_id.to_string().trim_start_matches('0').to_owned())
        .collect();
    numbers.sort();
    numbers
}

#[test]
fn a_trace_matches_if_one_span_matches_all_terms() {
    let store = store();
    for (query, expected) in [
        ("service=shop", &["1", "2"][..]),
        ("service=shop !name~health status>=500 dur>100ms", &["1"]),
        ("service!=shop", &["3"]),
        ("service~SH", &["1", "2"]),
        ("service!~sh", &["3"]),
        ("name~ORDERS", &["1"]),
        ("name=\"GET /orders/{id}\"", &["1"]),
        ("name=GET", &["1", "2"]),
        // The health check has another span whose name does not contain the text.
        ("name!~health", &["1", "2", "3"]),
        ("!name~health", &["1", "3"]),
        ("!!name~health", &["2"]),
        ("!(name~health or service=mail)", &["1"]),
        ("!name~health !service=mail", &["1"]),
        ("status=500", &["1"]),
        ("status!=200", &["1"]),
        ("!status=200", &["1", "3"]),
        ("status<500", &["2"]),
        ("status~50", &["1"]),
        ("http.status_code>499", &["1"]),
        ("status=error", &["1"]),
        ("status=ok", &["2", "3"]),
        ("status!=ok", &["1"]),
        ("status=unset service=shop", &["1", "2"]),
        ("status=*", &["1", "2"]),
        ("error=true", &["1"]),
        ("error=false", &["2", "3"]),
        ("error!=true", &["2", "3"]),
        ("dur>=150ms", &["1"]),
        ("dur>150ms dur<200ms", &[]),
        ("dur>0.1s kind=client", &["1"]),
        ("trace.dur<=1ms", &["2", "3"]),
        ("spans=2", &["1", "2"]),
        ("spans>1 services=1 errors<1", &["2"]),
        ("kind=server", &["1", "2"]),
        ("kind!=server", &["1", "2", "3"]),
        ("kind=consumer or kind=producer", &["3"]),
        ("event=exception", &["1"]),
        ("event=*", &["1"]),
        ("!event=*", &["2", "3"]),
        ("exception.type=ValueError", &["1"]),
        ("service.name=mail", &["3"]),
        ("db.system=postgresql", &["1", "2"]),
        ("db.system=*", &["1", "2"]),
        ("db.system!=*", &["3"]),
        ("db.system!=mysql", &["1", "2"]),
        ("\"a=b\"=\"c d\"", &["1", "2"]),
        ("'a=b'~C", &["1", "2"]),
        ("\"status\"=500", &[]),
        ("postgresql", &["1", "2"]),
        ("\"it failed\"", &["1"]),
        ("text~valueerror", &["1"]),
        ("text!~valueerror", &["2", "3"]),
        ("trace=00000000000000000000000000000003", &["3"]),
        ("trace!=00000000000000000000000000000003", &["1", "2"]),
        ("00000000000000000000000000000003", &["3"]),
        ("span=0000000000000002", &["1", "2"]),
        ("scope=test name~mail", &["3"]),
        ("service=mail or status=500", &["1", "3"]),
        ("service=shop and status=500 OR service=mail", &["1", "3"]),
        ("service=shop (status=500 or status=200) dur<1s", &["1", "2"]),
        ("( service = shop ) status >= 500", &["1"]),
        // The terms match different spans.
        ("kind=client status=500", &[]),
        ("kind=client !status=500", &["2"]),
        ("or=1", &[]),
    ] {
        assert_eq!(found(&store, query), expected, "{query}");
    }
}

#[test]
fn records_are_found_by_the_same_language() {
    let store = store();
    for (query, expected) in [
        ("level>=warn", &["1", "2"][..]),
        ("level=warn", &["2"]),
        ("level!=warn", &["1"]),
        ("level<error", &["2"]),
        ("!level=warn", &["1", "3"]),
        ("error=true", &["1"]),
        ("body~CART !body~slow", &["1"]),
        ("body=visited", &["3"]),
        ("body=\"slow (cart)\"", &["2"]),
        ("body~(cart)", &["2"]),
        ("(body~(cart))", &["2"]),
        ("body!=visited", &["1", "2"]),
        ("event=page_view", &["3"]),
        ("!event=*", &["1", "2"]),
        ("size>=12", &["3"]),
        ("size>12", &[]),
        ("service.name=shop cart", &["1", "2"]),
        ("trace=00000000000000000000000000000001", &["1"]),
        ("00000000000000000000000000000001", &["1"]),
        ("span=0000000000000001", &["1", "3"]),
        ("slow or visited", &["2", "3"]),
    ] {
        let search = LogSearch {
            query: Some(parse(query, Subject::Records).expect(query)),
            limit: 10,
            ..LogSearch::default()
        };
        let records = store.search_logs(&search).entries.into_iter();
        let mut numbers: Vec<_> = records.map(|record| record.sequence.to_string()).collect();
        numbers.sort();
        assert_eq!(numbers, expected, "{query}");
    }
}

#[test]
fn a_wrong_query_is_refused_with_the_position() {
    for (query, problem) in [
        ("service=", "a value is missing after `=` at character 9"),
        ("a (b=)", "a value is missing after `=` at character 6"),
        ("=a", "a field is missing before `=` at character 1"),
        ("é =", "a value is missing after `=` at character 4"),
        ("!", "a term is missing"),
        ("a or", "a term is missing at character 5"),
        ("or a", "a term is missing at character 1"),
        ("a and", "a term is missing at character 6"),
        ("a and or b", "a term is missing at character 7"),
        ("()", "a term is missing at character 2"),
        ("(a", "this parenthesis is not closed at character 1"),
        ("a) b", "this parenthesis was not opened at character 2"),
        ("name=\"a", "this quote is not closed at character 6"),
        (
            "name=\"a\"b",
            "a blank is missing after the quoted value at character 9",
        ),
        (
            "status==500",
            "`==` is no operator; quote a value that starts with `=`, at character 8",
        ),
        ("name=~a", "`=~` is no operator"),
        ("dur=>5ms", "`=>` is no operator"),
        ("name=GET*", "`*` is no wildcard"),
        ("service:shop", "write `service=…` instead of `service:…`"),
        ("a && b", "`&&` is no operator"),
        ("a || b", "`||` is no operator"),
        (
            "dur>100",
            "`dur` needs a duration such as `250us`, `10ms`, `1.5s` or `2m` at character 5",
        ),
        (
            "dur~1ms",
            "`dur` is compared with `=`, `!=`, `<`, `<=`, `>` and `>=`, not with `~`, at character 1",
        ),
        ("spans>many", "`spans` needs a number"),
        ("spans>-1", "`spans` needs a number"),
        ("http.route>/a", "`>` needs a number at character 12"),
        ("service>a", "`service` is compared with `=`, `!=`, `~` and `!~`"),
        ("text=a", "`text` is compared with `~` and `!~`"),
        ("kind=web", "`kind` is one of `server`, `client`"),
        ("kind>server", "`kind` is compared with `=` and `!=`"),
        ("error=yes", "`error` is one of `true`, `false`"),
        ("status=bad", "`status` is a number, `error`, `ok` or `unset`"),
        ("status>error", "`status` is compared with `=` and `!=`"),
        ("trace=12", "`trace` needs 32 hexadecimal digits"),
        (
            "level=warn",
            "`level` is no field of traces; quote an attribute of this name at character 1",
        ),
        ("service=*", "`service` always exists"),
        ("\"\"", "the text is empty"),
    ] {
        let error = parse(query, Subject::Spans)
            .map(|_| ())
            .expect_err(query)
            .to_string();
        assert!(error.contains(problem), "{query}: {error}");
    }
    for (query, problem) in [
        ("level=loud", "`level` is one of `trace`, `debug`"),
        ("dur>1s", "`dur` is no field of log records"),
        ("status=error", "`status` is a number; this value is none"),
    ] {
        let error = parse(query, Subject::Records)
            .map(|_| ())
            .expect_err(query)
            .to_string();
        assert!(error.contains(problem), "{query}: {error}");
    }
}

#[test]
fn the_digits_of_a_stored_trace_find_only_this_trace() {
    let id = "00000000000000000000000000000003";
    let store = store();
    let quoting = of_kind(span(4, 1, 0, "see"), SpanKind::Internal, &[("other", id)]);
    store.insert_at(spans("shop", vec![quoting]), NOW);
    assert_eq!(found(&store, id), ["3"]);
    assert_eq!(found(&store, &format!("service=mail {id}")), ["3"]);
    assert_eq!(found(&store, &format!("service=shop {id}")), Vec::<String>::new());
    assert_eq!(found(&store, &format!("text~{id}")), ["4"]);
    assert_eq!(
        found(&store, &format!("{id} or service=shop")),
        ["1", "2", "3", "4"]
    );
    assert_eq!(found(&store, &format!("!trace={id}")), ["1", "2", "4"]);
    assert_eq!(found(&store, &id.replace('3', "9")), Vec::<String>::new());
}

#[test]
fn no_text_makes_the_parser_fail_without_a_position() {
    let letters = [
        "a", "é", " ", "=", "!", "~", "<", "(", ")", "\"", "\\", "or ", "dur",
    ];
    let count = letters.len();
    for number in 0..count.pow(4) {
        let text: String = (0..4)
            .map(|digit| letters[number / count.pow(digit) % count])
            .collect();
        for subject in [Subject::Spans, Subject::Records] {
            if let Err(error) = parse(&text, subject) {
                let last = text.chars().count() + 1;
                assert!((1..=last).contains(&error.position), "{text}: {error}");
            }
        }
    }
}

#[test]
fn the_size_of_a_query_is_bounded() {
    let many = |count| vec!["a"; count].join(" ");
    assert!(parse(&many(32), Subject::Spans).is_ok());
    assert!(parse(&many(33), Subject::Spans).is_err());
    let nested = |depth| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
    assert!(parse(&nested(16), Subject::Spans).is_ok());
    assert!(parse(&nested(17), Subject::Spans).is_err());
    assert!(parse(&"!".repeat(2_000), Subject::Spans).is_err());
    assert!(parse(&"a".repeat(2_001), Subject::Spans).is_err());
}

#[test]
fn traces_are_sorted_by_every_column_on_all_pages() {
    let store = store();
    for (column, expected) in [
        ("-duration", ["1", "2", "3"]),
        ("duration", ["2", "3", "1"]),
        ("start", ["1", "2", "3"]),
        ("-start", ["2", "3", "1"]),
        ("-spans", ["1", "2", "3"]),
        ("spans", ["3", "1", "2"]),
        ("-errors", ["1", "2", "3"]),
        ("-logs", ["1", "2", "3"]),
        ("services", ["1", "2", "3"]),
        ("-name", ["3", "1", "2"]),
        ("service", ["3", "1", "2"]),
    ] {
        let sort = Sort::parse(column).expect(column);
        for limit in 1..=3 {
            let search = TraceSearch {
                limit,
                ..TraceSearch::default()
            };
            let (mut all, mut after) = (Vec::new(), None);
            loop {
                let page = store.sort_traces(&search, sort, after.as_ref());
                assert!(page.is_complete);
                all.extend(page.entries.iter().map(|trace| {
                    let id = trace.trace_id.to_string();
                    id.trim_start_matches('0').to_owned()
                }));
                match page.next {
                    Some(next) => after = super::super::Position::parse(&next.to_text(), sort),
                    None => break,
                }
            }
            assert_eq!(all, expected, "{column} with pages of {limit}");
        }
    }
    assert!(Sort::parse("size").is_none());
    assert!(Sort::parse("--start").is_none());
}

#[test]
fn completions_are_the_keys_and_values_seen() {
    let store = store();
    let texts = |subject, key| -> Vec<String> {
        let completions = store.completions(subject, key);
        completions.into_iter().map(|one| one.text).collect()
    };
    let keys = texts(Subject::Spans, None);
    assert_eq!(keys[0], "service.name");
    assert!(keys.contains(&"exception.type".to_owned()), "{keys:?}");
    assert_eq!(texts(Subject::Spans, Some("service")), ["shop", "mail"]);
    assert_eq!(
        texts(Subject::Spans, Some("http.response.status_code")),
        ["200", "500"]
    );
    assert_eq!(texts(Subject::Spans, Some("event")), ["exception"]);
    assert_eq!(texts(Subject::Records, None), ["service.name", "size"]);
    assert_eq!(texts(Subject::Records, Some("event")), ["page_view"]);
}
