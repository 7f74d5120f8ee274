//! JSON responses of the pages. Their content is computed on the blocking thread pool, with limited concurrency, unless
//! the client already has it.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{RawPathParams, RawQuery, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use super::{error::PageError, explorer::Explorer, export, parameters::Parameters};
use crate::store::{UnixNano, now};

/// Maximum number of responses computed at the same time; further requests wait.
const MAX_CONCURRENT_RESPONSES: usize = 2;

/// Maximum number of exports of everything at the same time; further requests are rejected.
const MAX_CONCURRENT_EXPORTS: usize = 2;

/// Maximum time for which a request waits for its computation to start.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(10);

/// Interval in nanoseconds after which the entity tag of a time-dependent page changes.
const CLOCK_RESOLUTION: u64 = 2_000_000_000;

/// Function that computes the content of a page; it [finishes](Parameters::finish) the parameters.
pub(super) type Content<T> = fn(&Explorer, &mut Parameters) -> Result<T, PageError>;

/// State of the pages.
#[derive(Clone)]
pub(super) struct Shared {
    explorer: Arc<Explorer>,
    permits: Arc<Semaphore>,
    export_permits: Arc<Semaphore>,
}

/// Content with the store's generation, and with the time before which memory lacks kept telemetry.
#[derive(Serialize)]
struct WithGeneration<T> {
    generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_since_unix_nano: Option<UnixNano>,
    #[serde(flatten)]
    content: T,
}

impl Shared {
    pub(super) fn new(explorer: Explorer) -> Self {
        Self {
            explorer: Arc::new(explorer),
            permits: Arc::new(Semaphore::new(MAX_CONCURRENT_RESPONSES)),
            export_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_EXPORTS)),
        }
    }

    pub(super) fn explorer(&self) -> &Explorer {
        &self.explorer
    }

    /// Returns `content` as JSON, or 304 if the client has it.
    pub(super) async fn respond<T: Serialize + 'static>(
        self,
        content: Content<T>,
        is_time_dependent: bool,
        mut parameters: Parameters,
        headers: &HeaderMap,
    ) -> Result<Response, PageError> {
        let tag = tag(
            &self.explorer,
            is_time_dependent || parameters.is_time_dependent(),
        );
        let head = [(header::CONTENT_TYPE, "application/json"), (header::ETAG, &*tag)];
        if has_current(headers, &tag) {
            return Ok((StatusCode::NOT_MODIFIED, head).into_response());
        }
        let permit = timeout(QUEUE_TIMEOUT, self.permits.acquire()).await;
        let Ok(Ok(_permit)) = permit else {
            return Err(PageError::Busy);
        };
        let explorer = self.explorer;
        let computed = spawn_blocking(move || {
            let generation = explorer.store.generation();
            let content = content(&explorer, &mut parameters)?;
            let content = WithGeneration {
                generation,
                memory_since_unix_nano: explorer.memory_since(),
                content,
            };
            serde_json::to_vec(&content).map_err(|_| PageError::Failed)
        });
        let json = computed.await.unwrap_or(Err(PageError::Failed))?;
        Ok((head, json).into_response())
    }
}

/// Returns a trace or everything as a download.
pub(super) async fn export(
    State(shared): State<Shared>,
    path: RawPathParams,
    RawQuery(query): RawQuery,
) -> Result<Response, PageError> {
    let parameters = Parameters::new(&path, query.as_deref());
    let Shared {
        explorer,
        export_permits,
        ..
    } = shared;
    let respond = move || export::export(explorer, &export_permits, parameters);
    spawn_blocking(respond).await.unwrap_or(Err(PageError::Failed))
}

/// Whether the client is a browser that loads a page.
pub(super) fn is_for_browsers(headers: &HeaderMap) -> bool {
    elements(headers, header::ACCEPT).any(|range| {
        let media_type = range.split(';').next().unwrap_or_default();
        media_type.trim().eq_ignore_ascii_case("text/html")
    })
}

/// Returns the entity tag: it depends on the start of the process, the generation and, for time-dependent
/// pages, the time.
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
    elements(headers, header::IF_NONE_MATCH)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

/// Returns the elements of a header whose value is a comma-separated list.
fn elements(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).iter();
    let lists = values.filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(str::trim)
}
