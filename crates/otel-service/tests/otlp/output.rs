//! The log output with a reader that stalls, and its stream and format.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use otel_service::{LogFormat, LogOutput, Service, Telemetry};
use serde_json::Value;

use crate::support::{self, child, is_child, json_lines, wait_at};

/// Number of log lines, more than fit into the pipe and the queue.
const LINES: usize = 20_000;

/// Variable with the address of the gate at which the scenario waits.
const GATE: &str = "OUTPUT_TEST_GATE";

/// Maximum duration of a shutdown while the reader stalls; generous, for slow machines.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);

/// Logs, and waits at the gate before and after the end of the log.
fn scenario() {
    let telemetry = otel_service::init(support::SERVICE).unwrap();
    for number in 0..LINES {
        otel_service::info!(number, "a line before the gate");
    }
    wait_at(GATE);
    otel_service::info!("the last line");
    telemetry.shutdown(Duration::from_secs(1)).unwrap();
    wait_at(GATE);
}

/// Starts the scenario of `test` with an unread pipe, and returns it with its gate after it has logged all lines.
/// Returns `None` in the scenario's process.
fn start(test: &str) -> Option<(Child, TcpListener, TcpStream)> {
    if is_child() {
        scenario();
        return None;
    }
    let gate = TcpListener::bind("127.0.0.1:0").unwrap();
    let child = child(test)
        .env(GATE, gate.local_addr().unwrap().to_string())
        .env("OTEL_SDK_DISABLED", "true")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (waiting, _) = gate.accept().unwrap();
    Some((child, gate, waiting))
}

#[test]
fn lines_beyond_the_queue_are_dropped_and_reported_in_one_line() {
    let Some((mut child, gate, waiting)) =
        start("output::lines_beyond_the_queue_are_dropped_and_reported_in_one_line")
    else {
        return;
    };
    let mut log = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    let mut dropped = None;
    while dropped.is_none() {
        let start = text.len();
        assert_ne!(log.read_line(&mut text).unwrap(), 0, "the log ended");
        let line = text[start..].find('{').map(|open| &text[start + open..]);
        let line: Option<Value> = line.map(|line| serde_json::from_str(line).unwrap());
        dropped = line.and_then(|line| line["fields"]["queue.dropped"].as_u64());
    }
    drop(waiting);
    drop(gate.accept().unwrap());
    log.read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success());

    let lines = json_lines(&text);
    let with = |message: &str| lines.iter().filter(|line| line["message"] == message).count();
    let written = with("a line before the gate");
    assert_eq!(written as u64 + dropped.unwrap(), LINES as u64);
    assert!(written > 1000, "{written} lines fit into the queue");
    assert_eq!(with("log lines were dropped because their reader stalled"), 1);
    assert_eq!(with("the last line"), 1);
}

#[test]
fn shutdown_does_not_wait_for_a_reader_that_stalls() {
    let Some((mut child, gate, waiting)) = start("output::shutdown_does_not_wait_for_a_reader_that_stalls")
    else {
        return;
    };
    let shutdown = Instant::now();
    drop(waiting);
    let (waiting, _) = gate.accept().unwrap();
    assert!(shutdown.elapsed() < SHUTDOWN_LIMIT, "{:?}", shutdown.elapsed());
    // The test harness of the child also writes to the pipe.
    let mut log = child.stdout.take().unwrap();
    drop(waiting);
    std::io::copy(&mut log, &mut std::io::sink()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Returns the streams of a service that logs one line and panics in a thread.
fn streams(test: &str, service: Service, variables: &[(&str, &str)]) -> Option<(String, String)> {
    if is_child() {
        let telemetry = Telemetry::builder(support::SERVICE)
            .log_output(service.log_output)
            .log_format(service.log_format)
            .init()
            .unwrap();
        otel_service::info!("a line");
        std::thread::spawn(|| panic!("constant")).join().unwrap_err();
        telemetry.shutdown(Duration::from_secs(1)).unwrap();
        return None;
    }
    let output = child(test)
        .env("OTEL_SDK_DISABLED", "true")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    assert!(output.status.success());
    let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    Some((stdout, stderr))
}

#[test]
fn log_lines_are_written_to_the_chosen_stream_in_the_chosen_format() {
    let test = "output::log_lines_are_written_to_the_chosen_stream_in_the_chosen_format";
    let service = Service {
        log_output: LogOutput::Stderr,
        log_format: LogFormat::Text,
        ..support::SERVICE
    };
    let Some((stdout, stderr)) = streams(test, service, &[]) else {
        return;
    };
    assert!(!stdout.contains("a line"), "{stdout}");
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    assert!(lines[0].contains(" INFO otlp::output: a line"), "{stderr}");
    assert!(lines[1].contains("ERROR panic: panicked"), "{stderr}");
}

#[test]
fn without_a_log_output_no_line_is_written() {
    let test = "output::without_a_log_output_no_line_is_written";
    let service = Service {
        log_output: LogOutput::Off,
        ..support::SERVICE
    };
    let Some((stdout, stderr)) = streams(test, service, &[]) else {
        return;
    };
    assert!(
        !stdout.contains("a line") && !stdout.contains("panicked"),
        "{stdout}"
    );
    assert_eq!(stderr, "");
}

#[test]
fn a_panic_is_printed_if_errors_are_not_logged() {
    let test = "output::a_panic_is_printed_if_errors_are_not_logged";
    let Some((stdout, stderr)) = streams(test, support::SERVICE, &[("RUST_LOG", "off")]) else {
        return;
    };
    assert!(!stdout.contains("panicked"), "{stdout}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(
        stderr.contains("tests/otlp/output.rs") && stderr.contains("constant"),
        "{stderr}"
    );
}
