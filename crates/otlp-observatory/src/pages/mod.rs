//! Web pages, and the same data as JSON at the same addresses. The pages only read the store, except for `POST /clear`; the
//! receivers add `POST /import`. Telemetry comes from untrusted senders, so it is sent to browsers as JSON and never as
//! markup.

mod assets;
mod attribute_names;
mod back_links;
mod compare;
mod completions;
mod error;
mod explorer;
mod export;
mod guard;
mod json;
mod logs;
mod metrics;
mod overview;
mod parameters;
mod problems;
mod response;
mod status;
#[cfg(test)]
mod tests;
mod traces;

use axum::{
    Router,
    extract::{RawPathParams, RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use serde::Serialize;

pub(crate) use self::explorer::Explorer;
use self::{
    error::PageError,
    parameters::Parameters,
    response::{Content, Shared},
};
use crate::access::Access;

/// Adds static files and checks of the request to `routes`.
pub(crate) fn router(routes: Router, access: Access) -> Router {
    routes
        .merge(assets::routes())
        .fallback(no_page)
        .method_not_allowed_fallback(async || PageError::Method)
        .layer(middleware::from_fn_with_state(access, guard::guard))
}

/// Returns the routes of the pages.
pub(crate) fn routes(explorer: Explorer) -> Router {
    Router::new()
        .route("/", time_dependent_page(overview::overview))
        .route("/map", time_dependent_page(overview::map))
        .route("/traces", page(traces::list))
        .route("/traces/{trace_id}", page(traces::trace))
        .route("/traces/{trace_id}/links", page(back_links::list))
        .route("/logs", page(logs::list))
        .route("/compare", time_dependent_page(compare::compare))
        .route("/attribute-names", page(attribute_names::list))
        .route("/completions", page(completions::completions))
        .route("/metrics", page(metrics::list))
        .route("/metrics/{*name}", page(metrics::instrument))
        .route("/problems", time_dependent_page(problems::problems))
        .route("/status", time_dependent_page(status::status))
        .route("/export", get(response::export))
        .route("/clear", post(clear))
        .with_state(Shared::new(explorer))
}

/// Returns the response for an unknown address: browsers get a page that leads back.
async fn no_page(headers: HeaderMap) -> Response {
    if response::is_for_browsers(&headers) {
        (StatusCode::NOT_FOUND, assets::shell()).into_response()
    } else {
        PageError::NoPage.into_response()
    }
}

/// Removes all telemetry and returns the numbers of removed items. The guard rejects requests of other sites.
async fn clear(State(shared): State<Shared>) -> impl IntoResponse {
    let explorer = shared.explorer();
    let cleared = explorer.store.clear();
    if let Some(archive) = &explorer.archive {
        archive.clear();
    }
    let json = serde_json::json!({ "cleared": cleared }).to_string();
    ([(header::CONTENT_TYPE, "application/json")], json)
}

/// Returns a page that changes only when telemetry arrives, unless its parameters depend on the time.
fn page<T: Serialize + 'static>(content: Content<T>) -> MethodRouter<Shared> {
    page_with(content, false)
}

fn time_dependent_page<T: Serialize + 'static>(content: Content<T>) -> MethodRouter<Shared> {
    page_with(content, true)
}

fn page_with<T: Serialize + 'static>(content: Content<T>, is_time_dependent: bool) -> MethodRouter<Shared> {
    get(
        async move |State(shared): State<Shared>,
                    path: RawPathParams,
                    RawQuery(query): RawQuery,
                    headers: HeaderMap| {
            if response::is_for_browsers(&headers) {
                return Ok(assets::shell());
            }
            let parameters = Parameters::new(&path, query.as_deref());
            shared
                .respond(content, is_time_dependent, parameters, &headers)
                .await
        },
    )
}
