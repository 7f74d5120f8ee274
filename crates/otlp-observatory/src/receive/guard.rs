//! Middleware for the receivers. It rejects requests that are not HTTP, for other hosts, or from pages of other sites,
//! and answers the preflight requests of browsers ("CORS protocol" in the Fetch standard).

use axum::{
    extract::{self, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use bounded_server::InvalidRequest;

use super::{reject::reject, rejection::Rejection};
use crate::{access::Access, ingest::Ingest};

/// Time for which browsers may store the answer to a preflight request, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Request header of browsers that let public sites reach private addresses only with permission.
const REQUEST_PRIVATE_NETWORK: &str = "access-control-request-private-network";

/// Response header that gives this permission.
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");

#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) ingest: Ingest,
    pub(super) access: Access,
}

/// Rejects requests that are not allowed, and adds CORS headers for allowed origins.
pub(super) async fn guard(
    extract::State(State { ingest, access }): extract::State<State>,
    request: Request,
    next: Next,
) -> Response {
    if let Err(rejection) = check(&access, &request) {
        return reject(&ingest, &request, rejection);
    }
    let Some(origin) = request.headers().get(header::ORIGIN).cloned() else {
        return next.run(request).await;
    };
    let mut response = if is_preflight(&request) {
        preflight(request.headers())
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("retry-after"),
    );
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    response
}

fn check(access: &Access, request: &Request) -> Result<(), Rejection> {
    let headers = request.headers();
    if let Some(invalid) = request.extensions().get::<InvalidRequest>() {
        return Err(Rejection::NotHttp(*invalid));
    }
    if !access.allows_host(request.uri(), headers) {
        let host = request
            .uri()
            .authority()
            .map(|authority| authority.as_str().to_owned());
        let host = host.unwrap_or_else(|| text(headers.get(header::HOST)));
        return Err(Rejection::Host { host });
    }
    match headers.get(header::ORIGIN) {
        Some(origin) if !origin.to_str().is_ok_and(|origin| access.allows_origin(origin)) => {
            Err(Rejection::Origin {
                origin: text(Some(origin)),
            })
        }
        _ => Ok(()),
    }
}

/// Returns the beginning of a header, for a message.
fn text(value: Option<&HeaderValue>) -> String {
    let bytes = value.map_or(&b"(none)"[..], HeaderValue::as_bytes);
    String::from_utf8_lossy(bytes).chars().take(100).collect()
}

fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Returns the answer to a preflight request of an allowed origin.
fn preflight(request: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("POST"),
    );
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    // Senders may add headers of their own, such as credentials for a proxy.
    if let Some(requested) = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, requested.clone());
    }
    if request
        .get(REQUEST_PRIVATE_NETWORK)
        .is_some_and(|value| value == "true")
    {
        headers.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
    }
    response
}
