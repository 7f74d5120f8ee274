//! OTLP over gRPC: the `Export` of the three collector services. `tonic` bounds and decodes the messages.

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::HeaderValue,
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use opentelemetry_proto::tonic::collector::{
    logs::v1::{
        ExportLogsServiceRequest, ExportLogsServiceResponse,
        logs_service_server::{LogsService, LogsServiceServer},
    },
    metrics::v1::{
        ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
};
use tonic::{Code, Status, codec::CompressionEncoding::Gzip, service::Routes};

use super::{
    MAX_GRPC_MESSAGE, READ_TIMEOUT,
    ids::{self, RejectedSpans},
    refusal::Refusal,
};
use crate::{export::Export, ingest::Ingest};

/// The three services.
pub(crate) fn router(ingest: Ingest) -> Router {
    let receiver = Receiver::new(ingest.clone());
    let traces = TraceServiceServer::new(receiver.clone())
        .accept_compressed(Gzip)
        .max_decoding_message_size(MAX_GRPC_MESSAGE);
    let metrics = MetricsServiceServer::new(receiver.clone())
        .accept_compressed(Gzip)
        .max_decoding_message_size(MAX_GRPC_MESSAGE);
    let logs = LogsServiceServer::new(receiver)
        .accept_compressed(Gzip)
        .max_decoding_message_size(MAX_GRPC_MESSAGE);
    Routes::new(traces)
        .add_service(metrics)
        .add_service(logs)
        .into_axum_router()
        .layer(middleware::from_fn_with_state(ingest, answer))
}

/// What holds for every answer: it comes within a time, and one that is an error is counted and is none that a sender
/// takes for passing when it is not.
async fn answer(State(ingest): State<Ingest>, request: Request, next: Next) -> Response {
    let mut response = match tokio::time::timeout(READ_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Status::from(Refusal::TooSlow { after: READ_TIMEOUT })
            .into_http::<Body>()
            .into_response(),
    };
    // Errors have their status here; a success has it after the body.
    let headers = response.headers_mut();
    let status = headers
        .get(Status::GRPC_STATUS)
        .map(|status| Code::from_bytes(status.as_bytes()));
    if status.is_some_and(|status| status != Code::Ok) {
        ingest.count_refused();
    }
    if status == Some(Code::OutOfRange) {
        // `tonic`'s word for a message that is too large, which OTLP's senders would send again.
        let too_large = HeaderValue::from(Code::ResourceExhausted as i32);
        headers.insert(Status::GRPC_STATUS, too_large);
    }
    response
}

#[derive(Clone, Debug)]
pub(super) struct Receiver {
    ingest: Ingest,
}

impl Receiver {
    pub(super) fn new(ingest: Ingest) -> Self {
        Self { ingest }
    }

    fn receive(&self, mut export: Export) -> Result<Option<RejectedSpans>, Refusal> {
        let rejected = ids::check(&mut export);
        self.ingest.accept(export)?;
        Ok(rejected)
    }
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        let rejected = self.receive(Export::Traces(request.into_inner()))?;
        Ok(tonic::Response::new(RejectedSpans::response(rejected)))
    }
}

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, Status> {
        self.receive(Export::Metrics(request.into_inner()))?;
        Ok(tonic::Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Receiver {
    async fn export(
        &self,
        request: tonic::Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, Status> {
        self.receive(Export::Logs(request.into_inner()))?;
        Ok(tonic::Response::new(ExportLogsServiceResponse::default()))
    }
}
