//! Retries against collectors that reject requests, as the OTLP specification requires.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use prost::Message;
use prost::bytes::Bytes;
use tonic::{Code, Status};

use crate::support::{self, Behaviour, Collector, GrpcCollector, Problem, gate, run_prepared, wait_at};

const LONG: Duration = Duration::from_secs(20);

/// Disables metrics and logs; all requests are then requests for spans.
const SPANS_ONLY: [(&str, &str); 2] = [("OTEL_METRICS_EXPORTER", "none"), ("OTEL_LOGS_EXPORTER", "none")];

/// Records a span and shuts down within the time-out of one export; returns the signals that were not
/// delivered.
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
    SPANS_ONLY
        .map(own)
        .into_iter()
        .chain([
            own(("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")),
            own(("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())),
        ])
        .collect()
}

#[test]
fn a_request_is_retried_until_it_succeeds() {
    let name = "delivery::a_request_is_retried_until_it_succeeds";
    // An error status, a malformed response and a closed connection.
    let responses = Behaviour::Scripted(&[
        "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n",
        "\x16\x03 no HTTP at all\r\n\r\n",
        "",
    ]);
    if let Some(run) = support::run(name, responses, &SPANS_ONLY, delivered) {
        assert_eq!(run.received.span_names(), ["one"]);
        assert_eq!(run.received.requests, 4);
    }
}

#[test]
fn a_redirect_is_not_followed() {
    let name = "delivery::a_redirect_is_not_followed";
    let responses = Behaviour::Scripted(&[
        "HTTP/1.1 307 There\r\nlocation: /elsewhere/v1/traces\r\ncontent-length: 0\r\n\r\n",
    ]);
    if let Some(run) = support::run(name, responses, &SPANS_ONLY, lost) {
        assert_eq!(run.received.requests, 1);
    }
}

#[test]
fn an_endless_response_is_not_read_completely() {
    let name = "delivery::an_endless_response_is_not_read_completely";
    if let Some(run) = support::run(name, Behaviour::Endless, &SPANS_ONLY, delivered) {
        assert_eq!(run.received.span_names(), ["one"]);
        assert_eq!(run.received.requests, 1);
    }
}

/// Returns the error that standard output logs for a lost batch.
fn logged_error(stdout: &str) -> String {
    let lines = support::json_lines(stdout);
    let line = lines.iter().find(|line| line["target"] == "otlp_recorder");
    line.unwrap_or_else(|| panic!("no log event: {stdout}"))["fields"]["exception.message"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn a_partial_success_is_logged_and_not_retried() {
    let name = "delivery::a_partial_success_is_logged_and_not_retried";
    for (protocol, response) in [
        (
            "http/protobuf",
            // partial_success { rejected_spans: 1, error_message: "too old for me" }
            Behaviour::Scripted(&[
                "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 20\r\n\r\n\
                \x0a\x12\x08\x01\x12\x0etoo old for me",
            ]),
        ),
        (
            "http/json",
            Behaviour::Scripted(&[
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 72\r\n\r\n\
                {\"partialSuccess\":{\"rejectedSpans\":\"1\",\"errorMessage\":\"too old for me\"}}",
            ]),
        ),
    ] {
        let environment = [
            SPANS_ONLY[0],
            SPANS_ONLY[1],
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ];
        let Some(run) = support::run(name, response, &environment, lost) else {
            return;
        };
        assert_eq!(run.received.requests, 1, "{protocol}");
        assert_eq!(
            logged_error(&run.stdout),
            "the collector rejected 1: too old for me"
        );
    }
}

#[test]
fn a_call_is_retried_until_it_succeeds() {
    let name = "delivery::a_call_is_retried_until_it_succeeds";
    let prepare = || {
        let collector = GrpcCollector::failing(|call| {
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
fn a_partial_success_of_a_call_is_logged_and_not_retried() {
    let name = "delivery::a_partial_success_of_a_call_is_logged_and_not_retried";
    let prepare = || {
        let collector = GrpcCollector::rejecting(1);
        let environment = over_grpc(&collector);
        (collector, environment)
    };
    if let Some((collector, stdout)) = run_prepared(name, prepare, lost) {
        assert_eq!(collector.take().requests, 1);
        assert_eq!(logged_error(&stdout), "the collector rejected 1: too old for me");
    }
}

#[test]
fn a_call_with_a_permanent_error_is_not_retried() {
    let name = "delivery::a_call_with_a_permanent_error_is_not_retried";
    let prepare = || {
        // `ResourceExhausted` without `RetryInfo` is not retryable.
        let collector = GrpcCollector::failing(|_| Some(Status::resource_exhausted("no")));
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
fn the_retry_delay_of_an_exhausted_collector_is_respected() {
    let name = "delivery::the_retry_delay_of_an_exhausted_collector_is_respected";
    let failure = |call| {
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
        let collector = GrpcCollector::failing(failure);
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
fn a_grpc_exporter_that_reaches_an_http_server_times_out() {
    let name = "delivery::a_grpc_exporter_that_reaches_an_http_server_times_out";
    let prepare = || {
        let collector = Collector::start(Behaviour::Scripted(&[
            "HTTP/1.1 400 No\r\ncontent-length: 0\r\n\r\n",
        ]));
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let mut environment = SPANS_ONLY.map(own).to_vec();
        environment.push(own(("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")));
        environment.push(own(("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())));
        environment.push(own(("OTEL_EXPORTER_OTLP_TIMEOUT", "1000")));
        (collector, environment)
    };
    if let Some((collector, _)) = run_prepared(name, prepare, lost) {
        assert_eq!(collector.take().span_names(), Vec::<&str>::new());
    }
}

/// Starts a proxy whose first connection stays silent and whose later connections lead to `collector`.
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
fn a_silent_connection_is_replaced() {
    let name = "delivery::a_silent_connection_is_replaced";
    for protocol in ["grpc", "http/protobuf"] {
        let prepare = || {
            let (grpc, http) = (GrpcCollector::start(), Collector::start(Behaviour::Accepts));
            let address = match protocol {
                "grpc" => grpc.address,
                _ => http.address,
            };
            let endpoint = format!("http://{}", after_a_silent_connection(address));
            let mut environment = SPANS_ONLY
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec();
            let (grpc_clone, http_clone) = (grpc.clone(), http.clone());
            let delivered = gate(move || grpc_clone.has_accepted() || http_clone.has_accepted()).to_string();
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

#[test]
fn records_beyond_the_limit_of_the_receiver_all_arrive() {
    const RECORDS: usize = 1_024;
    let name = "delivery::records_beyond_the_limit_of_the_receiver_all_arrive";
    // The receiver refuses requests beyond the default limit of gRPC, 4 MiB; two batches of 512 records exceed it twice.
    let prepare = || {
        let collector = GrpcCollector::start();
        let environment = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc".to_owned()),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value));
        (collector, environment.to_vec())
    };
    let run = run_prepared(name, prepare, || {
        let service = otel_service::Service {
            log_output: otel_service::LogOutput::Off,
            ..support::SERVICE
        };
        let telemetry = otel_service::init(service).unwrap();
        let stack_trace = "x".repeat(9_000);
        (0..RECORDS).for_each(|_| tracing::info!("{stack_trace}"));
        telemetry.shutdown(LONG).unwrap();
    });
    if let Some((collector, _)) = run {
        assert_eq!(collector.take().logs.len(), RECORDS);
    }
}
