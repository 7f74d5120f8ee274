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
    http::HeaderValue,
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

use super::{
    body::Compression, decoding::Decoder, encoding::Encoding, ids, limits::READ_TIMEOUT, rejection::Rejection,
};
use crate::{export::Signal, ingest::Ingest};

/// Maximum size of a gRPC message in bytes, before and after decompression. This is the default of gRPC.
const MAX_GRPC_MESSAGE: usize = 4 << 20;

/// Returns the routes of the three services.
pub(crate) fn router(ingest: Ingest) -> Router {
    let decoder = Decoder::new();
    let route = |signal| {
        let receiver = Receiver {
            ingest: ingest.clone(),
            decoder: decoder.clone(),
            signal,
        };
        any(async move |request| receiver.respond(request).await)
    };
    let service =
        |signal: &str, name: &str| format!("/opentelemetry.proto.collector.{signal}.v1.{name}/Export");
    Router::new()
        .route(&service("trace", "TraceService"), route(Signal::Traces))
        .route(&service("metrics", "MetricsService"), route(Signal::Metrics))
        .route(&service("logs", "LogsService"), route(Signal::Logs))
        .fallback(async move || {
            ingest.count_rejected();
            failed(Status::unimplemented(
                "unknown service; this server has the OTLP services for traces, metrics and logs",
            ))
        })
}

/// Method `Export` of the service for one signal.
#[derive(Clone, Debug)]
struct Receiver {
    ingest: Ingest,
    decoder: Decoder,
    signal: Signal,
}

impl Receiver {
    async fn respond(&self, request: Request) -> Response {
        let mut grpc = Grpc::new(RawCodec)
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(MAX_GRPC_MESSAGE);
        let mut response = match tokio::time::timeout(READ_TIMEOUT, grpc.unary(self.clone(), request)).await {
            Ok(response) => response.map(Body::new),
            Err(_) => failed(Rejection::TooSlow.into()),
        };
        // Only errors have their status in the headers; successful responses have it in the trailers.
        let headers = response.headers_mut();
        if let Some(status) = headers.get(Status::GRPC_STATUS) {
            self.ingest.count_rejected();
            if Code::from_bytes(status.as_bytes()) == Code::OutOfRange {
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

impl UnaryService<Bytes> for Receiver {
    type Response = Bytes;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Bytes>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let receiver = self.clone();
        let message = request.into_inner();
        Box::pin(async move {
            let decoder = &receiver.decoder;
            let decoded = decoder.decode(
                receiver.signal,
                Encoding::Protobuf,
                Compression::Identity,
                message,
            );
            let (export, rejected) = decoded.await?;
            receiver.ingest.accept(export).map_err(Rejection::from)?;
            // Without rejected spans, the responses of all signals are empty.
            let response = ids::response(rejected).encode_to_vec();
            Ok(tonic::Response::new(response.into()))
        })
    }
}
