//! The tools over streamable HTTP. Each request stands alone, without a session, because the tools have no state.

use std::sync::Arc;

use axum::Router;
use rmcp::transport::streamable_http_server::{
    StreamableHttpServerConfig, StreamableHttpService, session::never::NeverSessionManager,
};

use super::{server::Tools, source::Source};

/// Maximum size of a request, in bytes.
const MAX_REQUEST: usize = 256 << 10;

/// Returns the route `/mcp`, whose tools read `pages`. The caller checks host and origin of requests.
pub(crate) fn route(pages: Router) -> Router {
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
    Router::new().route_service("/mcp", service)
}
