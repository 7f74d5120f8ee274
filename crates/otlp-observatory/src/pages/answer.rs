//! Answers a page's request with JSON: worked out on a thread for blocking work, a few at a time, and not at
//! all while nothing new came.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::Serialize;

use super::{Explorer, Page, Refusal, Shared, parameters::Parameters};
use crate::store::now;

/// How long a request waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// What goes by the clock is worth asking again after this long, in nanoseconds.
const CLOCK_STEP: u64 = 2_000_000_000;

/// An answer with the generation it is of.
#[derive(Serialize)]
struct Answer<T> {
    generation: u64,
    #[serde(flatten)]
    content: T,
}

/// Whether the client is a browser that opens a page.
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

/// The JSON of `content`.
pub(super) fn json(generation: u64, content: impl Serialize) -> Result<Vec<u8>, Refusal> {
    serde_json::to_vec(&Answer { generation, content }).map_err(|_| Refusal::Failed)
}

/// What `page` answers to `parameters`.
pub(super) async fn answer(
    shared: Arc<Shared>,
    page: &'static Page,
    parameters: Parameters,
    headers: &HeaderMap,
) -> Response {
    let by_the_clock = page.by_the_clock || parameters.go_by_the_clock();
    let tag = tag(&shared.explorer, by_the_clock);
    let known = headers.get_all(header::IF_NONE_MATCH).iter();
    if known
        .filter_map(|value| value.to_str().ok())
        .any(|known| names(known, &tag))
    {
        return respond(StatusCode::NOT_MODIFIED, &tag, Body::empty());
    }
    let turn = tokio::time::timeout(TURN_TIMEOUT, shared.answers.acquire()).await;
    let Ok(Ok(_turn)) = turn else {
        return Refusal::Busy.into_response();
    };
    let explorer = shared.clone();
    let answered = tokio::task::spawn_blocking(move || (page.answer)(&explorer.explorer, &parameters)).await;
    match answered {
        Ok(Ok(json)) => respond(StatusCode::OK, &tag, json.into()),
        Ok(Err(refusal)) => refusal.into_response(),
        Err(_) => Refusal::Failed.into_response(),
    }
}

/// Changes with everything received, with every start of the process, and by itself for what goes by the
/// clock.
fn tag(explorer: &Explorer, by_the_clock: bool) -> String {
    let store = &explorer.store;
    let clock = if by_the_clock { now() / CLOCK_STEP } else { 0 };
    format!("\"{:x}-{:x}-{clock:x}\"", store.started(), store.generation())
}

/// Whether `If-None-Match` names `tag` (RFC 9110, section 13.1.2: compared weakly).
fn names(known: &str, tag: &str) -> bool {
    known
        .split(',')
        .map(str::trim)
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
