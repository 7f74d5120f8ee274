//! `POST /import` on the port of the pages: OTLP/JSON of all signals, as `/export` returns it. A file of JSON lines may have
//! any size, because it is read in pieces.

use std::time::Duration;

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::post,
};
use http_body_util::BodyExt as _;
use memchr::memmem;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::{
    Receiver,
    body::Compression,
    encoding::Encoding,
    limits::{MAX_HTTP_BODY, READ_TIMEOUT},
    rejection::Rejection,
};
use crate::{
    export::{Counts, Signal},
    ingest::Rejected,
};

/// Size after which a piece ends between two documents, in bytes.
const PIECE: usize = 1 << 20;

/// Minimum rate at which a sender sends on average, in bytes per second. A slower one would hold its permit for hours.
const MIN_RATE: f64 = 10_000.0;

/// Maximum number of imports at the same time, each with a document of at most [`MAX_HTTP_BODY`]; further ones are rejected.
static PERMITS: Semaphore = Semaphore::const_new(2);

/// Maximum time for which a piece waits to be queued. Its sender is this process, so it may take longer than for others.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// Member of a document for each signal.
const MEMBERS: [(Signal, &str); 3] = [
    (Signal::Traces, "resourceSpans"),
    (Signal::Metrics, "resourceMetrics"),
    (Signal::Logs, "resourceLogs"),
];

/// Numbers of imported and refused items.
#[derive(Debug, Default)]
struct Imported {
    accepted: [u64; Signal::ALL.len()],
    refused: u64,
}

/// Returns the route.
pub(crate) fn route(receiver: &Receiver) -> Router {
    let receiver = receiver.clone();
    Router::new().route(
        "/import",
        post(async move |headers: HeaderMap, body: Body| {
            let mut imported = Imported::default();
            match import(&receiver, &headers, body, &mut imported).await {
                Ok(()) => json(
                    StatusCode::OK,
                    &serde_json::json!({ "imported": imported.counts(), "refused": imported.refused }),
                ),
                Err(rejection) => {
                    receiver.ingest.count_rejected(&rejection.to_string());
                    json(
                        rejection.http_status(),
                        &serde_json::json!({ "error": rejection.to_string(), "imported": imported.counts() }),
                    )
                }
            }
        }),
    )
}

fn json(status: StatusCode, json: &serde_json::Value) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "application/json")],
        json.to_string(),
    )
        .into_response()
}

impl Imported {
    fn counts(&self) -> Counts {
        Counts::of(|signal| self.accepted[signal as usize])
    }

    fn is_empty(&self) -> bool {
        self.refused == 0 && self.accepted.iter().all(|items| *items == 0)
    }
}

async fn import(
    receiver: &Receiver,
    headers: &HeaderMap,
    mut body: Body,
    imported: &mut Imported,
) -> Result<(), Rejection> {
    if Compression::of(headers)? != Compression::Identity {
        return Err(Rejection::UnsupportedEncoding);
    }
    let _permit = PERMITS.try_acquire().map_err(|_| Rejected::Overloaded)?;
    let mut text = Vec::new();
    // Length of the start of `text` in which no document ends.
    let mut searched = 0;
    let mut deadline = Instant::now() + READ_TIMEOUT;
    loop {
        let frame = timeout_at(deadline, body.frame()).await;
        let frame = frame.map_err(|_| Rejection::TooSlow)?;
        let Some(frame) = frame.transpose().map_err(|_| Rejection::Truncated)? else {
            submit(receiver, text.into(), imported).await?;
            return if imported.is_empty() {
                Err(Rejection::NoTelemetry)
            } else {
                Ok(())
            };
        };
        let Ok(chunk) = frame.into_data() else { continue };
        if text.len() + chunk.len() > MAX_HTTP_BODY {
            return Err(Rejection::TooLarge { limit: MAX_HTTP_BODY });
        }
        text.extend_from_slice(&chunk);
        let allowed = Duration::from_secs_f64(chunk.len() as f64 / MIN_RATE);
        deadline = (deadline + allowed).min(Instant::now() + READ_TIMEOUT);
        if text.len() <= PIECE {
            continue;
        }
        if let Some(end) = end_of_document(&text[searched..]) {
            let rest = text.split_off(searched + end);
            searched = 0;
            submit(receiver, std::mem::replace(&mut text, rest).into(), imported).await?;
            deadline = Instant::now() + READ_TIMEOUT;
        } else {
            // The four bytes of an end may arrive one by one.
            searched = text.len() - 3;
        }
    }
}

/// Returns the end of the last line after which a document begins.
fn end_of_document(text: &[u8]) -> Option<usize> {
    let ends = ["}\n{", "}\r\n{"].map(|end| memmem::rfind(text, end.as_bytes()).map(|at| at + end.len() - 1));
    ends.into_iter().flatten().max()
}

/// Queues the documents in `text`, once for each signal that they may contain.
async fn submit(receiver: &Receiver, text: Bytes, imported: &mut Imported) -> Result<(), Rejection> {
    let has = |member: &str| memmem::find(&text, member.as_bytes()).is_some();
    let mut signals: Vec<_> = MEMBERS
        .iter()
        .filter(|(_, member)| has(member))
        .map(|(signal, _)| *signal)
        .collect();
    if signals.is_empty() {
        // It has no telemetry, or is UTF-16, which the decoder converts.
        signals.extend(Signal::ALL);
    }
    for signal in signals {
        let submitted = receiver.submit(
            signal,
            Encoding::Json,
            Compression::Identity,
            text.clone(),
            MAX_WAIT,
        );
        let submitted = submitted.await?;
        imported.accepted[signal as usize] += submitted.items as u64;
        imported.refused += submitted.refused.items as u64;
    }
    Ok(())
}
