//! OTLP over HTTP: `POST /v1/traces`, `/v1/metrics` and `/v1/logs`, in protobuf or JSON, gzip or not. No header allows
//! another site's page anything.

use std::sync::Arc;

use axum::{Router, body::Body, extract::Request, http::HeaderMap, response::Response, routing::post};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    body::{self, Compression},
    encoding::Encoding,
    ids::{self, RejectedSpans},
    refusal::Refusal,
};
use crate::{
    export::{Export, Signal},
    ingest::{Ingest, Refused},
};

/// What all requests together may bring at a time, in bytes of their bodies as they come; more wait.
const MAX_BODIES: u32 = 64 << 20;

/// Bodies up to this length, in bytes, are decoded at once, in less than a millisecond; others, and compressed ones,
/// whose length says little, leave the asynchronous threads to other requests.
const SMALL_BODY: usize = 32 << 10;

/// How many bodies that are not small are decompressed and decoded at a time: each may take many times its length in
/// memory until it is found to be too large.
const MAX_DECODING: usize = 2;

/// The receiver's addresses.
pub(crate) fn router(ingest: Ingest) -> Router {
    let receiver = Receiver {
        ingest,
        room: Arc::new(Semaphore::new(MAX_BODIES as usize)),
        decoding: Arc::new(Semaphore::new(MAX_DECODING)),
    };
    let route = |signal| {
        let receiver = receiver.clone();
        let wrong_method = receiver.clone();
        post(move |request| async move { receiver.answer(signal, request).await })
            .fallback(move |headers| async move { wrong_method.refuse(&headers, &Refusal::NotPost) })
    };
    let elsewhere = receiver.clone();
    Router::new()
        .route("/v1/traces", route(Signal::Traces))
        .route("/v1/metrics", route(Signal::Metrics))
        .route("/v1/logs", route(Signal::Logs))
        .fallback(move |headers| async move { elsewhere.refuse(&headers, &Refusal::UnknownAddress) })
}

#[derive(Clone, Debug)]
struct Receiver {
    ingest: Ingest,
    room: Arc<Semaphore>,
    decoding: Arc<Semaphore>,
}

impl Receiver {
    async fn answer(&self, signal: Signal, request: Request) -> Response {
        let (head, body) = request.into_parts();
        match self.receive(signal, &head.headers, body).await {
            Ok((encoding, rejected)) => encoding.success(rejected),
            Err(refusal) => self.refuse(&head.headers, &refusal),
        }
    }

    async fn receive(
        &self,
        signal: Signal,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<(Encoding, Option<RejectedSpans>), Refusal> {
        let encoding = Encoding::of(headers).ok_or(Refusal::UnsupportedType)?;
        let compression = Compression::of(headers)?;
        let length = body::announced_length(&body)?;
        let _room = tokio::time::timeout(super::READ_TIMEOUT, self.room.acquire_many(length))
            .await
            .map_err(|_| Refused::Overloaded)?
            .map_err(|_| Refused::Closed)?;
        let body = body::read(body).await?;
        let (export, rejected) = self.decode(signal, encoding, compression, body).await?;
        self.ingest.accept(export)?;
        Ok((encoding, rejected))
    }

    async fn decode(
        &self,
        signal: Signal,
        encoding: Encoding,
        compression: Compression,
        body: Bytes,
    ) -> Result<(Export, Option<RejectedSpans>), Refusal> {
        let is_small = compression == Compression::Identity && body.len() <= SMALL_BODY;
        let decode = move || {
            let plain = body::decompress(body, compression)?;
            let mut export = encoding.decode(signal, &plain)?;
            let rejected = ids::check(&mut export);
            Ok((export, rejected))
        };
        if is_small {
            return decode();
        }
        let turn = self.turn().await?;
        let decode = move || {
            // Not given up when the sender goes away, because the work goes on.
            let _turn = turn;
            decode()
        };
        tokio::task::spawn_blocking(decode)
            .await
            .unwrap_or(Err(Refusal::Broken))
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, Refused> {
        let decoding = self.decoding.clone();
        decoding.acquire_owned().await.map_err(|_| Refused::Closed)
    }

    fn refuse(&self, headers: &HeaderMap, refusal: &Refusal) -> Response {
        self.ingest.count_refused();
        Encoding::of(headers).unwrap_or(Encoding::Json).refusal(refusal)
    }
}
