//! Web pages, and the same data as JSON at the same addresses. The pages only read the store. Telemetry comes
//! from untrusted senders, so it is sent to browsers as JSON and never as markup.

mod answer;
mod assets;
mod guard;
mod json;
mod logs;
mod metrics;
mod overview;
mod page;
mod parameters;
mod refusal;
mod status;
#[cfg(test)]
mod tests;
mod traces;

use std::sync::Arc;

use axum::{
    Router,
    extract::{RawPathParams, RawQuery, State},
    http::HeaderMap,
    middleware,
    response::IntoResponse as _,
    routing::{MethodRouter, get},
};
use tokio::sync::Semaphore;

pub(crate) use self::page::Explorer;
use self::{
    page::{Page, Shared},
    parameters::Parameters,
    refusal::Refusal,
};

/// Maximum number of answers computed at the same time; further requests wait.
const MAX_CONCURRENT_ANSWERS: usize = 2;

/// Returns the routes of the pages.
pub(crate) fn router(explorer: Explorer) -> Router {
    let loopback_only = explorer.pages.ip().is_loopback();
    let shared = Arc::new(Shared {
        explorer,
        permits: Semaphore::new(MAX_CONCURRENT_ANSWERS),
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
        .layer(middleware::from_fn_with_state(loopback_only, guard::guard))
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
            let parameters = match Parameters::read(&path, query.as_deref(), page.parameters) {
                Ok(parameters) => parameters,
                Err(refusal) => return refusal.into_response(),
            };
            answer::answer(shared, page, parameters, &headers).await
        },
    )
}
