//! Standard input and output, line by line.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{TRACE, call, initialize, request, send_trace, text};
use crate::support::Running;

/// The program `otlp-observatory mcp`, killed on drop.
struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Program {
    fn start(observatory: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_otlp-observatory"))
            .args(["mcp", "--observatory", observatory])
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            stdin: child.stdin.take(),
            stdout: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    /// Starts the program and completes the handshake.
    fn ready(observatory: &str) -> Self {
        let mut program = Self::start(observatory);
        program.send(&initialize("2025-11-25").to_string());
        assert_eq!(program.receive()["id"], 1);
        program.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string());
        program
    }

    fn send(&mut self, line: &str) {
        writeln!(self.stdin.as_ref().unwrap(), "{line}").unwrap();
    }

    fn receive(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    fn respond(&mut self, message: &Value) -> Value {
        self.send(&message.to_string());
        self.receive()
    }

    /// Closes the input and waits for the end of the program.
    fn close(mut self) -> ExitStatus {
        self.stdin = None;
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the program runs on without input");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns an address at which nothing listens.
fn nothing() -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_answer_from_a_running_observatory() {
    let observatory = Running::start().await;
    send_trace(&observatory).await;
    let mut program = Program::ready(&format!("http://{}", observatory.addresses.pages));
    let answer = program.respond(&call(2, "get_trace", &json!({"trace_id": TRACE})));
    assert!(text(&answer).contains("ERROR no such cart"), "{answer}");
    assert!(program.close().success());
}

#[test]
fn an_observatory_that_does_not_run_yet_is_named_in_the_answer() {
    let address = nothing();
    let mut program = Program::ready(&address);
    let answer = program.respond(&call(2, "find_traces", &json!({})));
    assert_eq!(answer["result"]["isError"], true);
    let expected = format!("nothing listens at {address}/; start the observatory");
    assert!(text(&answer).starts_with(&expected), "{answer}");
    assert!(program.close().success());
}

#[test]
fn lines_that_are_no_request_do_not_end_the_session() {
    let mut program = Program::ready(&nothing());
    for line in ["", "{", "not json", "\u{feff}", "{\"jsonrpc\":\"2.0\",\"id\":7"] {
        program.send(line);
    }
    // JSON that is no message is answered, because a request may be lost.
    program.send("[1, 2]");
    assert_eq!(program.receive()["error"]["code"], -32600);
    let huge = call(8, "find_traces", &json!({"query": "x".repeat(17 << 20)}));
    program.send(&huge.to_string());
    let answer = program.respond(&call(9, "find_traces", &json!({"from": "x".repeat(1 << 20)})));
    assert_eq!(answer["id"], 9, "a line of more than 16 MiB is dropped");
    assert!(answer.to_string().len() < 2_000);
    assert!(program.close().success());
}

#[test]
fn a_cancelled_call_is_not_answered() {
    // Accepts connections and never answers.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let mut program = Program::ready(&format!("http://{}", silent.local_addr().unwrap()));
    program.send(&call(2, "find_traces", &json!({})).to_string());
    let (connection, _) = silent.accept().unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut connection = BufReader::new(connection);
    let mut request = String::new();
    connection.read_line(&mut request).unwrap();
    assert!(request.starts_with("GET /traces?"), "{request}");
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}});
    program.send(&cancel.to_string());
    // The request to the observatory ends with the call.
    connection.read_to_string(&mut request).unwrap();
    assert_eq!(program.respond(&request_ping(3))["id"], 3);
    assert!(program.close().success());
}

#[test]
fn the_end_of_the_input_ends_the_program() {
    assert!(Program::start(&nothing()).close().success());
    assert!(Program::ready(&nothing()).close().success());
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let mut program = Program::ready(&format!("http://{}", silent.local_addr().unwrap()));
    program.send(&call(2, "find_traces", &json!({})).to_string());
    let _connection = silent.accept().unwrap();
    assert!(program.close().success());
}

fn request_ping(id: u64) -> Value {
    request(id, "ping", &json!({}))
}
