//! The explorer: pages for a browser, and the same as JSON for everyone else, under the same addresses. It
//! only reads the store; what is shown was sent by anyone, so it leaves as JSON text and never as markup.

mod answer;
mod assets;
mod guard;
mod json;
mod logs;
mod metrics;
mod overview;
mod parameters;
mod refusal;
mod status;
#[cfg(test)]
mod tests;
mod traces;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::{RawPathParams, RawQuery, State},
    http::HeaderMap,
    middleware,
    response::IntoResponse as _,
    routing::{MethodRouter, get},
};
use tokio::sync::Semaphore;

pub(crate) use status::SiteStatus;

use crate::store::Store;
use parameters::Parameters;
use refusal::Refusal;

/// How many answers are worked out at the same time; more wait.
const ANSWERS_AT_ONCE: usize = 2;

/// What the pages show and where they are.
pub(crate) struct Explorer {
    pub(crate) store: Arc<Store>,
    /// Where the pages are served: on loopback only, others' names for this machine are refused.
    pub(crate) pages: SocketAddr,
    /// Where telemetry is sent to.
    pub(crate) http: SocketAddr,
    pub(crate) grpc: Option<SocketAddr>,
    /// How receiving and forwarding go, when asked.
    pub(crate) status: Box<dyn Fn() -> SiteStatus + Send + Sync>,
}

/// What an address answers: parameters it takes, and the JSON for them.
struct Page {
    takes: &'static [&'static str],
    /// Whether the answer changes with time though nothing comes in.
    by_the_clock: bool,
    answer: fn(&Explorer, &Parameters) -> Result<Vec<u8>, Refusal>,
}

struct Shared {
    explorer: Explorer,
    answers: Semaphore,
}

/// All routes of the explorer.
pub(crate) fn router(explorer: Explorer) -> Router {
    let guard = guard::Guard::new(explorer.pages);
    let shared = Arc::new(Shared {
        explorer,
        answers: Semaphore::new(ANSWERS_AT_ONCE),
    });
    Router::new()
        .route("/", page(&overview::OVERVIEW))
        .route("/map", page(&overview::MAP))
        .route("/traces", page(&traces::LIST))
        .route("/traces/{trace_id}", page(&traces::ONE))
        .route("/logs", page(&logs::LIST))
        .route("/metrics", page(&metrics::LIST))
        .route("/metrics/{*name}", page(&metrics::ONE))
        .route("/status", page(&status::STATUS))
        .with_state(shared)
        .merge(assets::routes())
        .fallback(async || Refusal::NoPage)
        .method_not_allowed_fallback(async || Refusal::Method)
        .layer(middleware::from_fn_with_state(guard, guard::guard))
}

fn page(page: &'static Page) -> MethodRouter<Arc<Shared>> {
    get(
        async move |State(shared): State<Arc<Shared>>,
                    path: RawPathParams,
                    RawQuery(query): RawQuery,
                    headers: HeaderMap| {
            if answer::is_for_browsers(&headers) {
                return assets::shell();
            }
            let parameters = match Parameters::read(&path, query.as_deref(), page.takes) {
                Ok(parameters) => parameters,
                Err(refusal) => return refusal.into_response(),
            };
            answer::answer(shared, page, parameters, &headers).await
        },
    )
}
