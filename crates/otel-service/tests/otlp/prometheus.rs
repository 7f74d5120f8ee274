//! The server that Prometheus scrapes.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use otel_service::{Counter, Histogram, KeyValue, Span, counter, histogram, init};
use serde_json::Value as Json;

use crate::declared;
use crate::support::{self, Behaviour, Problem};

const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0";

static PIECES: Counter = counter("scenario.pieces", "{piece}", "Pieces.");
static WAITING: Histogram = histogram("scenario.waiting", "Time spent waiting.");

/// Returns a port that nothing uses.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Sends a request; returns the head and the body of the response.
fn request(port: u16, target: &str, headers: &str) -> (String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(
        stream,
        "{target} HTTP/1.1\r\nhost: localhost\r\n{headers}connection: close\r\n\r\n"
    )
    .unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn scrape(port: u16, accept: &str) -> (String, String) {
    request(port, "GET /metrics", &format!("accept: {accept}\r\n"))
}

fn set_port() -> u16 {
    #[expect(clippy::disallowed_methods, reason = "the environment of the scenario")]
    let port = std::env::var("OTEL_EXPORTER_PROMETHEUS_PORT").unwrap();
    port.parse().unwrap()
}

/// Records in a span; returns its trace id.
fn record() -> String {
    support::block_on(async {
        let work = async {
            PIECES.add(2, &[KeyValue::new("scenario.mail", "alice@example.com")]);
            PIECES.add(3, &[KeyValue::new("scenario.mail", "albert@example.com")]);
            WAITING.record(Duration::from_millis(7), &[]);
            Ok::<_, Problem>(otel_service::current_trace_id().unwrap().to_string())
        };
        Span::internal("scenario.work").run(work).await.unwrap()
    })
}

#[test]
fn metrics_are_served_with_exemplars_and_masked_beside_the_export() {
    let test = "prometheus::metrics_are_served_with_exemplars_and_masked_beside_the_export";
    let port = free_port().to_string();
    let environment = [
        ("OTEL_METRICS_EXPORTER", "prometheus,otlp"),
        ("OTEL_EXPORTER_PROMETHEUS_PORT", port.as_str()),
        ("OTEL_EXPORTER_PROMETHEUS_HOST", "127.0.0.1"),
    ];
    let prepare = || support::collecting(Behaviour::Accepts, &environment);
    let run = support::run_prepared(test, prepare, || {
        let telemetry = init(support::SERVICE).unwrap();
        let trace_id = record();
        let port = set_port();
        for _ in 0..2 {
            let (head, body) = scrape(port, OPEN_METRICS);
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            assert!(
                head.contains("content-type: application/openmetrics-text; version=1.0.0"),
                "{head}"
            );
            let exemplar = format!("trace_id=\"{trace_id}\"");
            let bucket = body.lines().find(|line| line.contains(&exemplar)).unwrap();
            assert!(bucket.starts_with("scenario_waiting_seconds_bucket{"), "{bucket}");
            assert!(bucket.contains("le=\"0.01\"} 1 # {span_id=\""), "{bucket}");
            assert!(
                body.contains("scenario_mail=\"al***@example.com\"} 5\n"),
                "{body}"
            );
            assert!(
                body.contains("otel_scope_name=\"test-service\",otel_scope_version=\"9.8.7\""),
                "{body}"
            );
            assert!(
                body.contains("target_info{") && body.ends_with("# EOF\n"),
                "{body}"
            );
        }
        let (head, body) = scrape(port, "text/plain");
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        assert!(
            body.contains("# TYPE scenario_pieces_total counter\n") && !body.contains("trace_id"),
            "{body}"
        );
        let known = declared::REGISTRY.prometheus_series();
        for line in body.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let is_own = name == "target_info" || name.starts_with("scenario_waiting_seconds");
            assert!(
                is_own || known.contains_key(name),
                "{name} has another name in dashboards"
            );
        }
        assert!(request(port, "GET /", "").0.starts_with("HTTP/1.1 404"));
        assert!(request(port, "POST /metrics", "").0.starts_with("HTTP/1.1 405"));
        telemetry.shutdown(Duration::from_secs(10)).unwrap();
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    });
    let Some((collector, _)) = run else { return };
    let metrics = collector.take_unchecked().metrics;
    let waiting = metrics
        .iter()
        .find(|metric| metric.name == "scenario.waiting")
        .unwrap();
    assert!(format!("{waiting:?}").contains("Exemplar {"), "{waiting:?}");
}

#[test]
fn a_port_in_use_is_an_error_that_says_what_to_set() {
    let test = "prometheus::a_port_in_use_is_an_error_that_says_what_to_set";
    let prepare = || {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let variables = [
            ("OTEL_METRICS_EXPORTER", "prometheus"),
            ("OTEL_EXPORTER_PROMETHEUS_PORT", &port.to_string()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        (taken, variables.to_vec())
    };
    support::run_prepared(test, prepare, || {
        let error = init(support::SERVICE).unwrap_err().to_string();
        assert!(
            error.contains("on localhost:") && error.contains("in use"),
            "{error}"
        );
        assert!(error.contains("set OTEL_EXPORTER_PROMETHEUS_HOST"), "{error}");
    });
}

#[test]
fn scrapers_that_do_not_read_do_not_keep_others_out() {
    let test = "prometheus::scrapers_that_do_not_read_do_not_keep_others_out";
    let port = free_port().to_string();
    let environment = [
        ("OTEL_METRICS_EXPORTER", "prometheus"),
        ("OTEL_EXPORTER_PROMETHEUS_PORT", port.as_str()),
    ];
    let prepare = || support::collecting(Behaviour::Accepts, &environment);
    support::run_prepared(test, prepare, || {
        let telemetry = init(support::SERVICE).unwrap();
        let port = set_port();
        let stalled: Vec<TcpStream> = (0..15)
            .map(|_| TcpStream::connect(("localhost", port)).unwrap())
            .collect();
        let start = Instant::now();
        assert!(scrape(port, "*/*").0.starts_with("HTTP/1.1 200"));
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        // Twice as many as the server accepts at the same time.
        let more: Vec<TcpStream> = (0..16)
            .map(|_| TcpStream::connect(("localhost", port)).unwrap())
            .collect();
        assert!(scrape(port, "*/*").0.starts_with("HTTP/1.1 200"));
        drop((stalled, more));
        telemetry.shutdown(Duration::from_secs(10)).unwrap();
    });
}

/// A process that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
#[ignore = "needs a Prometheus server: scripts/check-prometheus"]
fn a_prometheus_server_accepts_everything() {
    let test = "prometheus::a_prometheus_server_accepts_everything";
    let is_done = Arc::new(AtomicBool::new(false));
    let prepare = || {
        let opened = Arc::clone(&is_done);
        let gate = support::gate(move || opened.load(Ordering::Relaxed));
        let (service, server) = (free_port(), free_port());
        let judge = thread::spawn(move || judge(service, server));
        let variables = [
            ("OTEL_METRICS_EXPORTER", "prometheus".to_owned()),
            ("OTEL_TRACES_EXPORTER", "console".to_owned()),
            ("OTEL_LOGS_EXPORTER", "none".to_owned()),
            ("OTEL_EXPORTER_PROMETHEUS_PORT", service.to_string()),
            ("GATE", gate.to_string()),
        ];
        let opened = Arc::clone(&is_done);
        let watch = thread::spawn(move || {
            let judged = judge.join();
            opened.store(true, Ordering::Relaxed);
            judged
        });
        (
            watch,
            variables.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        )
    };
    let run = support::run_prepared(test, prepare, || {
        let telemetry = init(support::SERVICE).unwrap();
        record();
        support::wait_at("GATE");
        telemetry.shutdown(Duration::from_secs(10)).unwrap();
    });
    if let Some((judged, _)) = run {
        judged.join().unwrap().unwrap();
    }
}

/// Lets promtool check the text format, and a Prometheus server scrape the service.
fn judge(service: u16, server: u16) {
    #[expect(clippy::disallowed_methods, reason = "set by the script")]
    let tools = std::env::var("PROMETHEUS_TOOLS").expect("run scripts/check-prometheus");
    let deadline = Instant::now() + Duration::from_secs(50);
    while TcpStream::connect(("127.0.0.1", service)).is_err() {
        assert!(Instant::now() < deadline, "the service does not listen");
        thread::sleep(Duration::from_millis(50));
    }
    let mut promtool = Command::new(format!("{tools}/promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let text = scrape(service, "text/plain").1;
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let checked = promtool.wait_with_output().unwrap();
    // The semantic conventions name some gauges so.
    let is_conventional = |line: &&str| line.ends_with("metrics should not have \"_count\" suffix");
    let complaints = String::from_utf8(checked.stderr).unwrap();
    let complaints: Vec<&str> = complaints.lines().filter(|line| !is_conventional(line)).collect();
    assert_eq!(complaints, [""; 0], "{text}");

    let folder = std::env::temp_dir().join(format!("otel-service-prometheus-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let config = folder.join("prometheus.yml");
    let scraped = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n  - job_name: test\n    static_configs: \
         [targets: ['127.0.0.1:{service}']]\n"
    );
    fs::write(&config, scraped).unwrap();
    let started = Command::new(format!("{tools}/prometheus"))
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{server}"))
        .arg("--enable-feature=exemplar-storage")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let prometheus = Server(started.unwrap());
    let query = |path: &str| -> Json {
        let Ok(stream) = TcpStream::connect(("127.0.0.1", server)) else {
            return Json::Null;
        };
        drop(stream);
        let body = request(
            server,
            &format!("GET /api/v1/{path}"),
            "accept-encoding: identity\r\n",
        )
        .1;
        let (start, end) = (
            body.find('{').unwrap_or(0),
            body.rfind('}').map_or(0, |end| end + 1),
        );
        serde_json::from_str(&body[start..end]).unwrap_or_default()
    };
    let first = |path: &str| query(path)["data"]["result"][0].clone();
    let value = loop {
        let found = first("query?query=scenario_pieces_total");
        if !found.is_null() {
            break found;
        }
        assert!(Instant::now() < deadline, "{}", query("targets"));
        thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(value["value"][1], "5");
    assert_eq!(value["metric"]["otel_scope_name"], "test-service");
    assert_eq!(
        first("query?query=target_info")["metric"]["service_name"],
        "test-service"
    );
    let quantile = first("query?query=histogram_quantile(0.5,scenario_waiting_seconds_bucket)");
    let quantile: f64 = quantile["value"][1].as_str().unwrap().parse().unwrap();
    assert!((0.005..=0.01).contains(&quantile), "{quantile}");
    let target = query("targets")["data"]["activeTargets"][0].clone();
    assert_eq!(
        (target["health"].as_str(), target["lastError"].as_str()),
        (Some("up"), Some("")),
        "{target}"
    );
    let metadata = query("metadata?metric=scenario_pieces")["data"]["scenario_pieces"][0].clone();
    assert_eq!(
        (metadata["type"].as_str(), metadata["help"].as_str()),
        (Some("counter"), Some("Pieces."))
    );
    let exemplars = query("query_exemplars?query=scenario_waiting_seconds_bucket&start=0&end=9999999999");
    let labels = &exemplars["data"][0]["exemplars"][0]["labels"];
    assert_eq!(labels["trace_id"].as_str().map(str::len), Some(32), "{exemplars}");
    assert_eq!(labels["span_id"].as_str().map(str::len), Some(16), "{exemplars}");
    drop(prometheus);
    fs::remove_dir_all(folder).unwrap();
}
