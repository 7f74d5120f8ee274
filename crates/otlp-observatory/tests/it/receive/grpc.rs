//! OTLP/gRPC.

use std::time::Duration;

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{ExportLogsServiceResponse, logs_service_client::LogsServiceClient},
        metrics::v1::{ExportMetricsServiceResponse, metrics_service_client::MetricsServiceClient},
        trace::v1::{ExportTraceServiceResponse, trace_service_client::TraceServiceClient},
    },
    trace::v1::Span,
};
use tonic::{
    Code,
    codec::CompressionEncoding::Gzip,
    transport::{Channel, Endpoint},
};

use super::requests::{logs, metrics, span, spans, traces};
use crate::support::{Running, within};

async fn channel(observatory: &Running) -> Channel {
    let address = observatory.addresses.grpc.unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    within(endpoint.timeout(Duration::from_secs(30)).connect())
        .await
        .unwrap()
}

#[tokio::test]
async fn every_signal_is_accepted_with_and_without_compression() {
    let observatory = Running::start().await;
    let channel = channel(&observatory).await;
    let mut traces_client = TraceServiceClient::new(channel.clone());
    let mut metrics_client = MetricsServiceClient::new(channel.clone());
    let mut logs_client = LogsServiceClient::new(channel);
    for _ in 0..2 {
        let response = traces_client.export(traces(2)).await.unwrap().into_inner();
        assert_eq!(response, ExportTraceServiceResponse::default());
        let response = metrics_client.export(metrics()).await.unwrap().into_inner();
        assert_eq!(response, ExportMetricsServiceResponse::default());
        let response = logs_client.export(logs()).await.unwrap().into_inner();
        assert_eq!(response, ExportLogsServiceResponse::default());
        traces_client = traces_client.send_compressed(Gzip);
        metrics_client = metrics_client.send_compressed(Gzip);
        logs_client = logs_client.send_compressed(Gzip);
    }
    observatory.stop().await.unwrap();
}

#[tokio::test]
async fn spans_without_valid_ids_are_a_partial_success() {
    let observatory = Running::start().await;
    let mut client = TraceServiceClient::new(channel(&observatory).await);
    let request = spans([
        span(1),
        Span {
            trace_id: vec![],
            ..span(2)
        },
    ]);
    let response = client.export(request).await.unwrap().into_inner();
    assert_eq!(response.partial_success.unwrap().rejected_spans, 1);
}

/// The error has no `RetryInfo`, so senders do not retry.
#[tokio::test]
async fn an_oversized_message_is_rejected_permanently_with_and_without_compression() {
    let observatory = Running::start().await;
    let mut client = TraceServiceClient::new(channel(&observatory).await);
    let request = spans([Span {
        name: "x".repeat((4 << 20) + 1),
        ..span(1)
    }]);
    let rejected = client.export(request.clone()).await.unwrap_err();
    assert_eq!(
        (rejected.code(), rejected.details()),
        (Code::ResourceExhausted, &[][..])
    );
    let rejected = client.send_compressed(Gzip).export(request).await.unwrap_err();
    assert_eq!(
        (rejected.code(), rejected.details()),
        (Code::ResourceExhausted, &[][..])
    );
    let status = observatory.json("/status").await;
    assert_eq!(status["refused"]["requests"], 2);
}

#[tokio::test]
async fn a_message_that_expands_in_memory_is_rejected_permanently() {
    let observatory = Running::start().await;
    let mut client = TraceServiceClient::new(channel(&observatory).await);
    let request = spans(vec![Span::default(); 400_000]);
    let rejected = client.export(request).await.unwrap_err();
    assert_eq!(rejected.code(), Code::InvalidArgument);
}
