//! Middleware for the pages. It rejects requests for hosts that are not allowed. Security headers restrict browsers to
//! resources of this server.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::error::PageError;
use crate::access::Access;

const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Headers of every response.
const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// Rejects requests for other hosts and changes by other sites, and adds [`HEADERS`] to the response.
pub(super) async fn guard(State(access): State<Access>, request: Request, next: Next) -> Response {
    let mut response = if !access.allows_host(request.uri(), request.headers()) {
        PageError::Host.into_response()
    } else if !request.method().is_safe() && is_of_other_site(request.headers()) {
        PageError::Site.into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.append(header::VARY, HeaderValue::from_static("Accept"));
    // Static files set their own `Cache-Control`.
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Whether a browser sends the request for a page of another origin: browsers add `Origin` to every POST.
fn is_of_other_site(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let is_foreign = |origin: &str| {
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        authority.is_none() || authority != text(header::HOST)
    };
    let is_cross_site = |site: &str| !matches!(site, "same-origin" | "none");
    text(header::ORIGIN).is_some_and(is_foreign)
        || text(HeaderName::from_static("sec-fetch-site")).is_some_and(is_cross_site)
}
