//! The tools over streamable HTTP. Each request stands alone, without a session, because the tools have no state.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use rmcp::transport::streamable_http_server::{
    StreamableHttpServerConfig, StreamableHttpService, session::never::NeverSessionManager,
};

use super::{server::Tools, source::Source};
use crate::access::Access;

/// Maximum size of a request, in bytes.
const MAX_REQUEST: usize = 256 << 10;

/// Returns the route `/mcp`, whose tools read `pages`. Requests that a page of another site sent are rejected; the
/// caller checks the host.
pub(crate) fn route(pages: Router, access: Access) -> Router {
    let tools = Tools::new(Source::Pages(pages));
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_max_request_body_bytes(MAX_REQUEST)
        .disable_allowed_hosts();
    let service = StreamableHttpService::new(
        move || Ok(tools.clone()),
        Arc::new(NeverSessionManager::default()),
        config,
    );
    Router::new()
        .route_service("/mcp", service)
        .layer(middleware::from_fn_with_state(access, check_origin))
}

async fn check_origin(State(access): State<Access>, request: Request, next: Next) -> Response {
    if access.is_same_site(request.headers()) {
        next.run(request).await
    } else {
        let error = "requests from pages of other sites are not allowed";
        (StatusCode::FORBIDDEN, error).into_response()
    }
}
