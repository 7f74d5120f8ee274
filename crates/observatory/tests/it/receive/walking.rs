use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceResponse, trace_service_client::TraceServiceClient,
};
use prost::Message as _;

use super::requests::traces;
use crate::support::{Running, client};

#[tokio::test]
async fn protobuf_over_http_is_accepted() {
    let observatory = Running::start().await;
    let response = client()
        .post(observatory.http("/v1/traces"))
        .header("content-type", "application/x-protobuf")
        .body(traces(2).encode_to_vec())
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/x-protobuf");
    let body = response.bytes().await.unwrap();
    assert_eq!(
        ExportTraceServiceResponse::decode(body).unwrap(),
        ExportTraceServiceResponse::default()
    );
    observatory.stop().await.unwrap();
}

#[tokio::test]
async fn grpc_is_accepted() {
    let observatory = Running::start().await;
    let address = observatory.addresses.grpc.unwrap();
    let mut client = TraceServiceClient::connect(format!("http://{address}"))
        .await
        .unwrap();
    let response = client.export(traces(2)).await.unwrap();
    assert_eq!(response.into_inner(), ExportTraceServiceResponse::default());
    drop(client);
    observatory.stop().await.unwrap();
}

#[tokio::test]
async fn health_is_as_the_collectors() {
    let observatory = Running::start().await;
    let address = observatory.addresses.health.unwrap();
    for path in ["", "/", "/health/status"] {
        let response = client()
            .get(format!("http://{address}{path}"))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/json");
        let body: serde_json::Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        assert_eq!(body["status"], "Server available");
        assert!(body["uptime"].as_str().unwrap().ends_with('s'), "{body}");
        assert!(body["upSince"].as_str().unwrap().ends_with('Z'), "{body}");
    }
}
