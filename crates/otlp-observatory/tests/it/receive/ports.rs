//! Each port accepts every protocol, and the status tells what it could not read.

use std::future::poll_fn;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message as _;
use serde_json::json;
use tonic::transport::Endpoint;
use tower_service::Service as _;

use super::{
    http::raw,
    requests::{ADDRESSES, span, spans, traces},
};
use crate::support::{Running, client, within};

const PROTOBUF: &str = "application/x-protobuf";

const TRACE: &str = "/traces/01010101010101010101010101010101";

#[cfg(feature = "grpc")]
#[tokio::test]
async fn each_port_accepts_grpc_and_http_1_and_2() {
    let observatory = Running::start().await;
    let ports = [observatory.addresses.http, observatory.addresses.grpc.unwrap()];
    for (index, address) in ports.into_iter().enumerate() {
        let first = u8::try_from(index).unwrap() * 3 + 1;
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let mut grpc = TraceServiceClient::new(within(endpoint.connect()).await.unwrap());
        within(grpc.export(spans([span(first)]))).await.unwrap();
        let request = client()
            .post(format!("http://{address}{}", ADDRESSES[0]))
            .header("content-type", PROTOBUF)
            .body(spans([span(first + 1)]).encode_to_vec());
        assert_eq!(within(request.send()).await.unwrap().status(), 200);
        let body = axum::body::Body::from(spans([span(first + 2)]).encode_to_vec());
        let request = http::Request::post(ADDRESSES[0])
            .header("content-type", PROTOBUF)
            .body(tonic::body::Body::new(body))
            .unwrap();
        let mut http2 = within(endpoint.connect()).await.unwrap();
        within(poll_fn(|cx| http2.poll_ready(cx))).await.unwrap();
        let response = within(http2.call(request)).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.version()),
            (200, http::Version::HTTP_2)
        );
    }
    let has_all = |trace: &serde_json::Value| trace["spans"].as_array().is_some_and(|spans| spans.len() == 6);
    observatory.json_when(TRACE, has_all).await;
    assert_eq!(observatory.json("/status").await["refused"]["requests"], 0);
    observatory.stop().await.unwrap();
}

#[tokio::test]
async fn the_status_tells_what_could_not_be_read() {
    let observatory = Running::start().await;
    // The beginning of a TLS handshake.
    let response = raw(&observatory, b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03").await;
    assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
    assert!(response.contains("without TLS"), "{response}");
    let mut senders = Vec::new();
    for path in ["/api/v2/spans", "/v1/traces/v1/traces"] {
        let request = client()
            .post(observatory.http(path))
            .header("content-type", "application/json")
            .body(serde_json::to_vec(&traces(1)).unwrap());
        let response = within(request.send()).await.unwrap();
        assert_eq!(response.status(), 404);
        senders.push(response.text().await.unwrap());
    }
    let refused = &observatory.json("/status").await["refused"];
    assert_eq!(refused["requests"], 3);
    let reasons = refused["reasons"].as_array().unwrap();
    let texts: Vec<_> = reasons
        .iter()
        .map(|reason| reason["reason"].as_str().unwrap())
        .collect();
    assert!(
        texts[0].starts_with("unknown path /v1/traces/v1/traces"),
        "{texts:?}"
    );
    assert!(texts[1].starts_with("unknown path /api/v2/spans"), "{texts:?}");
    assert!(texts[2].contains("malformed request head"), "{texts:?}");
    assert!(
        senders[0].contains(texts[1]) && senders[1].contains(texts[0]),
        "{senders:?}"
    );
    assert_eq!(reasons[0]["requests"], json!(1));
    observatory.stop().await.unwrap();
}

#[cfg(feature = "grpc")]
#[tokio::test]
async fn an_unknown_grpc_service_is_unimplemented_on_both_ports() {
    use otlp_recorder::RawCodec;
    let observatory = Running::start().await;
    for address in [observatory.addresses.http, observatory.addresses.grpc.unwrap()] {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let mut grpc = tonic::client::Grpc::new(within(endpoint.connect()).await.unwrap());
        within(grpc.ready()).await.unwrap();
        let path = "/opentelemetry.proto.collector.profiles.v1.ProfilesService/Export"
            .parse()
            .unwrap();
        let request = tonic::Request::new(bytes::Bytes::new());
        let status = within(grpc.unary(request, path, RawCodec)).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unimplemented);
        assert!(status.message().contains("ProfilesService"), "{status}");
    }
    observatory.stop().await.unwrap();
}
