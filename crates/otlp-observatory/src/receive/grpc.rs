//! OTLP/gRPC: the method `Export` of the three collector services.
//!
//! `tonic` reads messages and limits their size, but does not decode them: the services of
//! `opentelemetry-proto` would decode on the async worker threads. Instead, messages are decoded like HTTP
//! bodies.

use std::{future::Future, pin::Pin};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
    routing::any,
};
use bytes::Bytes;
use otlp_recorder::RawCodec;
use prost::Message as _;
use tonic::{
    Code, Status,
    codec::CompressionEncoding,
    server::{Grpc, UnaryService},
};

use super::{body::Compression, encoding::Encoding, receiver::Receiver, rejection::Rejection};
use crate::{
    export::Signal,
    ingest::{Ingest, MAX_WAIT},
};

/// Maximum size of a gRPC message in bytes, before and after decompression. This is the default of gRPC.
const MAX_GRPC_MESSAGE: usize = 4 << 20;

/// Length of the prefix of a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Whether the headers are those of a gRPC request.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type.is_some_and(|value| value.starts_with(b"application/grpc"))
}

/// Counts a rejected request, and returns the response.
pub(super) fn reject(ingest: &Ingest, rejection: Rejection) -> Response {
    ingest.count_rejected(&rejection.to_string());
    failed(match rejection {
        // Without `RetryInfo`, it is permanent.
        Rejection::TooLarge { .. } => Status::resource_exhausted(rejection.to_string()),
        Rejection::UnknownPath { .. } => Status::unimplemented(rejection.to_string()),
        rejection => rejection.into(),
    })
}

/// Returns the routes of the three services.
pub(super) fn router(receiver: &Receiver) -> Router {
    let route = |signal| {
        let export = ExportMethod {
            receiver: receiver.clone(),
            signal,
        };
        any(async move |request| export.respond(request).await)
    };
    let service =
        |signal: &str, name: &str| format!("/opentelemetry.proto.collector.{signal}.v1.{name}/Export");
    Router::new()
        .route(&service("trace", "TraceService"), route(Signal::Traces))
        .route(&service("metrics", "MetricsService"), route(Signal::Metrics))
        .route(&service("logs", "LogsService"), route(Signal::Logs))
}

/// Method `Export` of the service for one signal.
#[derive(Clone, Debug)]
struct ExportMethod {
    receiver: Receiver,
    signal: Signal,
}

impl ExportMethod {
    async fn respond(&self, request: Request) -> Response {
        let (head, body) = request.into_parts();
        // Only errors have their status in the headers; successful responses have it in the trailers.
        let (_held, body) = match self.receiver.memory.read(body, PREFIX + MAX_GRPC_MESSAGE).await {
            Ok(mut held) => {
                let body = Body::from(std::mem::take(&mut held.bytes));
                (held, body)
            }
            Err(rejection) => return reject(&self.receiver.ingest, rejection),
        };
        let mut grpc = Grpc::new(RawCodec)
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(MAX_GRPC_MESSAGE);
        let mut response = grpc
            .unary(self.clone(), Request::from_parts(head, body))
            .await
            .map(Body::new);
        let headers = response.headers_mut();
        if let Some(status) = Status::from_header_map(headers) {
            self.receiver.ingest.count_rejected(status.message());
            if status.code() == Code::OutOfRange {
                // `tonic` reports oversized messages as `OUT_OF_RANGE`, which OTLP senders would retry.
                let too_large = HeaderValue::from(Code::ResourceExhausted as i32);
                headers.insert(Status::GRPC_STATUS, too_large);
            }
        }
        response
    }
}

fn failed(status: Status) -> Response {
    status.into_http::<Body>().into_response()
}

impl UnaryService<Bytes> for ExportMethod {
    type Response = Bytes;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Bytes>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let Self { receiver, signal } = self.clone();
        let message = request.into_inner();
        Box::pin(async move {
            let identity = Compression::Identity;
            let submitted = receiver.submit(signal, Encoding::Protobuf, identity, message, MAX_WAIT);
            let refused = submitted.await?.refused;
            Ok(tonic::Response::new(refused.response().encode_to_vec().into()))
        })
    }
}
