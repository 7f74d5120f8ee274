//! The log output: a reader that stalls affects neither requests nor shutdown, and repeated failures are logged
//! once.

use std::{
    io::{BufRead as _, BufReader, PipeReader},
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::metrics::v1::{NumberDataPoint, metric::Data, number_data_point};
use serde_json::{Value, json};

use super::installation::{Installation, create};
use crate::support::{
    eventually,
    otlp::text,
    postgres_server::{Server, free_port},
    process::{self, Process},
    raw,
};

/// Number of requests whose log lines, at the level `trace`, fill the pipe and the queue.
const REQUESTS: usize = 400;

/// Maximum time for a process to exit while the reader of its log stalls; the grace period is much longer.
const EXIT_LIMIT: Duration = Duration::from_secs(10);

/// Starts the API with its log on a pipe, and returns the end of the pipe that the test may read.
async fn start(
    installation: &Installation,
    more: &[(&'static str, &str)],
) -> (Process, PipeReader, SocketAddr) {
    let port = free_port();
    let text = port.to_string();
    let mut variables = installation.variables(more);
    variables.extend([
        ("HOST", "127.0.0.1"),
        ("PORT", text.as_str()),
        ("RUST_LOG", "trace"),
        ("RATE_LIMIT", "off"),
    ]);
    let (mut process, log) = process::start_piped(&["serve"], &variables, installation.folder());
    let api = SocketAddr::from(([127, 0, 0, 1], port));
    process.wait_for_ok(api, "/api/health/ready").await;
    (process, log, api)
}

/// Sends enough requests to fill the pipe and the queue, and asserts that all endpoints still respond.
async fn fill(api: SocketAddr, token: &str) {
    for number in 0..REQUESTS {
        create(api, token, &format!("Article {number}"), None).await;
    }
    for target in ["/api/health/live", "/api/health/ready", "/api/articles/"] {
        let sent = Instant::now();
        assert_eq!(raw::request(api, "GET", target, None, None).await.status, 200);
        assert!(sent.elapsed() < Duration::from_secs(1), "{target}");
    }
}

/// Reads the log up to the record of dropped lines, and returns their number and the reader.
async fn read_to_report(log: PipeReader) -> (i64, BufReader<PipeReader>) {
    let reading = tokio::task::spawn_blocking(move || {
        let mut log = BufReader::new(log);
        loop {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "the log ended");
            let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            if let Some(dropped) = line["fields"]["queue.dropped"].as_i64() {
                assert_eq!(line["level"], "WARN");
                return (dropped, log);
            }
        }
    });
    reading.await.unwrap()
}

/// Returns the number of dropped lines in the newest metrics.
fn counted_lines(installation: &Installation) -> Option<i64> {
    let metric = installation.otlp.metric("pressroom-app", "log.output.dropped")?;
    let Some(Data::Sum(sum)) = &metric.data else {
        panic!("{metric:?}");
    };
    let of_stdout = |point: &&NumberDataPoint| text(&point.attributes, "log.iostream").unwrap() == "stdout";
    match sum.data_points.iter().find(of_stdout)?.value {
        Some(number_data_point::Value::AsInt(lines)) => Some(lines),
        other => panic!("{other:?}"),
    }
}

async fn a_log_reader_that_stalls_affects_nothing(sdk_disabled: &str) {
    let installation = Installation::new().await;
    let (mut serve, log, api) = start(&installation, &[("OTEL_SDK_DISABLED", sdk_disabled)]).await;
    let token = raw::register(api, "alice@example.com").await;
    fill(api, &token).await;
    let (dropped, log) = read_to_report(log).await;
    assert!(dropped > 0);
    if sdk_disabled == "false" {
        eventually("the dropped lines to be counted", async || {
            (counted_lines(&installation)? >= dropped).then_some(())
        })
        .await;
    }

    fill(api, &token).await;
    let signalled = Instant::now();
    assert!(serve.terminate().await.success());
    assert!(signalled.elapsed() < EXIT_LIMIT, "{:?}", signalled.elapsed());
    // The pipe stayed open until the process ended.
    drop(log);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_reader_that_stalls_affects_neither_requests_nor_shutdown() {
    a_log_reader_that_stalls_affects_nothing("false").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_reader_that_stalls_affects_nothing_without_telemetry() {
    a_log_reader_that_stalls_affects_nothing("true").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_aborts_although_the_log_reader_stalls() {
    let installation = Installation::new().await;
    let (mut serve, _log, api) = start(&installation, &[("SHUTDOWN_DELAY", "3600")]).await;
    let token = raw::register(api, "alice@example.com").await;
    fill(api, &token).await;
    serve.send_sigterm();
    eventually("readiness to turn 503", async || {
        let ready = raw::request(api, "GET", "/api/health/ready", None, None).await;
        (ready.status == 503).then_some(())
    })
    .await;
    let signalled = Instant::now();
    assert_eq!(serve.terminate().await.code(), Some(143));
    assert!(signalled.elapsed() < EXIT_LIMIT, "{:?}", signalled.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_log_does_not_affect_requests() {
    let installation = Installation::new().await;
    let (mut serve, log, api) = start(&installation, &[]).await;
    drop(log);
    let token = raw::register(api, "alice@example.com").await;
    for number in 0..20 {
        create(api, &token, &format!("Article {number}"), None).await;
    }
    assert!(serve.terminate().await.success());
}

/// Returns the log lines with `message`.
fn lines(output: &str, message: &str) -> Vec<Value> {
    let lines = output.lines().filter_map(|line| serde_json::from_str(line).ok());
    lines.filter(|line: &Value| line["message"] == message).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_database_is_logged_once_with_the_number_of_failures() {
    let server = Server::start();
    let installation = Installation::on(server.url(), None).await;
    let (serve, api) = installation.serve().await;
    let token = raw::register(api, "alice@example.com").await;
    serve.wait_for_output("User registered").await;
    let before = serve.output().len();

    server.stop();
    for _ in 0..50 {
        let response = raw::request(api, "GET", "/api/user", Some(&token), None).await;
        assert_eq!(response.status, 503);
    }
    let during = serve.output()[before..].to_owned();
    assert_eq!(lines(&during, "database unavailable").len(), 1, "{during}");
    assert_eq!(during.lines().count(), 1, "{during}");

    server.resume();
    serve.wait_for_output("database available again").await;
    let whole = serve.output()[before..].to_owned();
    assert_eq!(lines(&whole, "database unavailable").len(), 1, "{whole}");
    let ended = lines(&whole, "database available again");
    assert_eq!(ended.len(), 1, "{whole}");
    assert!(
        ended[0]["fields"]["outage.failures"].as_i64().unwrap() >= 50,
        "{whole}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_logs_an_outage_of_the_database_once_for_all_waiting_tasks() {
    let server = Server::start();
    let installation = Installation::on(server.url(), None).await;
    let (mut serve, api) = installation.serve().await;
    let token = raw::register(api, "alice@example.com").await;
    create(api, &token, "First", None).await;
    assert!(serve.terminate().await.success());
    for number in 0..30 {
        installation.send_task(&format!("task-{number}"), &json!([1, "created"]), |_| ());
    }

    server.stop();
    let worker = installation.worker();
    worker.wait_for_output("database unavailable").await;
    // Each task fails several times.
    tokio::time::sleep(Duration::from_secs(4)).await;
    server.resume();
    worker.wait_for_output("database available again").await;
    let problems: Vec<Value> = worker
        .output()
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &Value| line["level"] == "WARN" || line["level"] == "ERROR")
        .collect();
    assert_eq!(problems.len(), 1, "{problems:#?}");
}

#[test]
fn an_error_that_prevents_the_start_is_printed_once() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let variables = [
        ("DATABASE_URL", "postgresql://127.0.0.1:9/press"),
        ("SECRET_KEY", "0123456789abcdef0123456789abcdef"),
        ("HOST", "127.0.0.1"),
        ("PORT", port.as_str()),
        ("OTEL_SDK_DISABLED", "true"),
    ];
    let output = process::run(&["serve"], &variables);
    assert_eq!(output.status.code(), Some(1));
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8(printed).unwrap();
    assert_eq!(printed.matches("already in use").count(), 1, "{printed}");
    assert!(printed.contains("PORT: port "), "{printed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_lines_go_to_the_chosen_stream_in_the_chosen_format() {
    let installation = Installation::new().await;
    for (stream, format) in [
        ("stdout", "json"),
        ("stdout", "text"),
        ("stderr", "json"),
        ("stderr", "text"),
        ("off", "auto"),
    ] {
        let exported = installation.otlp.all_logs().len();
        let port = free_port().to_string();
        let variables = installation.variables(&[
            ("HOST", "127.0.0.1"),
            ("PORT", &port),
            ("LOG_OUTPUT", stream),
            ("LOG_FORMAT", format),
        ]);
        let mut command = process::pressroom(&["serve"], &variables, installation.folder());
        let files =
            ["stdout", "stderr"].map(|name| installation.folder().join(format!("{stream}-{format}-{name}")));
        let [stdout, stderr] = files.each_ref().map(|path| std::fs::File::create(path).unwrap());
        let child = command.stdout(stdout).stderr(stderr).spawn().unwrap();
        let mut serve = Process::of(child);
        let api = format!("127.0.0.1:{port}").parse().unwrap();
        serve.wait_for_ok(api, "/api/health/ready").await;
        assert!(serve.terminate().await.success());

        let [stdout, stderr] = files.map(|path| std::fs::read_to_string(path).unwrap());
        let (written, empty) = match stream {
            "stdout" => (stdout, stderr),
            "stderr" => (stderr, stdout),
            _ => (String::new(), stdout + &stderr),
        };
        assert_eq!(empty, "", "{stream} {format}");
        if stream != "off" {
            assert!(written.contains("Serving"), "{written}");
            let is_json = |line: &str| serde_json::from_str::<Value>(line).is_ok();
            assert!(
                written.lines().all(|line| is_json(line) == (format == "json")),
                "{written}"
            );
            assert!(!written.contains('\u{1b}'), "{written}");
        }
        assert!(
            installation.otlp.all_logs().len() > exported + 1,
            "{stream} {format}: records are exported regardless of the output"
        );
    }
}
