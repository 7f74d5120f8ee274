//! OTLP/HTTP: accepted and rejected requests, and their responses.

use opentelemetry_proto::tonic::{collector::trace::v1::ExportTraceServiceResponse, trace::v1::Span};
use prost::Message as _;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::requests::{ADDRESSES, gzip, logs, metrics, span, spans, traces};
use crate::support::{Running, client, within};

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

pub(super) async fn post(
    observatory: &Running,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Vec<u8>>,
) -> Response {
    let mut request = client().post(observatory.http(path)).body(body.into());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    within(request.send()).await.unwrap()
}

async fn json_of(response: Response) -> Value {
    assert_eq!(response.headers()["content-type"], JSON);
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

fn content_type(value: &str) -> [(&str, &str); 1] {
    [("content-type", value)]
}

#[tokio::test]
async fn every_signal_is_accepted_in_both_encodings_with_and_without_compression() {
    let observatory = Running::start().await;
    let requests = [
        (
            ADDRESSES[0],
            traces(2).encode_to_vec(),
            serde_json::to_vec(&traces(2)).unwrap(),
        ),
        (
            ADDRESSES[1],
            metrics().encode_to_vec(),
            serde_json::to_vec(&metrics()).unwrap(),
        ),
        (
            ADDRESSES[2],
            logs().encode_to_vec(),
            serde_json::to_vec(&logs()).unwrap(),
        ),
    ];
    for (path, protobuf, json) in requests {
        for (encoding, body, expected) in [(PROTOBUF, protobuf, &b""[..]), (JSON, json, b"{}")] {
            for (compression, body) in [("gzip", gzip(&body)), ("identity", body)] {
                let headers = [("content-type", encoding), ("content-encoding", compression)];
                let response = post(&observatory, path, &headers, body).await;
                assert_eq!(response.status(), 200, "{path} {encoding} {compression}");
                assert_eq!(response.headers()["content-type"], encoding);
                assert_eq!(response.bytes().await.unwrap(), expected);
            }
        }
    }
    observatory.stop().await.unwrap();
}

#[tokio::test]
async fn an_empty_request_is_accepted() {
    let observatory = Running::start().await;
    for path in ADDRESSES {
        assert_eq!(
            post(&observatory, path, &content_type(PROTOBUF), "")
                .await
                .status(),
            200
        );
        assert_eq!(
            post(&observatory, path, &content_type(JSON), "{}").await.status(),
            200
        );
    }
}

#[tokio::test]
async fn spans_without_valid_ids_are_a_partial_success() {
    let observatory = Running::start().await;
    let request = spans([
        span(1),
        Span {
            trace_id: vec![0; 16],
            ..span(2)
        },
        Span {
            span_id: vec![3],
            ..span(3)
        },
    ]);
    let response = post(
        &observatory,
        ADDRESSES[0],
        &content_type(PROTOBUF),
        request.encode_to_vec(),
    )
    .await;
    assert_eq!(response.status(), 200);
    let decoded = ExportTraceServiceResponse::decode(response.bytes().await.unwrap()).unwrap();
    let partial = decoded.partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 2);
    assert!(!partial.error_message.is_empty());

    let body = serde_json::to_vec(&request).unwrap();
    let json = json_of(post(&observatory, ADDRESSES[0], &content_type(JSON), body).await).await;
    // 64-bit integers are strings in JSON.
    assert_eq!(json["partialSuccess"]["rejectedSpans"], "2");
    assert_eq!(json["partialSuccess"]["errorMessage"], partial.error_message);
}

#[tokio::test]
async fn undecodable_bodies_get_400_with_a_status_in_the_same_encoding() {
    let observatory = Running::start().await;
    for path in ADDRESSES {
        let response = post(&observatory, path, &content_type(PROTOBUF), [0xff; 20]).await;
        assert_eq!(response.status(), 400);
        assert_eq!(response.headers()["content-type"], PROTOBUF);
        let status = Status::decode(response.bytes().await.unwrap()).unwrap();
        assert_eq!(status.code, 3);
        assert!(status.message.contains("decoded"), "{status:?}");

        let response = post(&observatory, path, &content_type(JSON), "{").await;
        assert_eq!(response.status(), 400);
        assert_eq!(json_of(response).await["code"], 3);

        let headers = [("content-type", PROTOBUF), ("content-encoding", "gzip")];
        assert_eq!(post(&observatory, path, &headers, "plain").await.status(), 400);
    }
}

#[tokio::test]
async fn a_content_type_may_have_parameters() {
    let observatory = Running::start().await;
    let response = post(
        &observatory,
        ADDRESSES[0],
        &content_type("Application/JSON; charset=utf-8"),
        "{}",
    )
    .await;
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn other_methods_get_405_and_other_addresses_404() {
    let observatory = Running::start().await;
    for path in ADDRESSES {
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            let request = client().request(method, observatory.http(path)).send();
            let response = within(request).await.unwrap();
            assert_eq!(response.status(), 405);
            assert_eq!(response.headers()["allow"], "POST");
            assert_eq!(json_of(response).await["code"], 12);
        }
    }
    for path in [
        "/",
        "/v1",
        "/v1/traces/",
        "/v1/profiles",
        "/v1development/profiles",
    ] {
        let response = post(&observatory, path, &content_type(PROTOBUF), "").await;
        assert_eq!(response.status(), 404, "{path}");
    }
}

#[tokio::test]
async fn other_compressions_get_415() {
    let observatory = Running::start().await;
    for compression in ["br", "deflate", "zstd", "gzip, gzip"] {
        let headers = [("content-type", PROTOBUF), ("content-encoding", compression)];
        let response = post(&observatory, ADDRESSES[0], &headers, "").await;
        assert_eq!(response.status(), 415, "{compression}");
    }
}

#[tokio::test]
async fn an_oversized_body_gets_413() {
    const LIMIT: usize = 16 << 20;
    let observatory = Running::start().await;

    let bomb = gzip(&vec![0; LIMIT + 1]);
    assert!(bomb.len() < LIMIT / 100);
    let headers = [("content-type", PROTOBUF), ("content-encoding", "gzip")];
    assert_eq!(
        post(&observatory, ADDRESSES[0], &headers, bomb).await.status(),
        413
    );

    // An announced length above the limit is rejected before the body is read.
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: {PROTOBUF}\r\ncontent-length: {}\r\n\r\n",
        LIMIT + 1
    );
    assert!(
        raw(&observatory, head.as_bytes())
            .await
            .starts_with("HTTP/1.1 413 ")
    );

    // Without a length, the limit applies while the body is read.
    let mut chunked = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: {PROTOBUF}\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n",
        LIMIT + 1
    )
    .into_bytes();
    chunked.resize(chunked.len() + LIMIT + 1, 0);
    assert!(raw(&observatory, &chunked).await.starts_with("HTTP/1.1 413 "));
}

#[tokio::test]
async fn a_body_that_expands_in_memory_gets_413() {
    let observatory = Running::start().await;
    let body = spans(vec![Span::default(); 400_000]).encode_to_vec();
    assert!(body.len() < 1 << 20);
    let response = post(&observatory, ADDRESSES[0], &content_type(PROTOBUF), body).await;
    assert_eq!(response.status(), 413);
    let body = format!(r#"{{"resourceSpans":[{}{{}}]}}"#, "{},".repeat(700_000));
    let response = post(&observatory, ADDRESSES[0], &content_type(JSON), body).await;
    assert_eq!(response.status(), 413);
}

/// Sends `bytes` and returns the response, at least up to the end of its head.
pub(super) async fn raw(observatory: &Running, bytes: &[u8]) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let mut stream = tokio::net::TcpStream::connect(observatory.addresses.http)
        .await
        .unwrap();
    // The server may respond and close the connection before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut response = Vec::new();
    while !response.windows(4).any(|four| four == b"\r\n\r\n") {
        let mut piece = [0; 1024];
        match within(stream.read(&mut piece)).await {
            Ok(0) | Err(_) => break,
            Ok(length) => response.extend_from_slice(&piece[..length]),
        }
    }
    String::from_utf8(response).unwrap()
}

#[tokio::test]
async fn a_large_batch_is_accepted() {
    let observatory = Running::start().await;
    let request = spans((0..20_000).map(|number| Span {
        name: format!("name {number}"),
        ..span(1)
    }));
    let body = request.encode_to_vec();
    assert!(body.len() > 1 << 20);
    let headers = [("content-type", PROTOBUF), ("content-encoding", "gzip")];
    assert_eq!(
        post(&observatory, ADDRESSES[0], &headers, gzip(&body))
            .await
            .status(),
        200
    );
    let json = serde_json::to_vec(&request).unwrap();
    assert_eq!(
        post(&observatory, ADDRESSES[0], &content_type(JSON), json)
            .await
            .status(),
        200
    );
}

#[tokio::test]
async fn errors_are_json_without_a_content_type() {
    let observatory = Running::start().await;
    let response = post(&observatory, "/elsewhere", &[], "").await;
    assert_eq!(
        json_of(response).await,
        json!({
            "code": 5,
            "message": "unknown path /elsewhere; send OTLP to /v1/traces, /v1/metrics or /v1/logs, or over gRPC",
        })
    );
}
