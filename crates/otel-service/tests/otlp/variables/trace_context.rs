//! The cases of the W3C test suite for Trace Context, levels 1 and 2: what a service that receives these headers sends
//! in its own calls. The values of the cases are those of the suite; it is not part of this project
//! (<https://github.com/w3c/trace-context/tree/main/test>).

use std::collections::HashSet;

use http::{HeaderName, HeaderValue, Request, Response};
use otel_service::instrumentation::inject_context_of;
use otel_service::{HttpLayer, extract_context};
use tower::{Layer, ServiceExt};

use super::LONG;
use crate::support::{self, Behaviour, Problem};

const TRACE: &str = "12345678901234567890123456789012";
const PARENT: &str = "1234567890123456";

/// Headers of a call, by name.
#[derive(Debug)]
struct Sent(Vec<(String, String)>);

impl Sent {
    fn get(&self, name: &str) -> Option<&str> {
        let mut named = self.0.iter().filter(|(other, _)| other == name);
        let value = named.next().map(|(_, value)| value.as_str());
        assert!(named.next().is_none(), "several {name} headers");
        value
    }

    /// Returns the fields of the `traceparent`.
    fn parent(&self) -> [&str; 4] {
        let fields: Vec<&str> = self.get("traceparent").unwrap().split('-').collect();
        let fields: [&str; 4] = fields.try_into().unwrap();
        assert_eq!(fields.map(str::len), [2, 32, 16, 2]);
        assert_ne!(fields[2], PARENT);
        fields
    }

    fn state(&self) -> Option<&str> {
        self.get("tracestate")
    }
}

/// Sends a request with `headers` to a service that makes a call.
fn send(headers: &[(&str, &str)]) -> Sent {
    let service = HttpLayer::new(|_| None).layer(tower::service_fn(|_: Request<()>| async {
        let sent = otel_service::inject_context();
        let mut response = Response::new(String::new());
        response.extensions_mut().insert(sent);
        Ok::<_, Problem>(response)
    }));
    let mut request = Request::new(());
    for (name, value) in headers {
        // Header names are case-insensitive.
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        request.headers_mut().append(name, value);
    }
    let response = support::block_on(service.oneshot(request)).unwrap();
    Sent(response.extensions().get::<Vec<_>>().unwrap().clone())
}

/// Runs `cases` in a process with telemetry.
fn run(name: &str, cases: impl FnOnce()) {
    let test = format!("variables::trace_context::{name}");
    support::run(&test, Behaviour::Accepts, &[], || {
        let telemetry = otel_service::init(support::SERVICE).unwrap();
        cases();
        telemetry.shutdown(LONG).unwrap();
    });
}

#[test]
fn a_valid_traceparent_is_continued() {
    run("a_valid_traceparent_is_continued", || {
        let valid = format!("00-{TRACE}-{PARENT}-01");
        for (name, value) in [
            ("traceparent", valid.clone()),
            ("TraceParent", valid.clone()),
            ("TrAcEpArEnT", valid.clone()),
            ("TRACEPARENT", valid.clone()),
            ("traceparent", format!(" {valid}")),
            ("traceparent", format!("\t{valid}")),
            ("traceparent", format!("{valid} ")),
            ("traceparent", format!("{valid}\t")),
            ("traceparent", format!("\t {valid} \t")),
            ("traceparent", format!("cc-{TRACE}-{PARENT}-01")),
            (
                "traceparent",
                format!("cc-{TRACE}-{PARENT}-01-what-the-future-will-be-like"),
            ),
        ] {
            let sent = send(&[(name, &value)]);
            assert_eq!(sent.parent()[..2], ["00", TRACE], "{value:?}");
            assert_eq!(sent.parent()[3], "01", "{value:?}");
            assert_eq!(sent.state(), None);
        }
    });
}

#[test]
fn an_invalid_traceparent_starts_a_new_trace() {
    run("an_invalid_traceparent_starts_a_new_trace", || {
        let valid = format!("00-{TRACE}-{PARENT}-01");
        let mut requests = vec![
            vec![],
            vec![("trace-parent", valid.clone())],
            vec![("trace.parent", valid.clone())],
            vec![
                (
                    "traceparent",
                    format!("00-12345678901234567890123456789011-{PARENT}-01"),
                ),
                ("traceparent", valid.clone()),
            ],
            vec![("traceparent", valid.clone()), ("traceparent", valid.clone())],
            vec![("traceparent", valid.clone()), ("traceparent", "ä".to_owned())],
            vec![("traceparent", valid.clone()), ("traceparent", String::new())],
        ];
        for invalid in [
            String::new(),
            format!("{valid}."),
            format!("{valid}-what-the-future-will-be-like"),
            format!("{valid}-"),
            format!("{valid},{valid}"),
            format!("cc-{TRACE}-{PARENT}-01.what-the-future-will-be-like"),
            format!("ff-{TRACE}-{PARENT}-01"),
            format!(".0-{TRACE}-{PARENT}-01"),
            format!("0.-{TRACE}-{PARENT}-01"),
            format!("000-{TRACE}-{PARENT}-01"),
            format!("0000-{TRACE}-{PARENT}-01"),
            format!("0-{TRACE}-{PARENT}-01"),
            format!("CC-{TRACE}-{PARENT}-01"),
            format!("00-00000000000000000000000000000000-{PARENT}-01"),
            format!("00-.2345678901234567890123456789012-{PARENT}-01"),
            format!("00-1234567890123456789012345678901.-{PARENT}-01"),
            format!("00-1234567890123456789012345678901A-{PARENT}-01"),
            format!("00-{TRACE}3-{PARENT}-01"),
            format!("00-1234567890123456789012345678901-{PARENT}-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{TRACE}-.234567890123456-01"),
            format!("00-{TRACE}-123456789012345.-01"),
            format!("00-{TRACE}-{PARENT}7-01"),
            format!("00-{TRACE}-123456789012345-01"),
            format!("00-{TRACE}-{PARENT}-.0"),
            format!("00-{TRACE}-{PARENT}-0."),
            format!("00-{TRACE}-{PARENT}-001"),
            format!("00-{TRACE}-{PARENT}-1"),
            format!("00-{TRACE}-{PARENT}"),
            format!("00{TRACE}{PARENT}01"),
        ] {
            requests.push(vec![("traceparent", invalid)]);
        }
        let mut traces = HashSet::new();
        for mut request in requests {
            request.push(("tracestate", "foo=1".to_owned()));
            let headers: Vec<_> = request.iter().map(|(name, value)| (*name, &**value)).collect();
            let sent = send(&headers);
            let [version, trace, _, flags] = sent.parent();
            // The trace id is random, and says so.
            assert_eq!((version, flags), ("00", "03"), "{request:?}");
            let known = ["12345678901234567890123456789011", TRACE];
            assert!(!known.contains(&trace), "{request:?}");
            assert!(traces.insert(trace.to_owned()), "{request:?}");
            assert_eq!(sent.state(), None, "{request:?}");
        }
    });
}

#[test]
fn the_flags_of_level_2_are_passed_on() {
    run("the_flags_of_level_2_are_passed_on", || {
        for (received, expected) in [
            ("00-{}-00", "00"),
            ("00-{}-01", "01"),
            ("00-{}-02", "02"),
            ("00-{}-03", "03"),
            // Other flags are reserved and must be zero.
            ("00-{}-ff", "03"),
            ("00-{}-fc", "00"),
            ("cc-{}-03", "03"),
        ] {
            let parent = received.replace("{}", &format!("{TRACE}-{PARENT}"));
            let sent = send(&[("traceparent", &parent)]);
            let [_, trace, _, flags] = sent.parent();
            assert_eq!((trace, flags), (TRACE, expected), "{received}");
        }
    });
}

/// Returns the `tracestate` that a service sends which received these lines.
fn state_for(lines: &[&str]) -> Option<String> {
    let parent = format!("00-{TRACE}-{PARENT}-00");
    let mut headers = vec![("traceparent", &*parent)];
    headers.extend(lines.iter().map(|line| ("tracestate", *line)));
    let sent = send(&headers);
    // An invalid tracestate does not affect the traceparent.
    let [_, trace, _, flags] = sent.parent();
    assert_eq!((trace, flags), (TRACE, "00"), "{lines:?}");
    // Headers of tasks are handled like those of requests.
    let cx = extract_context(headers);
    let of_task = Sent(inject_context_of(&cx));
    assert_eq!(of_task.state(), sent.state(), "{lines:?}");
    sent.state().map(str::to_owned)
}

#[test]
fn a_tracestate_is_combined_in_order() {
    run("a_tracestate_is_combined_in_order", || {
        let all_keys = "abcdefghijklmnopqrstuvwxyz0123456789_-*/";
        let all_values: String = (' '..='~').filter(|c| !matches!(c, ',' | '=')).collect();
        let long = "z".repeat(256);
        let full: Vec<String> = (1..=32)
            .map(|index| format!("bar{index:02}={index:02}"))
            .collect();
        let in_lines: Vec<String> = full.chunks(10).map(|chunk| chunk.join(",")).collect();
        let in_lines: Vec<&str> = in_lines.iter().map(String::as_str).collect();
        assert_eq!(state_for(&in_lines), Some(full.join(",")));
        for (lines, expected) in [
            (&["foo=1,bar=2"][..], "foo=1,bar=2"),
            (
                &["foo=1,bar=2", "rojo=1,congo=2", "baz=3"],
                "foo=1,bar=2,rojo=1,congo=2,baz=3",
            ),
            (&["foo=1", ""], "foo=1"),
            (&["", "foo=1"], "foo=1"),
            (&["foo=1,", " , ,bar=2"], "foo=1,bar=2"),
            // The first member with a key is the most recent one.
            (&["foo=1,foo=1"], "foo=1"),
            (&["foo=1,foo=2"], "foo=1"),
            (&["foo=1", "foo=2"], "foo=1"),
            (&["a=1,b=2,a=2"], "a=1,b=2"),
            (&["foo=1 \t , \t bar=2, \t baz=3"], "foo=1,bar=2,baz=3"),
            (&["foo=1\t \t,\t \tbar=2,\t \tbaz=3"], "foo=1,bar=2,baz=3"),
            (&[" foo=1"], "foo=1"),
            (&["\tfoo=1"], "foo=1"),
            (&["foo=1 "], "foo=1"),
            (&["foo=1\t"], "foo=1"),
            (&["\t foo=1 \t"], "foo=1"),
            (&["foo= 1"], "foo= 1"),
            (
                &[&format!("{all_keys}={all_values}")],
                &format!("{all_keys}={all_values}"),
            ),
            (
                &[&format!("{all_keys}@a-z0-9_-*/={all_values}")],
                &format!("{all_keys}@a-z0-9_-*/={all_values}"),
            ),
            // Level 2 allows at signs anywhere but at the start.
            (&["foo@=1,bar=2"], "foo@=1,bar=2"),
            (&["foo@@bar=1,bar=2"], "foo@@bar=1,bar=2"),
            (&["foo@bar@baz=1,bar=2"], "foo@bar@baz=1,bar=2"),
            (&["1a=1"], "1a=1"),
            (&["foo=1", &format!("{long}=1")], &format!("foo=1,{long}=1")),
            (&[&format!("foo={long}")], &format!("foo={long}")),
            (
                &["foo=1", &format!("t@{}=1", "v".repeat(15))],
                &format!("foo=1,t@{}=1", "v".repeat(15)),
            ),
            (
                &["foo=1", &format!("{}@{}=1", "t".repeat(241), "v".repeat(14))],
                &format!("foo=1,{}@{}=1", "t".repeat(241), "v".repeat(14)),
            ),
            (
                &["foo=1", &format!("{}@v=1", "t".repeat(242))],
                &format!("foo=1,{}@v=1", "t".repeat(242)),
            ),
        ] {
            assert_eq!(state_for(lines).as_deref(), Some(expected), "{lines:?}");
        }
    });
}

#[test]
fn an_invalid_tracestate_is_discarded() {
    run("an_invalid_tracestate_is_discarded", || {
        let many: Vec<String> = (1..=33)
            .map(|index| format!("bar{index:02}={index:02}"))
            .collect();
        let many = many.join(",");
        for lines in [
            &[""][..],
            &[" ,\t,"],
            &["foo =1"],
            &["FOO=1"],
            &["foo.bar=1"],
            &["@foo=1,bar=2"],
            &["_foo=1"],
            &["foo"],
            &["=1"],
            &["foo=bar=baz"],
            &["foo=,bar=3"],
            &["foo=a\tb"],
            &["foo=1", "ä"],
            &[&many],
            &["foo=1", &format!("{}=1", "z".repeat(257))],
            &["foo=1", &format!("bar={}", "z".repeat(257))],
        ] {
            assert_eq!(state_for(lines), None, "{lines:?}");
        }
        for name in ["trace-state", "trace.state"] {
            let parent = format!("00-{TRACE}-{PARENT}-00");
            assert_eq!(send(&[("traceparent", &parent), (name, "foo=1")]).state(), None);
        }
        let parent = format!("00-{TRACE}-{PARENT}-00");
        assert_eq!(
            send(&[("traceparent", &parent), ("TraceState", "foo=1")]).state(),
            Some("foo=1")
        );
    });
}

#[test]
fn the_lines_of_baggage_are_combined_and_the_first_value_of_others_counts() {
    run(
        "the_lines_of_baggage_are_combined_and_the_first_value_of_others_counts",
        || {
            let parent = format!("00-{TRACE}-{PARENT}-01");
            let cx = extract_context([
                ("Traceparent", &*parent),
                ("baggage", "a=1,b=2"),
                ("Baggage", "c=3;p=4"),
            ]);
            let sent = Sent(inject_context_of(&cx));
            let mut entries: Vec<&str> = sent.get("baggage").unwrap().split(',').collect();
            entries.sort_unstable();
            assert_eq!(entries, ["a=1", "b=2", "c=3;p=4"]);
            let twice = extract_context([("traceparent", &*parent), ("TRACEPARENT", &*parent)]);
            assert_eq!(Sent(inject_context_of(&twice)).get("traceparent"), None);
        },
    );
}

#[test]
fn every_call_of_a_request_has_the_trace_of_the_request() {
    run("every_call_of_a_request_has_the_trace_of_the_request", || {
        for (parent, is_continued) in [
            (format!("00-{TRACE}-{PARENT}-01"), true),
            (
                "00-00000000000000000000000000000000-1234567890123456-01".to_owned(),
                false,
            ),
        ] {
            let service = HttpLayer::new(|_| None).layer(tower::service_fn(|_: Request<()>| async {
                let mut calls = Vec::new();
                for _ in 0..3 {
                    let call = otel_service::Span::internal("inner");
                    calls.push(
                        call.run(async { Ok::<_, Problem>(Sent(otel_service::inject_context())) })
                            .await?,
                    );
                }
                let ids: HashSet<_> = calls.iter().map(|call| call.parent()[2].to_owned()).collect();
                let traces: HashSet<_> = calls.iter().map(|call| call.parent()[1].to_owned()).collect();
                assert_eq!((ids.len(), traces.len()), (3, 1));
                Ok::<_, Problem>(Response::new(traces.into_iter().next().unwrap()))
            }));
            let request = Request::builder()
                .header("traceparent", &parent)
                .body(())
                .unwrap();
            let (_, trace) = support::block_on(support::read(service.oneshot(request)));
            assert_eq!(trace == TRACE, is_continued, "{parent}");
            assert!(trace.contains(|digit| digit != '0'));
        }
    });
}
