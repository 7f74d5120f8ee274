//! Tools for coding agents, over streamable HTTP and standard input and output.

mod clients;
mod faults;
mod http;
mod stdio;

use serde_json::{Value, json};

use crate::support::{Running, client, within};

/// Trace of [`send_trace`].
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// Sends a failed request and waits until it is stored.
async fn send_trace(observatory: &Running) {
    let export = json!({"resourceSpans": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
        "scopeSpans": [{"spans": [{
            "traceId": TRACE, "spanId": "b7ad6b7169203331", "name": "GET /cart", "kind": 2,
            "startTimeUnixNano": "1795342907000000000", "endTimeUnixNano": "1795342907005000000",
            "status": {"code": 2, "message": "no such cart"}}]}]}]});
    let sent = client()
        .post(observatory.http("/v1/traces"))
        .header("content-type", "application/json")
        .body(export.to_string())
        .send();
    assert!(within(sent).await.unwrap().status().is_success());
    let stored = |json: &Value| !json["traces"].as_array().unwrap().is_empty();
    observatory.json_when("/traces", stored).await;
}

/// Returns a request of the protocol.
fn request(id: u64, method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

fn initialize(version: &str) -> Value {
    let client = json!({"name": "test", "version": "1"});
    let params = json!({"protocolVersion": version, "capabilities": {}, "clientInfo": client});
    request(1, "initialize", &params)
}

fn call(id: u64, tool: &str, arguments: &Value) -> Value {
    request(id, "tools/call", &json!({"name": tool, "arguments": arguments}))
}

/// Returns the text of a tool's answer.
fn text(response: &Value) -> &str {
    response["result"]["content"][0]["text"]
        .as_str()
        .unwrap_or_else(|| panic!("{response}"))
}
