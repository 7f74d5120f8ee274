//! Answers requests for JSON. Answers are computed on the blocking thread pool, a few at a time, and not at
//! all if the client has the current one.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::Serialize;

use super::{
    page::{Explorer, Page, Shared},
    parameters::Parameters,
    refusal::Refusal,
};
use crate::store::now;

/// Maximum time for which a request waits for its computation to start.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(10);

/// Interval in nanoseconds after which the entity tag of a time-dependent answer changes.
const CLOCK_RESOLUTION: u64 = 2_000_000_000;

/// Answer with the store's generation.
#[derive(Serialize)]
struct Answer<T> {
    generation: u64,
    #[serde(flatten)]
    content: T,
}

/// Whether the client is a browser that loads a page.
pub(super) fn is_for_browsers(headers: &HeaderMap) -> bool {
    let accepted = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    accepted
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next())
        .any(|range| range.trim().eq_ignore_ascii_case("text/html"))
}

/// Serializes `content` with the store's generation.
pub(super) fn json(generation: u64, content: impl Serialize) -> Result<Vec<u8>, Refusal> {
    serde_json::to_vec(&Answer { generation, content }).map_err(|_| Refusal::Failed)
}

/// Returns the JSON of `page`, or 304 if the client has it.
pub(super) async fn answer(
    shared: Arc<Shared>,
    page: &'static Page,
    parameters: Parameters,
    headers: &HeaderMap,
) -> Response {
    let is_time_dependent = page.is_time_dependent || parameters.is_time_dependent();
    let tag = tag(&shared.explorer, is_time_dependent);
    if has_current(headers, &tag) {
        return respond(StatusCode::NOT_MODIFIED, &tag, Body::empty());
    }
    let permit = tokio::time::timeout(QUEUE_TIMEOUT, shared.permits.acquire()).await;
    let Ok(Ok(_permit)) = permit else {
        return Refusal::Busy.into_response();
    };
    let explorer = shared.clone();
    let answered = tokio::task::spawn_blocking(move || (page.compute)(&explorer.explorer, &parameters)).await;
    match answered {
        Ok(Ok(json)) => respond(StatusCode::OK, &tag, json.into()),
        Ok(Err(refusal)) => refusal.into_response(),
        Err(_) => Refusal::Failed.into_response(),
    }
}

/// Returns the entity tag: it depends on the start of the process, the generation and, for time-dependent
/// answers, the time.
fn tag(explorer: &Explorer, is_time_dependent: bool) -> String {
    let store = &explorer.store;
    let clock = if is_time_dependent {
        now() / CLOCK_RESOLUTION
    } else {
        0
    };
    format!("\"{:x}-{:x}-{clock:x}\"", store.started(), store.generation())
}

/// Whether `If-None-Match` contains `tag` (weak comparison, RFC 9110, section 13.1.2).
pub(super) fn has_current(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get_all(header::IF_NONE_MATCH).iter();
    known
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim))
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

fn respond(status: StatusCode, tag: &str, body: Body) -> Response {
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}
