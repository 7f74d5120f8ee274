//! OTLP/HTTP: `POST /v1/traces`, `/v1/metrics` and `/v1/logs`, in protobuf or JSON, optionally compressed
//! with gzip. Responses have no CORS headers, so pages of other sites have no access.

use std::sync::Arc;

use axum::{Router, body::Body, extract::Request, http::HeaderMap, response::Response, routing::post};
use tokio::sync::Semaphore;

use super::{
    body::{self, Compression},
    decoding::Decoder,
    encoding::Encoding,
    limits::READ_TIMEOUT,
    rejection::Rejection,
};
use crate::{
    export::Signal,
    ingest::{Ingest, Rejected},
};

/// Maximum total size of the bodies that are read and decoded at the same time, in bytes before
/// decompression.
///
/// Further requests wait.
const MAX_CONCURRENT_BYTES: u32 = 64 << 20;

/// Returns the routes of the receiver.
pub(crate) fn router(ingest: Ingest) -> Router {
    let receiver = Receiver {
        ingest,
        capacity: Arc::new(Semaphore::new(MAX_CONCURRENT_BYTES as usize)),
        decoder: Decoder::new(),
    };
    let route = |signal| {
        let receiver = receiver.clone();
        let wrong_method = receiver.clone();
        post(move |request| async move { receiver.respond(signal, request).await })
            .fallback(move |headers| async move { wrong_method.reject(&headers, &Rejection::NotPost) })
    };
    let unknown_address = receiver.clone();
    Router::new()
        .route("/v1/traces", route(Signal::Traces))
        .route("/v1/metrics", route(Signal::Metrics))
        .route("/v1/logs", route(Signal::Logs))
        .fallback(move |headers| async move { unknown_address.reject(&headers, &Rejection::UnknownAddress) })
}

#[derive(Clone, Debug)]
struct Receiver {
    ingest: Ingest,
    capacity: Arc<Semaphore>,
    decoder: Decoder,
}

impl Receiver {
    async fn respond(&self, signal: Signal, request: Request) -> Response {
        let (head, body) = request.into_parts();
        match self.receive(signal, &head.headers, body).await {
            Ok((encoding, rejected)) => encoding.success(rejected),
            Err(rejection) => self.reject(&head.headers, &rejection),
        }
    }

    async fn receive(
        &self,
        signal: Signal,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<(Encoding, usize), Rejection> {
        let encoding = Encoding::of(headers).ok_or(Rejection::UnsupportedType)?;
        let compression = Compression::of(headers)?;
        let length = body::declared_length(&body)?;
        let _permit = tokio::time::timeout(READ_TIMEOUT, self.capacity.acquire_many(length))
            .await
            .map_err(|_| Rejected::Overloaded)?
            .map_err(|_| Rejected::Closed)?;
        let body = body::read(body).await?;
        let (export, rejected) = self.decoder.decode(signal, encoding, compression, body).await?;
        self.ingest.accept(export)?;
        Ok((encoding, rejected))
    }

    fn reject(&self, headers: &HeaderMap, rejection: &Rejection) -> Response {
        self.ingest.count_rejected();
        Encoding::of(headers)
            .unwrap_or(Encoding::Json)
            .rejection(rejection)
    }
}
