//! The official client and the conformance suite of the protocol, which run in Node.

use std::{path::Path, process::Command};

use serde_json::{Value, json};

use super::{TRACE, send_trace};
use crate::support::Running;

/// Scenarios of the conformance suite that need no tools of its own.
const SCENARIOS: [&str; 4] = [
    "server-initialize",
    "ping",
    "tools-list",
    "dns-rebinding-protection",
];

#[expect(clippy::disallowed_methods, reason = "the environment names the folder")]
fn modules() -> String {
    std::env::var("TEST_MCP_MODULES")
        .expect("TEST_MCP_MODULES must name a folder node_modules with the packages of tests/mcp; scripts/test sets it")
}

/// Runs Node and returns its output.
async fn node(arguments: Vec<String>) -> String {
    let run = tokio::task::spawn_blocking(move || {
        let mut command = Command::new("node");
        command.args(&arguments).current_dir(std::env::temp_dir());
        (command.output().unwrap(), arguments)
    });
    let (output, arguments) = run.await.unwrap();
    let (stdout, stderr) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{arguments:?}: {stdout}{stderr}");
    stdout
}

/// Runs `tests/mcp/client.mjs` with a transport, and checks what it saw.
async fn check_client(transport: &[String]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mcp/client.mjs");
    let mut arguments = vec![script.to_str().unwrap().to_owned(), modules()];
    arguments.extend_from_slice(transport);
    let seen: Value = serde_json::from_str(&node(arguments).await).unwrap();
    assert_eq!(seen["server"], "observatory");
    assert_eq!(
        seen["tools"],
        json!([
            "find_problems",
            "find_traces",
            "get_trace",
            "find_logs",
            "get_metrics",
            "compare"
        ])
    );
    assert!(
        seen["trace"].as_str().unwrap().contains("ERROR no such cart"),
        "{seen}"
    );
    assert_eq!(seen["unknown_tool"], -32602);
    assert_eq!(seen["wrong_arguments"], true);
    assert!(seen["aborted"].as_str().unwrap().contains("AbortError"), "{seen}");
    assert_eq!(seen["after"], json!({}));
}

#[tokio::test]
async fn the_official_client_uses_the_tools_over_http() {
    let observatory = Running::start().await;
    send_trace(&observatory).await;
    check_client(&[
        "http".to_owned(),
        format!("http://{}/mcp", observatory.addresses.pages),
        TRACE.to_owned(),
    ])
    .await;
}

#[tokio::test]
async fn the_official_client_uses_the_tools_over_standard_input_and_output() {
    let observatory = Running::start().await;
    send_trace(&observatory).await;
    let program = env!("CARGO_BIN_EXE_otlp-observatory").to_owned();
    let pages = format!("http://{}", observatory.addresses.pages);
    check_client(&["stdio".to_owned(), pages, TRACE.to_owned(), program]).await;
}

#[tokio::test]
async fn the_scenarios_of_the_conformance_suite_pass() {
    let observatory = Running::start().await;
    let suite = format!("{}/@modelcontextprotocol/conformance/dist/index.js", modules());
    let url = format!("http://localhost:{}/mcp", observatory.addresses.pages.port());
    for scenario in SCENARIOS {
        let arguments = [&suite, "server", "--url", &url, "--scenario", scenario].map(str::to_owned);
        let output = node(arguments.to_vec()).await;
        assert!(
            output.contains("0 failed") && !output.contains("Passed: 0/"),
            "{scenario}: {output}"
        );
    }
}
