//! The HTTP API: handlers parse requests, call [`crate::accounts`] and [`crate::articles`], and build
//! responses.
//!
//! Each route is registered together with its description in the OpenAPI document. The layers around the
//! routes are, from the outside in: client address, telemetry, CORS, the guard, which checks request sizes and
//! turns panics and time-outs into error responses, and compression.

mod accounts;
mod app;
mod articles;
mod auth;
mod compression;
mod conditions;
mod cors;
mod docs;
mod entity_tag;
mod error;
mod forwarded;
mod health;
mod idempotency_key;
mod json;
mod limits;
mod memory;
mod middleware;
mod paging;
mod proxies;
mod rate_limit;

use std::sync::Arc;

use axum::{
    Router,
    extract::{MatchedPath, RawQuery},
    http::{HeaderValue, Method, StatusCode, header, request},
    response::{IntoResponse, Redirect, Response},
    routing::{any, get},
};
use bounded_server::PeerAddress;
use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use self::{
    app::App,
    cors::{AllowedOrigins, InvalidOrigin},
    limits::Limits,
    memory::BodyMemory,
    middleware::ApiService,
    proxies::{InvalidNetwork, TrustedProxies},
};
use self::{error::ApiError, middleware::NO_CACHE};

/// Builds the service that a server passes requests to.
#[must_use]
pub fn service(app: App) -> ApiService {
    let (limits, proxies, origins) = (app.limits, app.proxies.clone(), app.origins.clone());
    let memory = app.memory.clone();
    let (router, document) = described_routes();
    let document = bytes::Bytes::from(to_json(&document));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, NO_CACHE),
    ];
    let document = || async { (headers, document) };
    let router = router
        .route("/api/openapi.json", get(document))
        .route("/api/docs", get(docs::page))
        .route("/api/articles", any(to_trailing_slash))
        .route("/", get(|| async { Redirect::temporary("/api/docs") }))
        .fallback(|| async { ApiError::not_found() })
        .method_not_allowed_fallback(method_not_allowed)
        // axum clones the state twice per request.
        .with_state(Arc::new(app))
        .layer(axum::middleware::from_fn(compression::compress))
        .layer(axum::middleware::from_fn_with_state(
            (limits, memory),
            middleware::guard,
        ));
    let router = if origins.is_empty() {
        router
    } else {
        // The layer is outside the fallbacks and the guard, because pages must also be able to read errors.
        let origins = Arc::new(origins);
        router.layer(axum::middleware::from_fn_with_state(origins, cors::share))
    };
    let traced = telemetry::HttpLayer::new(route)
        .untraced_paths(|path| path.starts_with("/api/health"))
        .peer_address(|parts| parts.extensions.get().map(|&PeerAddress(peer)| peer));
    ApiService::new(router.layer(traced), proxies)
}

/// Returns the OpenAPI 3.1 document as JSON.
#[must_use]
pub fn openapi() -> String {
    to_json(&described_routes().1)
}

fn described_routes() -> (Router<Arc<App>>, utoipa::openapi::OpenApi) {
    let (router, mut document) = OpenApiRouter::with_openapi(docs::Description::openapi())
        .routes(routes!(health::health))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(accounts::register))
        .routes(routes!(accounts::login))
        .routes(routes!(accounts::profile, accounts::update_profile))
        .routes(routes!(accounts::logout))
        .routes(routes!(articles::list, articles::create))
        .routes(routes!(articles::get, articles::update, articles::delete))
        .routes(routes!(articles::favorite, articles::unfavorite))
        .split_for_parts();
    docs::complete(&mut document);
    (router, document)
}

fn to_json(document: &utoipa::openapi::OpenApi) -> String {
    document
        .to_pretty_json()
        .expect("an OpenAPI document always serialises")
}

fn route(request: &request::Parts) -> Option<&str> {
    request.extensions.get().map(MatchedPath::as_str)
}

async fn to_trailing_slash(RawQuery(query): RawQuery) -> Redirect {
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    Redirect::permanent(&format!("/api/articles/{query}"))
}

/// Responds with 200 to OPTIONS and with 405 to other methods; the router adds `Allow` to both.
async fn method_not_allowed(method: Method) -> Response {
    if method == Method::OPTIONS {
        StatusCode::OK.into_response()
    } else {
        ApiError::method_not_allowed().into_response()
    }
}
