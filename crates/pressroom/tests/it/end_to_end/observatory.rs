//! The observatory in embedded mode, in a separate process, and through `traces` and `logs`.

use std::{net::SocketAddr, path::Path};

use serde_json::{Value, json};

use crate::support::{
    eventually,
    otlp::Receiver,
    postgres_server::free_port,
    process::{self, Process},
    raw,
};

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";

/// Ports chosen in advance, because several processes need to know them.
struct Ports {
    pages: String,
    otlp: String,
}

impl Ports {
    fn free() -> Self {
        Self {
            pages: free_port().to_string(),
            otlp: free_port().to_string(),
        }
    }

    fn variables(&self) -> [(&str, &str); 2] {
        [
            ("OBSERVATORY_PORT", &self.pages),
            ("OBSERVATORY_OTLP_HTTP_PORT", &self.otlp),
        ]
    }

    fn pages(&self) -> SocketAddr {
        format!("127.0.0.1:{}", self.pages).parse().unwrap()
    }

    fn otlp(&self) -> SocketAddr {
        format!("127.0.0.1:{}", self.otlp).parse().unwrap()
    }

    /// Runs a command against the observatory on these ports and returns its output.
    fn run(&self, arguments: &[&str]) -> String {
        let source = format!("--observatory=http://{}", self.pages());
        let output = process::run(&[arguments, &[&source]].concat(), &[]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    async fn get(&self, target: &str) -> Value {
        let response = raw::request(self.pages(), "GET", target, None, None).await;
        assert_eq!(response.status, 200, "{target}");
        response.json()
    }
}

async fn start_alone(ports: &Ports, folder: &Path) -> Process {
    let mut process = process::start("observatory", &["observatory"], &ports.variables(), folder);
    process.wait_for_ok(ports.pages(), "/status").await;
    process
}

/// Sends a trace of one span with a log record.
async fn send(ports: &Ports, name: &str, body: &str) {
    let resource = json!({"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]});
    let span = json!({
        "traceId": TRACE_ID, "spanId": "b7ad6b7169203331", "name": name, "kind": 2,
        "startTimeUnixNano": "1795342907000000000", "endTimeUnixNano": "1795342907005000000",
        "status": {"code": 2, "message": body},
    });
    let record = json!({
        "timeUnixNano": "1795342907001000000", "severityNumber": 17, "severityText": "ERROR",
        "body": {"stringValue": body}, "traceId": TRACE_ID, "spanId": "b7ad6b7169203331",
    });
    for (target, request) in [
        (
            "/v1/traces",
            json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}),
        ),
        (
            "/v1/logs",
            json!({"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": [record]}]}]}),
        ),
    ] {
        let response = raw::request(ports.otlp(), "POST", target, None, Some(&request)).await;
        assert_eq!(response.status, 200, "{target}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_page_shows_the_port_that_the_system_chose_for_the_api() {
    let ports = Ports::free();
    let folder = process::Folder::new();
    let variables = [&ports.variables()[..], &[("PORT", "0"), ("HOST", "127.0.0.1")]].concat();
    let process = process::start("api", &[], &variables, folder.path());
    process.wait_for_output("Telemetry  http://localhost:").await;
    let status = ports.get("/status").await;
    let command = status["first_steps"][0]["command"].as_str().unwrap();
    let (url, _) = command.split_once("/api/register").unwrap();
    let (_, port) = url.rsplit_once(':').unwrap();
    let api = (std::net::Ipv4Addr::LOCALHOST, port.parse().unwrap()).into();
    let response = raw::request(api, "GET", "/api/health", None, None).await;
    assert_eq!(response.status, 200, "{command}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_mode_shows_a_request_and_its_task_as_one_trace() {
    let ports = Ports::free();
    let folder = process::Folder::new();
    let (mut process, api) = process::start_api(&[], &ports.variables(), folder.path()).await;
    let line = format!("Telemetry  http://localhost:{}\n", ports.pages);
    process.wait_for_output(&line).await;

    let alice = raw::register(api, "alice@example.com").await;
    let body = json!({"title": "Seen", "body": "x"});
    let response = raw::request(api, "POST", "/api/articles/", Some(&alice), Some(&body)).await;
    let trace_id = response
        .header("traceresponse")
        .unwrap()
        .split('-')
        .nth(1)
        .unwrap();
    let trace = eventually("the task's spans", async || {
        let target = format!("/traces/{trace_id}");
        let response = raw::request(ports.pages(), "GET", &target, None, None).await;
        let trace = (response.status == 200).then(|| response.json())?;
        let spans = trace["spans"].as_array()?;
        let has = |name: &str| spans.iter().any(|span| span["name"] == name);
        (has("celery.run") && has("DELETE outbox")).then_some(trace)
    })
    .await;
    let kinds: Vec<_> = trace["spans"]
        .as_array()
        .unwrap()
        .iter()
        .map(|span| &span["kind"])
        .collect();
    for kind in ["server", "client", "producer", "consumer"] {
        assert!(kinds.contains(&&json!(kind)), "{kinds:?}");
    }

    let listed = ports.run(&["traces", "--name=/api/articles/"]);
    assert!(
        listed.contains(trace_id) && listed.contains("POST /api/articles/"),
        "{listed}"
    );
    let tree = ports.run(&["traces", trace_id]);
    for text in ["celery.run (consumer)", "INSERT INTO articles", "Article created"] {
        assert!(tree.contains(text), "{text}: {tree}");
    }
    let logs = eventually("the log records", async || {
        let logs = ports.run(&["logs", "--trace", trace_id]);
        (logs.contains("Article created") && logs.contains("Notifications sent")).then_some(logs)
    })
    .await;

    // The worker is a service of its own.
    let spans = tree.lines().filter(|line| !line.contains(" | "));
    for line in spans.chain(logs.lines()) {
        let is_workers = ["celery.run", "Notifications sent"]
            .iter()
            .any(|text| line.contains(text));
        let is_apps = [
            "POST /api",
            "(producer)",
            "INSERT INTO",
            "DELETE outbox",
            "Article created",
        ]
        .iter()
        .any(|text| line.contains(text));
        assert!(!is_workers || line.contains("  pressroom-worker  "), "{line}");
        assert!(!is_apps || line.contains("  pressroom  "), "{line}");
    }
    let map = ports.get("/map").await;
    let edges = map["edges"].as_array().unwrap();
    let leads = |from: &Value, to: &Value| {
        edges
            .iter()
            .any(|edge| edge["from"] == *from && edge["to"] == *to)
    };
    let id = |kind: &str, name: &str| {
        let mut nodes = map["nodes"].as_array().unwrap().iter();
        let node = nodes.find(|node| node["kind"] == kind && node["name"] == name);
        &node.unwrap_or_else(|| panic!("{kind} {name}: {map:#}"))["id"]
    };
    let queue = id("queue", "celery");
    assert!(leads(id("service", "pressroom"), queue), "{map:#}");
    assert!(leads(queue, id("service", "pressroom-worker")), "{map:#}");

    assert!(process.terminate().await.success());
    let output = process.output();
    assert!(
        !output.contains("not delivered") && !output.contains("cannot be delivered"),
        "{output}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_explicit_endpoint_disables_the_observatory() {
    let ports = Ports::free();
    let folder = process::Folder::new();
    let receiver = Receiver::start().await;
    let url = receiver.url();
    let mut variables = ports.variables().to_vec();
    variables.extend([
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
    ]);
    let (mut process, api) = process::start_api(&[], &variables, folder.path()).await;
    let line = "Telemetry  set by OTEL_EXPORTER_OTLP_ENDPOINT; the observatory is off\n";
    process.wait_for_output(line).await;
    raw::register(api, "alice@example.com").await;
    eventually("a span at the endpoint", async || {
        (!receiver.spans().is_empty()).then_some(())
    })
    .await;
    assert!(tokio::net::TcpStream::connect(ports.pages()).await.is_err());
    assert!(process.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disabled_telemetry_disables_the_observatory() {
    let folder = process::Folder::new();
    let variables = [("OTEL_SDK_DISABLED", "true")];
    let (process, _) = process::start_api(&[], &variables, folder.path()).await;
    let line = "Telemetry  set by OTEL_SDK_DISABLED; the observatory is off\n";
    process.wait_for_output(line).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_mode_sends_to_an_observatory_that_is_already_running() {
    let ports = Ports::free();
    let (first, second) = (process::Folder::new(), process::Folder::new());
    let _alone = start_alone(&ports, first.path()).await;
    let (mut process, api) = process::start_api(&[], &ports.variables(), second.path()).await;
    let line = format!(
        "Telemetry  exported to {}, which is already in use; the observatory is off (to start it, set \
         OBSERVATORY_OTLP_HTTP_PORT to another port)\n",
        ports.otlp()
    );
    process.wait_for_output(&line).await;
    raw::register(api, "alice@example.com").await;
    eventually("the registration's trace", async || {
        let found = ports.get("/traces?name=/api/register").await;
        (!found["traces"].as_array()?.is_empty()).then_some(())
    })
    .await;
    assert!(process.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_runs_even_if_the_port_of_the_pages_is_taken() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let folder = process::Folder::new();
    let variables = [("OBSERVATORY_PORT", port.as_str())];
    let (mut process, _) = process::start_api(&[], &variables, folder.path()).await;
    let line =
        format!("Telemetry  off: 127.0.0.1:{port} is already in use; set OBSERVATORY_PORT to another port\n");
    process.wait_for_output(&line).await;
    assert!(process.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_observatory_runs_even_if_the_ports_for_other_senders_are_taken() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().port().to_string();
    let ports = Ports::free();
    let folder = process::Folder::new();
    let mut variables = ports.variables().to_vec();
    variables.extend([
        ("OBSERVATORY_OTLP_GRPC_PORT", taken.as_str()),
        ("OBSERVATORY_HEALTH_PORT", taken.as_str()),
    ]);
    let (mut process, _) = process::start_api(&[], &variables, folder.path()).await;
    let line = format!(
        "Telemetry  http://localhost:{}\n  OTLP       http://localhost:{}; 127.0.0.1:{taken} is already in use, set \
         OBSERVATORY_OTLP_GRPC_PORT to another port; 127.0.0.1:{taken} is already in use, set OBSERVATORY_HEALTH_PORT to \
         another port\n",
        ports.pages, ports.otlp
    );
    process.wait_for_output(&line).await;
    assert_eq!(ports.get("/status").await["endpoints"]["grpc"], Value::Null);
    assert!(process.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pending_telemetry_is_sent_when_the_service_stops() {
    let ports = Ports::free();
    let (first, second) = (process::Folder::new(), process::Folder::new());
    let _alone = start_alone(&ports, first.path()).await;
    let mut variables = ports.variables().to_vec();
    variables.push(("OTEL_BSP_SCHEDULE_DELAY", "3600000"));
    let (mut process, api) = process::start_api(&[], &variables, second.path()).await;
    raw::register(api, "alice@example.com").await;
    assert!(process.terminate().await.success());
    eventually("the trace of the registration", async || {
        let found = ports.get("/traces?name=/api/register").await;
        (found["traces"].as_array()?.len() == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_observatory_shows_telemetry_of_other_services_and_none_of_its_own() {
    let ports = Ports::free();
    let folder = process::Folder::new();
    let mut process = start_alone(&ports, folder.path()).await;
    send(&ports, "GET /cart", "no such cart").await;
    eventually("the trace", async || {
        let listed = ports.run(&["traces", "--service=shop", "--status=error"]);
        listed.contains("GET /cart").then_some(())
    })
    .await;
    let status = ports.get("/status").await;
    assert_eq!(status["services"], json!(["shop"]));
    let line = format!("OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:{}\n", ports.otlp);
    process.wait_for_output(&line).await;
    assert!(process.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observatory_reachable_from_other_hosts_logs_a_warning() {
    let ports = Ports::free();
    let folder = process::Folder::new();
    let mut variables = ports.variables().to_vec();
    variables.push(("OBSERVATORY_HOST", "0.0.0.0"));
    let mut process = process::start("observatory", &["observatory"], &variables, folder.path());
    process.wait_for_ok(ports.pages(), "/status").await;
    process
        .wait_for_output("OBSERVATORY_HOST: there is no login")
        .await;
    assert!(process.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_is_reported_with_the_name_of_its_setting() {
    let ports = Ports::free();
    let folder = process::Folder::new();
    let _first = start_alone(&ports, folder.path()).await;
    let second = process::run(&["observatory"], &ports.variables());
    let message = String::from_utf8(second.stderr).unwrap();
    assert!(!second.status.success());
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(
        message.starts_with("pressroom: OBSERVATORY_OTLP_HTTP_PORT: cannot listen on"),
        "{message}"
    );
    assert!(
        message.contains("set OBSERVATORY_OTLP_HTTP_PORT to another port"),
        "{message}"
    );
    assert_eq!(message.matches("use").count(), 1, "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_characters_in_telemetry_are_escaped_in_a_terminal() {
    let ports = Ports::free();
    let folder = process::Folder::new();
    let _process = start_alone(&ports, folder.path()).await;
    let hostile = "\u{1b}]0;owned\u{7}\u{9b}2J two\nlines \u{202e}txt";
    send(&ports, hostile, hostile).await;
    eventually("the log record", async || {
        (!ports.run(&["logs"]).is_empty()).then_some(())
    })
    .await;
    for arguments in [
        &["traces"] as &[&str],
        &["traces", TRACE_ID],
        &["traces", "--json"],
        &["traces", TRACE_ID, "--json"],
        &["logs"],
        &["logs", "--json"],
    ] {
        let printed = ports.run(arguments);
        let is_control = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!printed.contains(is_control), "{arguments:?}: {printed:?}");
        assert!(printed.contains("owned"), "{arguments:?}: {printed}");
        if arguments.contains(&"--json") {
            let _: Value = serde_json::from_str(&printed).unwrap();
        }
    }
    assert_eq!(ports.run(&["logs"]).lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn follow_prints_new_log_records_as_they_arrive() {
    let ports = Ports::free();
    let folder = process::Folder::new();
    let _alone = start_alone(&ports, folder.path()).await;
    send(&ports, "first", "the first record").await;
    let source = format!("--observatory=http://{}", ports.pages());
    let arguments = ["logs", "--follow", "--level=error", &source];
    let following = process::start("follow", &arguments, &[], folder.path());
    eventually("the existing record", async || {
        following.output().contains("the first record").then_some(())
    })
    .await;
    send(&ports, "second", "the second record").await;
    eventually("the new record", async || {
        following.output().contains("the second record").then_some(())
    })
    .await;
    assert_eq!(following.output().matches("the first record").count(), 1);
}

#[test]
fn an_unreachable_observatory_is_reported_in_one_line() {
    let nowhere = format!("--observatory=http://127.0.0.1:{}", free_port());
    for command in ["traces", "logs"] {
        let output = process::run(&[command, &nowhere], &[]);
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && output.stdout.is_empty());
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(
            message.starts_with("pressroom: nothing listens at http://127.0.0.1:"),
            "{message}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_the_observatory_is_printed_in_one_line() {
    let ports = Ports::free();
    let folder = process::Folder::new();
    let _process = start_alone(&ports, folder.path()).await;
    let source = format!("--observatory=http://{}", ports.pages());
    let output = process::run(&["logs", "--level=loud", &source], &[]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.contains("level"), "{message}");
}
