//! Responses while the queue is full or closed.

use std::sync::Arc;

use axum::{Router, body::Body, extract::Request, http::StatusCode, response::Response};
use http_body_util::BodyExt as _;
use opentelemetry_proto::tonic::{collector::trace::v1::ExportTraceServiceRequest, trace::v1::Span};
use prost::Message as _;
use tower_service::Service as _;

#[cfg(feature = "grpc")]
use super::status::RetryInfo;
use super::{Receiver, status::Status};
use crate::{
    access::Access,
    export::Export,
    ingest::{Ingest, MAX_WAIT, Received},
    samples,
};

/// Returns the routes of a receiver for all hosts.
fn router(ingest: Ingest) -> Router {
    let any_host = std::net::Ipv4Addr::UNSPECIFIED.into();
    super::router(&Receiver::new(ingest), Access::new(any_host, &[], &[]))
}

async fn post(mut router: Router, content_type: &str, body: Vec<u8>) -> Response {
    let request = Request::post("/v1/traces")
        .header("content-type", content_type)
        .body(Body::from(body))
        .unwrap();
    router.call(request).await.unwrap()
}

async fn bytes(response: Response) -> Vec<u8> {
    response.into_body().collect().await.unwrap().to_bytes().to_vec()
}

fn traces() -> ExportTraceServiceRequest {
    samples::traces("")
}

#[tokio::test]
async fn a_full_queue_is_reported_as_429_with_a_retry_delay() {
    let received = Arc::new(Received::default());
    let router = router(Ingest::that_is_full(received.clone()));
    let response = post(router, "application/x-protobuf", traces().encode_to_vec()).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(response.headers()["content-type"], "application/x-protobuf");
    let status = Status::decode(bytes(response).await.as_slice()).unwrap();
    assert_eq!(status.code, tonic::Code::ResourceExhausted as i32);
    assert_eq!((received.rejected_requests(), received.counts().spans), (1, 0));
}

#[tokio::test]
async fn a_request_waits_for_room_in_the_queue() {
    let body = traces().encode_to_vec();
    let received = Arc::new(Received::default());
    let (ingest, consume) = Ingest::that_is_paused(body.len(), received.clone());
    let router = router(ingest);
    let send = || tokio::spawn(post(router.clone(), "application/x-protobuf", body.clone()));
    assert_eq!(send().await.unwrap().status(), StatusCode::OK);
    let waiting = send();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished());
    std::thread::spawn(consume);
    assert_eq!(waiting.await.unwrap().status(), StatusCode::OK);
    assert_eq!(
        (received.rejected_requests(), received.delayed_requests()),
        (0, 1)
    );
}

#[tokio::test]
async fn a_short_encoding_of_many_items_needs_room_for_their_memory() {
    let mut request = traces();
    request.resource_spans[0].scope_spans[0].spans = vec![Span::default(); 1_000];
    let body = request.encode_to_vec();
    for (limit, expected) in [
        (2 * body.len(), StatusCode::TOO_MANY_REQUESTS),
        (1 << 20, StatusCode::OK),
    ] {
        let (ingest, _) = Ingest::that_is_paused(limit, Arc::default());
        let response = post(router(ingest), "application/x-protobuf", body.clone()).await;
        assert_eq!(response.status(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_no_longer_than_the_time_limit() {
    let body = traces().encode_to_vec();
    let received = Arc::new(Received::default());
    let (ingest, _) = Ingest::that_is_paused(body.len(), received.clone());
    let router = router(ingest);
    let accepted = post(router.clone(), "application/x-protobuf", body.clone()).await;
    assert_eq!(accepted.status(), StatusCode::OK);
    let begin = tokio::time::Instant::now();
    let response = post(router, "application/x-protobuf", body).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(begin.elapsed(), MAX_WAIT);
    assert_eq!(
        (received.rejected_requests(), received.delayed_requests()),
        (1, 0)
    );
}

#[tokio::test]
async fn a_full_queue_is_reported_in_json_to_json_requests() {
    let router = router(Ingest::that_is_full(Arc::default()));
    let body = serde_json::to_vec(&traces()).unwrap();
    let response = post(router, "application/json", body).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()["retry-after"], "1");
    let status: serde_json::Value = serde_json::from_slice(&bytes(response).await).unwrap();
    assert_eq!(status["code"], 8);
    assert!(!status["message"].as_str().unwrap().is_empty());
}

#[cfg(feature = "grpc")]
#[tokio::test]
async fn a_full_queue_is_reported_over_grpc_with_retry_info() {
    let received = Arc::new(Received::default());
    let mut router = router(Ingest::that_is_full(received.clone()));
    let message = traces().encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let body = [&[0][..], &length, &message].concat();
    let request = Request::post("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        .header("content-type", "application/grpc")
        .body(Body::from(body))
        .unwrap();
    let response = router.call(request).await.unwrap();
    let rejected = tonic::Status::from_header_map(response.headers()).unwrap();
    assert_eq!(rejected.code(), tonic::Code::ResourceExhausted);
    let details = String::from_utf8_lossy(rejected.details()).into_owned();
    assert!(
        details.contains("type.googleapis.com/google.rpc.RetryInfo"),
        "{details}"
    );
    let status = Status::decode(rejected.details()).unwrap();
    assert_eq!(status.message, rejected.message());
    let [detail] = &status.details[..] else {
        panic!("{status:?}");
    };
    assert!(detail.type_url.ends_with("/google.rpc.RetryInfo"));
    let delay = RetryInfo::decode(&*detail.value).unwrap().retry_delay.unwrap();
    assert_eq!((delay.seconds, delay.nanos), (1, 0));
    assert_eq!((received.rejected_requests(), received.counts().spans), (1, 0));
}

#[tokio::test]
async fn a_closed_queue_is_reported_as_503() {
    let (ingest, ingest_thread) = Ingest::start(
        Arc::new(crate::store::Store::new(1 << 20)),
        None,
        true,
        None,
        Arc::default(),
    )
    .unwrap();
    ingest_thread.finish().await;
    let late = ingest.accept(Export::Traces(traces()), 1, tokio::time::Instant::now());
    assert!(late.await.is_err());
    let response = post(router(ingest), "application/x-protobuf", traces().encode_to_vec()).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
}
