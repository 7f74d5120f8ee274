//! The program `otlp-observatory`.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::{SocketAddr, TcpStream},
    process::{Child, ChildStdout, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{client, within};

const PORTS: [&str; 4] = [
    "OBSERVATORY_PORT",
    "OBSERVATORY_OTLP_HTTP_PORT",
    "OBSERVATORY_OTLP_GRPC_PORT",
    "OBSERVATORY_HEALTH_PORT",
];

/// Returns a command that runs the program on free ports.
fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_otlp-observatory"));
    command
        .args(arguments)
        .env_clear()
        .envs(PORTS.map(|port| (port, "0")));
    command
}

fn run(arguments: &[&str]) -> Output {
    program(arguments).output().unwrap()
}

fn printed(arguments: &[&str]) -> String {
    let output = run(arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The running program, killed on drop.
struct Program {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// URLs that it printed at the start: the pages, the two receivers and the health check.
    urls: Vec<String>,
}

impl Program {
    fn start(variables: &[(&str, &str)]) -> Self {
        let mut command = program(&[]);
        command.envs(variables.iter().copied()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut welcome = String::new();
        while !welcome.contains("Stop with Ctrl-C.\n") {
            assert_ne!(stdout.read_line(&mut welcome).unwrap(), 0, "{welcome}");
        }
        let words = welcome.split([' ', ',', '\n']);
        let mut urls: Vec<_> = words
            .filter(|word| word.starts_with("http://"))
            .map(str::to_owned)
            .collect();
        assert!(welcome.contains(&format!("\n  export OTEL_EXPORTER_OTLP_ENDPOINT={}\n", urls[1])));
        urls.truncate(4);
        Self { child, stdout, urls }
    }

    fn address(&self, index: usize) -> SocketAddr {
        let (_, port) = self.urls[index].rsplit_once(':').unwrap();
        SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_receives_and_prints_and_stops_at_once() {
    let mut program = Program::start(&[]);
    let record = |event: &str, body: Value| {
        let mut record = json!({
            "timeUnixNano": "1795342907000000000", "eventName": event,
            "attributes": [{"key": "index", "value": {"intValue": "0"}}],
        });
        if !body.is_null() {
            record["body"] = json!({"stringValue": body});
        }
        record
    };
    let resource = json!({"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]});
    let records = [
        record("gen_ai.choice", Value::Null),
        record("browser.page_view", json!("visited")),
        record("", Value::Null),
    ];
    let logs = json!({"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": records}]}]});
    let span = json!({
        "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331", "name": "GET /",
        "startTimeUnixNano": "1795342907000000000", "endTimeUnixNano": "1795342907005000000",
    });
    let traces = json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]});
    for (index, signal, body) in [(1, "logs", logs), (2, "traces", traces)] {
        let request = client().post(format!("{}/v1/{signal}", program.urls[index]));
        let request = request
            .header("content-type", "application/json")
            .body(body.to_string());
        assert_eq!(within(request.send()).await.unwrap().status(), 200);
    }
    let pages = format!("--observatory={}", program.urls[0]);
    let deadline = Instant::now() + Duration::from_secs(30);
    let logs = loop {
        let logs = printed(&["logs", &pages]);
        if logs.lines().count() == 3 || Instant::now() > deadline {
            break logs;
        }
    };
    assert!(!logs.contains("null"), "{logs}");
    for text in [
        "shop  gen_ai.choice  index=0",
        "browser.page_view  visited  index=0",
        "shop  index=0",
    ] {
        assert!(logs.contains(text), "{text}: {logs}");
    }
    assert!(printed(&["traces", &pages]).contains("shop  GET /"));
    for (words, is_found) in [
        (&["service=shop", "dur>=5ms", "--sort=-duration"][..], true),
        (&["service=shop", "dur>5ms", "--sort", "-duration"], false),
        (&["name=other", "OR", "service=other"], false),
        (&["name~get", "OR", "service=other"], true),
    ] {
        let listed = printed(&[&["traces", &pages], words].concat());
        assert_eq!(listed.contains("shop  GET /"), is_found, "{words:?}: {listed}");
    }
    let tree = printed(&["traces", "0af7651916cd43dd8448eb211c80319c", &pages]);
    assert!(
        tree.starts_with("trace 0af7651916cd43dd8448eb211c80319c"),
        "{tree}"
    );
    assert_eq!(
        printed(&["logs", "body~visit", "index=0", &pages])
            .lines()
            .count(),
        1
    );
    for (arguments, problem) in [
        (&["traces", "dur>"][..], "parameter `query`: "),
        (&["traces", "--sort=size"], "parameter `sort`: "),
    ] {
        let output = run(&[arguments, &[&pages]].concat());
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && message.contains(problem), "{message}");
    }

    // Idle connections do not delay the end.
    let idle = [0, 1, 2, 3].map(|index| TcpStream::connect(program.address(index)).unwrap());
    let begin = Instant::now();
    let pid = program.child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert!(program.child.wait().unwrap().success());
    assert!(
        begin.elapsed() < Duration::from_millis(500),
        "{:?}",
        begin.elapsed()
    );
    drop(idle);
    let mut rest = String::new();
    program.stdout.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("stopping"), "{rest}");
}

#[cfg(feature = "keep")]
#[tokio::test(flavor = "multi_thread")]
async fn kept_telemetry_survives_a_kill() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let file = std::env::temp_dir().join(format!("observatory-keep-{}", std::process::id()));
    let remove = || {
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", file.display()));
        }
    };
    remove();
    let keep = [("OBSERVATORY_KEEP", file.to_str().unwrap())];
    let mut program = Program::start(&keep);
    let span = json!({"traceId": TRACE, "spanId": "b7ad6b7169203331", "name": "GET /kept"});
    let resource = json!({"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]});
    let traces = json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]});
    let request = client().post(format!("{}/v1/traces", program.urls[1]));
    let request = request
        .header("content-type", "application/json")
        .body(traces.to_string());
    assert_eq!(within(request.send()).await.unwrap().status(), 200);
    // The log grows when a transaction ends.
    let log = format!("{}-wal", file.display());
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut before = Vec::new();
    loop {
        let written = std::fs::read(&log).unwrap_or_default();
        if written.windows(9).any(|text| text == b"GET /kept") && written == before {
            break;
        }
        before = written;
        assert!(Instant::now() < deadline, "not written");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    program.child.kill().unwrap();
    program.child.wait().unwrap();
    let again = Program::start(&keep);
    let pages = format!("--observatory={}", again.urls[0]);
    assert!(printed(&["traces", "service=shop", "kept", &pages]).contains("shop  GET /kept"));
    assert!(printed(&["traces", TRACE, &pages]).contains("GET /kept"));
    drop(again);
    remove();
}

#[test]
fn a_taken_port_is_reported_once_with_the_way_out() {
    let first = Program::start(&[]);
    for (index, variable) in PORTS.into_iter().enumerate() {
        let port = first.address(index).port().to_string();
        let output = program(&[]).env(variable, &port).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && output.stdout.is_empty());
        assert_eq!(message.lines().count(), 1, "{message}");
        let expected = format!("otlp-observatory: {variable}: cannot listen on 127.0.0.1:{port} for ");
        assert!(message.starts_with(&expected), "{message}");
        assert!(
            message.contains(&format!("set {variable} to another port")),
            "{message}"
        );
        assert_eq!(message.matches("use").count(), 1, "{message}");
    }
}

#[test]
fn the_help_of_a_command_shows_what_it_reads() {
    let [serve, traces, logs] = [&["--help"][..], &["traces", "--help"], &["logs", "--help"]].map(printed);
    for (own, help) in [("--min-duration", &traces), ("--follow", &logs)] {
        for option in [
            own,
            "--observatory-port",
            "--observatory-host",
            "OBSERVATORY_PORT]",
        ] {
            assert!(
                help.contains(option) && (option != own || !serve.contains(own)),
                "{option}"
            );
        }
        for option in ["--observatory-memory", "--data-dir", "--log-output", "SCOUT_"] {
            assert!(!help.contains(option) && serve.contains(option), "{option}");
        }
    }
}

#[test]
fn an_invalid_setting_is_reported_in_one_line() {
    for (arguments, expected) in [
        (&["--observatory-port=x"][..], "OBSERVATORY_PORT: "),
        (&["--observatory-memory", "much"], "OBSERVATORY_MEMORY: "),
        (&["--log-format=xml"], "LOG_FORMAT: "),
        (&["logs", "--observatory-host=nowhere"], "OBSERVATORY_HOST: "),
        (
            &["traces", "--observatory=http://127.0.0.1:9"],
            "nothing listens at http://127.0.0.1:9/; start ",
        ),
    ] {
        let output = run(arguments);
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && output.stdout.is_empty());
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(
            message.starts_with(&format!("otlp-observatory: {expected}")),
            "{message}"
        );
    }
}
