//! OTLP/HTTP: `POST /v1/traces`, `/v1/metrics` and `/v1/logs`, in protobuf or JSON, optionally compressed
//! with gzip.

use axum::{Router, body::Body, extract::Request, http::HeaderMap, response::Response, routing::post};

use super::{
    Receiver, body::Compression, encoding::Encoding, limits::MAX_HTTP_BODY, refused::Refused,
    rejection::Rejection,
};
use crate::{
    export::Signal,
    ingest::{Ingest, MAX_WAIT},
};

/// Returns the routes of the receiver.
pub(super) fn router(receiver: &Receiver) -> Router {
    let route = |signal| {
        let receiver = receiver.clone();
        let wrong_method = receiver.clone();
        post(move |request| async move { respond(&receiver, signal, request).await }).fallback(
            move |headers| async move { reject(&wrong_method.ingest, &headers, &Rejection::NotPost) },
        )
    };
    Router::new()
        .route("/v1/traces", route(Signal::Traces))
        .route("/v1/metrics", route(Signal::Metrics))
        .route("/v1/logs", route(Signal::Logs))
}

async fn respond(receiver: &Receiver, signal: Signal, request: Request) -> Response {
    let (head, body) = request.into_parts();
    match receive(receiver, signal, &head.headers, body).await {
        Ok((encoding, refused)) => encoding.success(signal, &refused),
        Err(rejection) => reject(&receiver.ingest, &head.headers, &rejection),
    }
}

async fn receive(
    receiver: &Receiver,
    signal: Signal,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Encoding, Refused), Rejection> {
    let encoding = Encoding::of(headers).ok_or(Rejection::UnsupportedType)?;
    let compression = Compression::of(headers)?;
    let mut held = receiver.memory.read(body, MAX_HTTP_BODY).await?;
    let bytes = std::mem::take(&mut held.bytes);
    let submitted = receiver
        .submit(signal, encoding, compression, bytes, MAX_WAIT)
        .await?;
    Ok((encoding, submitted.refused))
}

/// Counts a rejected request, and returns the response in the encoding of the request.
pub(super) fn reject(ingest: &Ingest, headers: &HeaderMap, rejection: &Rejection) -> Response {
    ingest.count_rejected(&rejection.to_string());
    Encoding::of(headers)
        .unwrap_or(Encoding::Json)
        .rejection(rejection)
}
