//! What is sent again and what is not, against collectors that refuse, as the specification of OTLP has it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use prost::Message;
use prost::bytes::Bytes;
use tonic::{Code, Status};

use crate::support::{self, Behaviour, Collector, GrpcCollector, Problem, gate, run_prepared, wait_at};

const LONG: Duration = Duration::from_secs(20);

/// Only spans, so that requests can be counted.
const SPANS_ALONE: [(&str, &str); 2] = [("OTEL_METRICS_EXPORTER", "none"), ("OTEL_LOGS_EXPORTER", "none")];

/// One span, and a shutdown that takes no longer than the time-out of one export allows; gives what was not delivered.
fn record() -> Vec<&'static str> {
    let telemetry = otel_service::init(support::SERVICE).unwrap();
    support::block_on(otel_service::Span::internal("one").run(async { Ok::<_, Problem>(()) })).unwrap();
    let started = Instant::now();
    let result = telemetry.shutdown(LONG);
    assert!(started.elapsed() < LONG, "{:?}", started.elapsed());
    result.map_or_else(|error| error.signals, |()| Vec::new())
}

fn delivered() {
    assert_eq!(record(), Vec::<&str>::new());
}

fn lost() {
    assert_eq!(record(), ["traces"]);
}

fn over_grpc(collector: &GrpcCollector) -> Vec<(String, String)> {
    let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    SPANS_ALONE
        .map(own)
        .into_iter()
        .chain([
            own(("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")),
            own(("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())),
        ])
        .collect()
}

#[test]
fn a_request_is_repeated_until_it_is_taken() {
    let name = "delivery::a_request_is_repeated_until_it_is_taken";
    // Refusals, a broken answer and a broken connection.
    let answers = Behaviour::Answers(&[
        "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n",
        "\x16\x03 no HTTP at all\r\n\r\n",
        "",
    ]);
    if let Some(run) = support::run(name, answers, &SPANS_ALONE, delivered) {
        assert_eq!(run.received.span_names(), ["one"]);
        assert_eq!(run.received.requests, 4);
    }
}

#[test]
fn a_redirect_is_not_followed() {
    let name = "delivery::a_redirect_is_not_followed";
    let answers = Behaviour::Answers(&[
        "HTTP/1.1 307 There\r\nlocation: /elsewhere/v1/traces\r\ncontent-length: 0\r\n\r\n",
    ]);
    if let Some(run) = support::run(name, answers, &SPANS_ALONE, lost) {
        assert_eq!(run.received.requests, 1);
    }
}

#[test]
fn an_answer_without_end_is_not_read_to_its_end() {
    let name = "delivery::an_answer_without_end_is_not_read_to_its_end";
    if let Some(run) = support::run(name, Behaviour::Endless, &SPANS_ALONE, delivered) {
        assert_eq!(run.received.span_names(), ["one"]);
        assert_eq!(run.received.requests, 1);
    }
}

/// The reason that standard output has for what was lost.
fn told(stdout: &str) -> String {
    let lines = support::json_lines(stdout);
    let line = lines.iter().find(|line| line["target"] == "otel_service::export");
    line.unwrap_or_else(|| panic!("nothing told: {stdout}"))["fields"]["error"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn a_partial_success_is_told_and_not_sent_again() {
    let name = "delivery::a_partial_success_is_told_and_not_sent_again";
    for (protocol, answer) in [
        (
            "http/protobuf",
            // partial_success { rejected_spans: 1, error_message: "too old for me" }
            Behaviour::Answers(&[
                "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 20\r\n\r\n\
                \x0a\x12\x08\x01\x12\x0etoo old for me",
            ]),
        ),
        (
            "http/json",
            Behaviour::Answers(&[
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 72\r\n\r\n\
                {\"partialSuccess\":{\"rejectedSpans\":\"1\",\"errorMessage\":\"too old for me\"}}",
            ]),
        ),
    ] {
        let environment = [
            SPANS_ALONE[0],
            SPANS_ALONE[1],
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ];
        let Some(run) = support::run(name, answer, &environment, lost) else {
            return;
        };
        assert_eq!(run.received.requests, 1, "{protocol}");
        assert_eq!(told(&run.stdout), "the collector rejected 1: too old for me");
    }
}

#[test]
fn a_call_is_repeated_until_it_is_taken() {
    let name = "delivery::a_call_is_repeated_until_it_is_taken";
    let prepare = || {
        let collector = GrpcCollector::refusing(|call| {
            let code = [Code::Unavailable, Code::Aborted].get(call)?;
            Some(Status::new(*code, "later"))
        });
        let environment = over_grpc(&collector);
        (collector, environment)
    };
    if let Some((collector, _)) = run_prepared(name, prepare, delivered) {
        let received = collector.take();
        assert_eq!((received.span_names(), received.requests), (vec!["one"], 3));
    }
}

#[test]
fn a_partial_success_of_a_call_is_told_and_not_sent_again() {
    let name = "delivery::a_partial_success_of_a_call_is_told_and_not_sent_again";
    let prepare = || {
        let collector = GrpcCollector::rejecting(1);
        let environment = over_grpc(&collector);
        (collector, environment)
    };
    if let Some((collector, stdout)) = run_prepared(name, prepare, lost) {
        assert_eq!(collector.take().requests, 1);
        assert_eq!(told(&stdout), "the collector rejected 1: too old for me");
    }
}

#[test]
fn a_call_that_is_refused_for_good_is_not_repeated() {
    let name = "delivery::a_call_that_is_refused_for_good_is_not_repeated";
    let prepare = || {
        // Without a word about when it will be better, exhaustion is for good.
        let collector = GrpcCollector::refusing(|_| Some(Status::resource_exhausted("no")));
        let environment = over_grpc(&collector);
        (collector, environment)
    };
    if let Some((collector, _)) = run_prepared(name, prepare, lost) {
        assert_eq!(collector.take().requests, 1);
    }
}

/// `google.rpc.Status` with a `RetryInfo` of three seconds.
#[derive(Clone, PartialEq, prost::Message)]
struct Details {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[test]
fn the_retry_info_of_an_exhausted_collector_is_waited_for() {
    let name = "delivery::the_retry_info_of_an_exhausted_collector_is_waited_for";
    let refusal = |call| {
        let details = Details {
            details: vec![Any {
                type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
                // retry_delay { seconds: 3 }
                value: vec![0x0a, 2, 0x08, 3],
            }],
        };
        let details = Bytes::from(details.encode_to_vec());
        (call == 0).then(|| Status::with_details(Code::ResourceExhausted, "later", details))
    };
    let prepare = || {
        let collector = GrpcCollector::refusing(refusal);
        let environment = over_grpc(&collector);
        (collector, environment)
    };
    let scenario = || {
        let started = Instant::now();
        delivered();
        assert!(
            started.elapsed() >= Duration::from_secs(3),
            "{:?}",
            started.elapsed()
        );
    };
    if let Some((collector, _)) = run_prepared(name, prepare, scenario) {
        let received = collector.take();
        assert_eq!((received.span_names(), received.requests), (vec!["one"], 2));
    }
}

#[test]
fn a_grpc_exporter_that_finds_http_gives_up_at_its_time_out() {
    let name = "delivery::a_grpc_exporter_that_finds_http_gives_up_at_its_time_out";
    let prepare = || {
        let collector = Collector::start(Behaviour::Answers(&[
            "HTTP/1.1 400 No\r\ncontent-length: 0\r\n\r\n",
        ]));
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let mut environment = SPANS_ALONE.map(own).to_vec();
        environment.push(own(("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")));
        environment.push(own(("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())));
        environment.push(own(("OTEL_EXPORTER_OTLP_TIMEOUT", "1000")));
        (collector, environment)
    };
    if let Some((collector, _)) = run_prepared(name, prepare, lost) {
        assert_eq!(collector.take().span_names(), Vec::<&str>::new());
    }
}

/// Two collectors behind one address: the first connection is never answered, every later one leads to `collector`.
fn after_a_silent_connection(collector: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let silent = listener.accept().unwrap();
        for near in listener.incoming() {
            let (near, far) = (near.unwrap(), TcpStream::connect(collector).unwrap());
            for (mut from, mut to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
                thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
        }
        drop(silent);
    });
    address
}

#[test]
fn a_connection_that_fell_silent_is_left_for_a_new_one() {
    let name = "delivery::a_connection_that_fell_silent_is_left_for_a_new_one";
    for protocol in ["grpc", "http/protobuf"] {
        let prepare = || {
            let (grpc, http) = (GrpcCollector::start(), Collector::start(Behaviour::Takes));
            let address = match protocol {
                "grpc" => grpc.address,
                _ => http.address,
            };
            let endpoint = format!("http://{}", after_a_silent_connection(address));
            let mut environment = SPANS_ALONE
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec();
            let (of_grpc, of_http) = (grpc.clone(), http.clone());
            let delivered = gate(move || of_grpc.has_taken() || of_http.has_taken()).to_string();
            for (name, value) in [
                ("DELIVERED", &*delivered),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "3000"),
                ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1"),
            ] {
                environment.push((name.to_owned(), value.to_owned()));
            }
            ((grpc, http), environment)
        };
        let scenario = || {
            let telemetry = otel_service::init(support::SERVICE).unwrap();
            for name in ["one", "after"] {
                support::block_on(otel_service::Span::internal(name).run(async { Ok::<_, Problem>(()) }))
                    .unwrap();
            }
            wait_at("DELIVERED");
            telemetry.shutdown(LONG).unwrap();
        };
        let Some(((grpc, http), _)) = run_prepared(name, prepare, scenario) else {
            return;
        };
        let received = if protocol == "grpc" {
            grpc.take()
        } else {
            http.take()
        };
        assert_eq!(received.span_names(), ["after"], "{protocol}");
    }
}
