//! Streamable HTTP, request by request.

use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use super::{TRACE, call, initialize, request, send_trace, text};
use crate::support::{Running, client, within};

fn post(observatory: &Running, body: String) -> reqwest::RequestBuilder {
    client()
        .post(format!("http://{}/mcp", observatory.addresses.pages))
        .header(header::ACCEPT, "application/json, text/event-stream")
        .header(header::CONTENT_TYPE, "application/json")
        .body(body)
}

async fn status_and_text(request: reqwest::RequestBuilder) -> (StatusCode, String) {
    let response = within(request.send()).await.unwrap();
    (response.status(), response.text().await.unwrap())
}

pub(super) async fn respond(observatory: &Running, message: &Value) -> Value {
    let (status, body) = status_and_text(post(observatory, message.to_string())).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[tokio::test]
async fn the_protocol_version_is_that_of_the_client_or_the_newest_with_a_handshake() {
    let observatory = Running::start().await;
    for (version, expected) in [
        ("2024-11-05", "2024-11-05"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("1999-01-01", "2025-11-25"),
        ("2999-01-01", "2025-11-25"),
    ] {
        let response = respond(&observatory, &initialize(version)).await;
        assert_eq!(response["result"]["protocolVersion"], expected, "{version}");
        assert_eq!(response["result"]["serverInfo"]["name"], "observatory");
        assert_eq!(response["result"]["capabilities"], json!({"tools": {}}));
        let instructions = response["result"]["instructions"].as_str().unwrap();
        assert!(instructions.contains("find_problems") && instructions.contains("<telemetry>"));
    }
}

#[tokio::test]
async fn every_tool_only_reads_and_says_what_it_is_for() {
    let observatory = Running::start().await;
    let response = respond(&observatory, &request(2, "tools/list", &json!({}))).await;
    let tools = response["result"]["tools"].as_array().unwrap();
    let names: Vec<_> = tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    let expected = [
        "find_problems",
        "find_traces",
        "get_trace",
        "find_logs",
        "get_metrics",
        "compare",
    ];
    assert_eq!(names, expected);
    for tool in tools {
        assert_eq!(tool["annotations"]["readOnlyHint"], true, "{tool}");
        assert_eq!(tool["inputSchema"]["additionalProperties"], false, "{tool}");
        assert!(tool["description"].as_str().unwrap().len() > 100, "{tool}");
        for argument in tool["inputSchema"]["properties"].as_object().unwrap().values() {
            assert!(
                argument["description"].is_string() && argument["type"].is_string(),
                "{tool}"
            );
        }
    }
    // A client adds this to the context of every conversation.
    assert!(
        response.to_string().len() < 8_000,
        "{}",
        response.to_string().len()
    );
}

#[tokio::test]
async fn tools_answer_from_the_observatory() {
    let observatory = Running::start().await;
    send_trace(&observatory).await;
    let response = respond(&observatory, &call(3, "find_traces", &json!({}))).await;
    assert_eq!(
        text(&response),
        format!(
            "1 trace\n<telemetry>\n2026-11-22 10:21:47.000Z  {TRACE}  5.0ms  ERROR  shop  GET /cart  1 span, 1 error\n\
             </telemetry>\n"
        )
    );
    let response = respond(&observatory, &call(4, "get_trace", &json!({"trace_id": TRACE}))).await;
    assert!(text(&response).contains("\n+0ns 5.0ms  shop: GET /cart [server] ERROR no such cart #b7ad6b\n"));
    assert_eq!(response["result"].get("isError"), Some(&json!(false)));
}

#[tokio::test]
async fn a_wrong_call_is_answered_with_the_way_out() {
    let observatory = Running::start().await;
    let response = respond(&observatory, &call(5, "delete_everything", &json!({}))).await;
    assert_eq!(response["error"]["code"], -32602);
    assert!(
        response["error"]["message"]
            .as_str()
            .unwrap()
            .contains("find_problems")
    );
    let response = respond(&observatory, &request(6, "resources/list", &json!({}))).await;
    assert_eq!(response["error"]["code"], -32601);
    let response = respond(&observatory, &call(7, "find_traces", &json!(["error"]))).await;
    assert_eq!(response["error"]["code"], -32602, "{response}");

    let long = "x".repeat(100_000);
    for (tool, arguments, cause) in [
        ("get_trace", json!({}), "missing field `trace_id`"),
        ("get_trace", json!({"trace_id": 5}), "expected a string"),
        ("get_trace", json!({"trace_id": "xyz"}), "32 hexadecimal digits"),
        (
            "get_trace",
            json!({"trace_id": "../status"}),
            "32 hexadecimal digits",
        ),
        ("get_trace", json!({"trace_id": TRACE}), "in memory"),
        (
            "find_traces",
            json!({"stauts": "error"}),
            "unknown field `stauts`",
        ),
        ("find_traces", json!({"limit": 5_000}), "`limit`"),
        ("find_traces", json!({"from": "yesterday"}), "`from`"),
        ("find_traces", json!({"from": long}), "argument"),
        ("find_traces", json!({(&long): 1}), "unknown field"),
        ("find_logs", json!({"around": "noon"}), "around"),
        ("get_metrics", json!({"name": "no.such"}), "in memory"),
    ] {
        let response = respond(&observatory, &call(7, tool, &arguments)).await;
        assert!(response.to_string().len() < 2_000, "{tool}: {response}");
        assert_eq!(response["result"]["isError"], true, "{tool}: {response}");
        assert!(text(&response).contains(cause), "{tool}: {response}");
    }
}

#[tokio::test]
async fn what_is_no_request_of_the_protocol_is_rejected() {
    let observatory = Running::start().await;
    for body in [
        "",
        "{",
        "[]",
        "{\"jsonrpc\": \"2.0\"}",
        "\u{0}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":5}",
    ] {
        let (status, text) = status_and_text(post(&observatory, body.to_owned())).await;
        assert!(status.is_client_error(), "{body}: {status} {text}");
    }
    let huge = call(1, "find_traces", &json!({"query": "x".repeat(1 << 20)}));
    let (status, _) = status_and_text(post(&observatory, huge.to_string())).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let address = format!("http://{}/mcp", observatory.addresses.pages);
    for method in [Method::GET, Method::DELETE, Method::PUT] {
        let request = client()
            .request(method.clone(), &address)
            .header(header::ACCEPT, "text/event-stream");
        let (status, _) = status_and_text(request).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
    }
    let notification =
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 9}});
    let (status, _) = status_and_text(post(&observatory, notification.to_string())).await;
    assert_eq!(status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn other_sites_cannot_use_the_tools() {
    let observatory = Running::start().await;
    let port = observatory.addresses.pages.port();
    let send = |name: &'static str, value: String| {
        let request = post(&observatory, initialize("2025-11-25").to_string());
        async move { status_and_text(request.header(name, value)).await.0 }
    };
    for (name, value) in [
        ("origin", "http://evil.example".to_owned()),
        ("origin", "null".to_owned()),
        ("origin", format!("http://localhost.evil.example:{port}")),
        ("origin", "http://127.0.0.1:5173".to_owned()),
        ("host", "evil.example".to_owned()),
    ] {
        assert_eq!(
            send(name, value.clone()).await,
            StatusCode::FORBIDDEN,
            "{name}: {value}"
        );
    }
    for (name, value) in [
        ("origin", format!("http://127.0.0.1:{port}")),
        ("host", "localhost".to_owned()),
    ] {
        assert_eq!(send(name, value.clone()).await, StatusCode::OK, "{name}: {value}");
    }
}
