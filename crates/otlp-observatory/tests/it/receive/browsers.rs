//! Requests from web pages: CORS, and names that a page's site may resolve to this machine.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use reqwest::{Method, Response, header::HeaderMap};

use super::{
    http::post,
    requests::{ADDRESSES, traces},
};
use crate::support::{Running, client, config, within};

const JSON: &str = "application/json";

/// Sends the preflight request for a request from `origin`.
async fn preflight(observatory: &Running, path: &str, origin: &str) -> Response {
    let request = client()
        .request(Method::OPTIONS, observatory.http(path))
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type,x-tenant")
        .header("access-control-request-private-network", "true");
    within(request.send()).await.unwrap()
}

fn body() -> Vec<u8> {
    serde_json::to_vec::<ExportTraceServiceRequest>(&traces(1)).unwrap()
}

fn permissions(headers: &HeaderMap) -> usize {
    let names = headers.keys();
    names
        .filter(|name| name.as_str().starts_with("access-control-"))
        .count()
}

#[tokio::test]
async fn pages_of_this_machine_and_named_origins_may_send() {
    let config = config().allowed_origins(["https://shop.example"]);
    let observatory = Running::start_with(config).await;
    for origin in [
        "http://localhost:5173",
        "http://127.0.0.1:3000",
        "https://shop.example",
    ] {
        for path in ADDRESSES {
            let response = preflight(&observatory, path, origin).await;
            assert_eq!(response.status(), 204, "{origin}");
            let headers = response.headers();
            assert_eq!(headers["access-control-allow-origin"], origin);
            assert_eq!(headers["access-control-allow-methods"], "POST");
            assert_eq!(headers["access-control-allow-headers"], "content-type,x-tenant");
            assert_eq!(headers["access-control-allow-private-network"], "true");
            assert_eq!(headers["vary"], "Origin");
        }
        let headers = [("content-type", JSON), ("origin", origin)];
        let response = post(&observatory, ADDRESSES[0], &headers, body()).await;
        assert_eq!(response.status(), 200, "{origin}");
        assert_eq!(response.headers()["access-control-allow-origin"], origin);
        // Pages can read errors too.
        let response = post(&observatory, "/elsewhere", &headers, body()).await;
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers()["access-control-allow-origin"], origin);
    }
    observatory.stop().await.unwrap();
}

/// The first types are those that browsers send to other sites without a preflight request ("CORS-safelisted
/// request-header" in the Fetch standard).
#[tokio::test]
async fn pages_of_other_sites_cannot_send() {
    let observatory = Running::start().await;
    for origin in [
        "http://elsewhere.example",
        "null",
        "http://localhost.elsewhere.example:4318",
    ] {
        for content_type in [
            "text/plain",
            "text/plain;application/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            JSON,
            "application/x-protobuf",
        ] {
            let headers = [("content-type", content_type), ("origin", origin)];
            let response = post(&observatory, ADDRESSES[0], &headers, body()).await;
            assert_eq!(response.status(), 403, "{content_type}");
            assert_eq!(permissions(response.headers()), 0);
        }
        let response = post(&observatory, ADDRESSES[0], &[("origin", origin)], body()).await;
        assert_eq!(response.status(), 403, "no content type");
        let response = preflight(&observatory, ADDRESSES[0], origin).await;
        assert_eq!(response.status(), 403);
        assert_eq!(permissions(response.headers()), 0);
    }
    // Without `Origin`, the types are not accepted either.
    let response = post(
        &observatory,
        ADDRESSES[0],
        &[("content-type", "text/plain")],
        body(),
    )
    .await;
    assert_eq!(response.status(), 415);
    let status = observatory.json("/status").await;
    assert_eq!(status["received"]["spans"], 0);
    assert_eq!(status["refused"]["requests"], 25);
    observatory.stop().await.unwrap();
}

#[tokio::test]
async fn other_hosts_are_rejected_unless_they_are_named() {
    let observatory = Running::start_with(config().allowed_hosts(["otel.dev.example"])).await;
    for (host, expected) in [
        ("rebinding.example", 403),
        ("rebinding.example:4318", 403),
        ("otel.dev.example:4318", 200),
        ("localhost:4318", 200),
        ("collector:4318", 200),
    ] {
        let headers = [("content-type", JSON), ("host", host)];
        let response = post(&observatory, ADDRESSES[0], &headers, body()).await;
        assert_eq!(response.status(), expected, "{host}");
    }
    let status = observatory.json("/status").await;
    let reason = &status["refused"]["reasons"][0];
    assert!(
        reason["reason"]
            .as_str()
            .unwrap()
            .contains("rebinding.example:4318"),
        "{reason}"
    );
    observatory.stop().await.unwrap();
}
