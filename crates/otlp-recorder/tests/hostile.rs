//! Settings, collectors and programs that misbehave: nothing hangs, panics or is reported as delivered that was not.
#![cfg(test)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use opentelemetry::metrics::MeterProvider as _;
use opentelemetry::trace::{Span as _, SpanKind, Status};
use opentelemetry::{Array, Context, InstrumentationScope, KeyValue, Value};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use otlp_recorder::{
    BatchSettings, Collector, CustomExporter, InMemory, Pipeline, Protocol, SpanStart, Tracer,
};
use prost::Message as _;

fn tracer(pipeline: &Pipeline) -> Tracer {
    let scope = InstrumentationScope::builder("test").build();
    pipeline.recorder().tracer(scope)
}

fn record(pipeline: &Pipeline) {
    let start = SpanStart::new("a", SpanKind::Internal);
    tracer(pipeline).start(&Context::new(), start, |_| ()).end();
}

/// A response of the collector, as bytes.
#[derive(Clone)]
enum Response {
    /// The bytes, after which the connection is closed.
    Closes(Vec<u8>),
    /// The bytes, and then the same byte every few milliseconds.
    Trickles(Vec<u8>, u8),
    /// No bytes, and no end of the connection.
    Silence,
}

/// Starts a server that answers the first request with `first` and accepts all others.
fn server(first: Response) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut first = Some(first);
        for stream in listener.incoming() {
            let (stream, response) = (stream.unwrap(), first.take());
            thread::spawn(move || serve(stream, response));
        }
    });
    address
}

/// Serves one request; errors mean that the client has closed the connection.
fn serve(mut stream: TcpStream, response: Option<Response>) -> std::io::Result<()> {
    let mut request = Vec::new();
    let head = loop {
        let mut bytes = [0; 4_096];
        let count = stream.read(&mut bytes)?;
        request.extend_from_slice(&bytes[..count]);
        if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = String::from_utf8_lossy(&request[..head]).to_lowercase();
    let length = text.split("content-length: ").nth(1).unwrap();
    let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
    let mut rest = vec![0; length - (request.len() - head)];
    stream.read_exact(&mut rest)?;
    match response.unwrap_or_else(|| Response::Closes(reply("200 OK", "", b""))) {
        Response::Closes(bytes) => stream.write_all(&bytes),
        Response::Trickles(bytes, byte) => {
            stream.write_all(&bytes)?;
            loop {
                stream.write_all(&[byte])?;
                thread::sleep(Duration::from_millis(5));
            }
        }
        Response::Silence => {
            stream.read_exact(&mut [0])?;
            Ok(())
        }
    }
}

fn reply(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn partial_success(rejected: i64) -> Vec<u8> {
    let partial_success = Some(ExportTracePartialSuccess {
        rejected_spans: rejected,
        error_message: "\u{1b}[31m\r\nfull".repeat(1_000),
    });
    ExportTraceServiceResponse { partial_success }.encode_to_vec()
}

#[test]
fn no_response_of_a_collector_breaks_the_export() {
    let ok = |body: &[u8]| Response::Closes(reply("200 OK", "", body));
    let rejects = |status: &str, headers: &str| Response::Closes(reply(status, headers, b""));
    let endless = |head: &str, byte| Response::Trickles(head.as_bytes().to_vec(), byte);
    // Whether the spans of the first request count as delivered, and whether those of the second one arrive in time.
    let cases = [
        (
            "garbage",
            Response::Closes(b"\xff\x00 nonsense\r\n\r\n".to_vec()),
            true,
            true,
        ),
        ("nothing", Response::Closes(Vec::new()), true, true),
        (
            "half a status line",
            Response::Closes(b"HTTP/1.1 20".to_vec()),
            true,
            true,
        ),
        (
            "another protocol",
            Response::Closes(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
            true,
            true,
        ),
        ("silence", Response::Silence, false, true),
        (
            "endless headers",
            endless("HTTP/1.1 200 OK\r\nx: ", b'a'),
            false,
            true,
        ),
        (
            "endless body",
            endless("HTTP/1.1 200 OK\r\n\r\n", b'a'),
            true,
            true,
        ),
        (
            "body shorter than declared",
            Response::Closes(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab".to_vec()),
            true,
            true,
        ),
        ("malformed message", ok(b"\x0a\xff\xff\xff\xff\x0f"), true, true),
        ("long body", ok(&[b'a'; 1_000_000]), true, true),
        ("all rejected", ok(&partial_success(i64::MAX)), false, true),
        ("negative rejection", ok(&partial_success(i64::MIN)), true, true),
        ("no content", rejects("204 No Content", ""), true, true),
        (
            "redirect",
            rejects("307 Temporary Redirect", "location: /elsewhere\r\n"),
            false,
            true,
        ),
        (
            "bad request",
            rejects("400 Bad Request", "retry-after: 1\r\n"),
            false,
            true,
        ),
        ("too large", rejects("413 Content Too Large", ""), false, true),
        ("unknown status", rejects("999 Odd", ""), false, true),
        (
            "long delay",
            rejects("429 Too Many Requests", "retry-after: 4000000000\r\n"),
            false,
            false,
        ),
        (
            "delay out of range",
            rejects("503 Unavailable", "retry-after: 99999999999999999999\r\n"),
            true,
            true,
        ),
        (
            "malformed delay",
            rejects("503 Unavailable", "retry-after: -1e9\r\n"),
            true,
            true,
        ),
        (
            "delay in the past",
            rejects(
                "503 Unavailable",
                "retry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
            ),
            true,
            true,
        ),
        (
            "date in the far future",
            rejects(
                "503 Unavailable",
                "retry-after: Fri, 31 Dec 9999 23:59:59 GMT\r\n",
            ),
            false,
            false,
        ),
    ];
    let check = |(name, response, delivered, again): (&str, Response, bool, bool)| {
        let url = format!("http://{}/v1/traces", server(response));
        let collector = Collector::new(Protocol::HttpProtobuf, url).timeout(Duration::from_secs(3));
        let pipeline = Pipeline::builder().spans(collector).start();
        for (expected, what) in [(delivered, "first"), (again, "second")] {
            record(&pipeline);
            let flushed = pipeline.flush(Duration::from_secs(20));
            assert_eq!(flushed.is_ok(), expected, "{name}, {what}: {flushed:?}");
        }
        let started = Instant::now();
        assert_eq!(pipeline.shutdown(Duration::from_secs(2)).is_ok(), again, "{name}");
        assert!(started.elapsed() < Duration::from_secs(10), "{name}");
    };
    thread::scope(|scope| {
        for case in cases {
            scope.spawn(move || check(case));
        }
    });
}

#[cfg(feature = "grpc")]
#[test]
fn no_response_of_a_grpc_collector_breaks_the_export() {
    let settings = b"\0\0\0\x04\0\0\0\0\0";
    let go_away = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0b";
    let too_long = b"\xff\xff\xff\x01\x04\0\0\0\x01";
    let cases: [Vec<u8>; 6] = [
        Vec::new(),
        reply("200 OK", "", b""),
        vec![0xff; 100_000],
        settings.to_vec(),
        [&settings[..], go_away].concat(),
        [&settings[..], too_long].concat(),
    ];
    let check = |bytes: Vec<u8>| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shown = format!("{:?}", &bytes[..bytes.len().min(40)]);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, bytes) = (stream.unwrap(), bytes.clone());
                thread::spawn(move || {
                    stream.write_all(&bytes)?;
                    std::io::copy(&mut stream, &mut std::io::sink())
                });
            }
        });
        let collector = Collector::new(Protocol::Grpc, url).timeout(Duration::from_secs(1));
        let pipeline = Pipeline::builder().spans(collector).start();
        let started = Instant::now();
        for _ in 0..2 {
            record(&pipeline);
            assert!(pipeline.flush(Duration::from_secs(20)).is_err(), "{shown}");
        }
        assert!(started.elapsed() < Duration::from_secs(15), "{shown}");
        record(&pipeline);
        assert!(pipeline.shutdown(Duration::from_secs(20)).is_err(), "{shown}");
        assert!(started.elapsed() < Duration::from_secs(20), "{shown}");
    };
    thread::scope(|scope| {
        for case in cases {
            scope.spawn(move || check(case));
        }
    });
}

#[test]
fn settings_out_of_range_are_limited() {
    for (queue_size, batch_size, time) in [
        (0, 0, Duration::MAX),
        (1, usize::MAX, Duration::MAX),
        (usize::MAX, 0, Duration::from_secs(9)),
    ] {
        let memory = InMemory::default();
        let settings = BatchSettings {
            queue_size,
            batch_size,
            delay: time,
            timeout: time,
        };
        let pipeline = Pipeline::builder()
            .spans(memory.exporter())
            .span_batches(settings)
            .metrics(memory.exporter())
            .metric_interval(time)
            .metric_timeout(time)
            .start();
        let reader = pipeline.metric_reader().unwrap();
        let meters = SdkMeterProvider::builder().with_reader(reader).build();
        pipeline.observe(&meters.meter("test"));
        record(&pipeline);
        // A batch is at most as large as the queue, and is full now.
        let started = Instant::now();
        while memory.spans().is_empty() {
            assert!(started.elapsed() < Duration::from_secs(20), "{settings:?}");
            thread::sleep(Duration::from_millis(5));
        }
        record(&pipeline);
        pipeline.flush(Duration::MAX).unwrap();
        pipeline.shutdown(Duration::MAX).unwrap();
        assert_eq!(memory.spans().len(), 2, "{settings:?}");
        assert!(!memory.metrics().is_empty(), "{settings:?}");
    }
}

#[test]
fn the_time_out_of_a_collector_may_be_unlimited() {
    let address = server(Response::Closes(Vec::new()));
    let collector = Collector::new(Protocol::HttpProtobuf, format!("http://{address}/v1/traces"));
    let pipeline = Pipeline::builder()
        .spans(collector.timeout(Duration::MAX))
        .start();
    record(&pipeline);
    pipeline.flush(Duration::from_secs(20)).unwrap();
}

#[test]
fn a_flush_that_a_panic_ends_delivers_nothing() {
    let calls = AtomicUsize::new(0);
    let pipeline = Pipeline::builder()
        .spans(CustomExporter::new("test", move |_| {
            assert!(calls.fetch_add(1, Ordering::Relaxed) > 0, "expected by the test");
            Ok(())
        }))
        .start();
    record(&pipeline);
    let failed = pipeline.flush(Duration::from_secs(20)).unwrap_err();
    assert_eq!(failed.signals, ["traces"]);
    // The export continues after a back-off.
    record(&pipeline);
    pipeline.flush(Duration::from_secs(20)).unwrap();
    pipeline.shutdown(Duration::from_secs(20)).unwrap();
}

#[test]
fn an_exporter_that_blocks_stops_neither_the_program_nor_its_end() {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let receiver = Mutex::new(receiver);
    let pipeline = Pipeline::builder()
        .spans(CustomExporter::new("test", move |_| {
            let _ = receiver.lock().unwrap().recv();
            Ok(())
        }))
        .start();
    let started = Instant::now();
    for _ in 0..10_000 {
        record(&pipeline);
    }
    assert!(pipeline.flush(Duration::from_millis(50)).is_err());
    assert!(pipeline.shutdown(Duration::from_millis(50)).is_err());
    assert!(started.elapsed() < Duration::from_secs(10));
    drop(sender);
}

#[test]
fn spans_flushes_and_a_shutdown_may_be_concurrent() {
    let memory = InMemory::default();
    let pipeline = Pipeline::builder().spans(memory.exporter()).start();
    let (tracer, flusher) = (tracer(&pipeline), pipeline.flusher());
    let record = || {
        for _ in 0..2_000 {
            let start = SpanStart::new("a", SpanKind::Internal);
            tracer.start(&Context::new(), start, |_| ()).end();
        }
    };
    let flush = || {
        for _ in 0..10 {
            // Delivers, or has no effect after the shutdown.
            flusher.flush(Duration::from_secs(20)).unwrap();
        }
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(record);
            scope.spawn(flush);
        }
        let shutdown = scope.spawn(|| {
            thread::sleep(Duration::from_millis(20));
            pipeline.shutdown(Duration::from_secs(20))
        });
        shutdown.join().unwrap().unwrap();
    });
    assert!(memory.spans().len() <= 8_000);
}

#[test]
fn a_span_does_not_end_before_its_start() {
    let memory = InMemory::default();
    let pipeline = Pipeline::builder().spans(memory.exporter()).start();
    let times = [
        (
            UNIX_EPOCH + Duration::from_secs(9),
            UNIX_EPOCH + Duration::from_secs(7),
        ),
        (
            UNIX_EPOCH - Duration::from_secs(9),
            UNIX_EPOCH - Duration::from_secs(7),
        ),
        // Later than nanoseconds in 64 bits can express.
        (
            UNIX_EPOCH + Duration::from_secs(20_000_000_000),
            SystemTime::now(),
        ),
    ];
    for (started, ended) in times {
        let start = SpanStart::new("a", SpanKind::Internal).time(Some(started));
        let mut span = tracer(&pipeline).start(&Context::new(), start, |_| ());
        span.end_with_timestamp(ended);
    }
    pipeline.shutdown(Duration::from_secs(20)).unwrap();
    let spans = memory.spans();
    let times = |index: usize| (spans[index].start_time_unix_nano, spans[index].end_time_unix_nano);
    assert_eq!(times(0), (9_000_000_000, 9_000_000_000));
    assert_eq!(times(1), (0, 0));
    assert_eq!(times(2), (u64::MAX, u64::MAX));
}

#[test]
fn attributes_of_any_size_and_content_are_exported_or_dropped_alone() {
    let memory = InMemory::default();
    let pipeline = Pipeline::builder().spans(memory.exporter()).start();
    let nested: Vec<opentelemetry::StringValue> = vec!["\0\u{feff}\u{10ffff}".into(), "".into()];
    let values = [
        Value::from(""),
        Value::from(f64::NAN),
        Value::from(f64::NEG_INFINITY),
        Value::from(i64::MIN),
        Value::Array(Array::String(nested)),
        Value::Array(Array::F64(Vec::new())),
        Value::from("x".repeat(127)),
        Value::from("x".repeat(128)),
        Value::from("x".repeat(3_600_000)),
        // Larger than any request.
        Value::from("x".repeat(5_000_000)),
        // Larger than the queue.
        Value::from("x".repeat(70_000_000)),
    ];
    for value in values {
        for key in ["", "k", &"k".repeat(130)] {
            let start = SpanStart::new("", SpanKind::Internal);
            let mut span = tracer(&pipeline).start(&Context::new(), start, |_| ());
            span.set_attribute(KeyValue::new(key.to_owned(), value.clone()));
            span.set_status(Status::error(""));
            span.add_event("", Vec::new());
            span.end();
        }
    }
    assert!(pipeline.shutdown(Duration::from_secs(60)).is_err());
    let spans = memory.spans();
    assert_eq!(spans.len(), 3 * 9);
    assert!(spans.iter().all(|span| span.attributes.len() == 1));
    let requests = memory.requests(otlp_recorder::Signal::Traces);
    for request in requests {
        assert!(request.protobuf().len() < 4 << 20);
        ExportTraceServiceRequest::decode(request.protobuf().clone()).unwrap();
    }
}
