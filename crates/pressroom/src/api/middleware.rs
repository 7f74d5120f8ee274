//! Middleware around all routes: request limits, responses to panics and time-outs, and the client address.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    BoxError, Router,
    body::HttpBody,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, Uri, header, uri::PathAndQuery},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bounded_server::{InvalidRequest, PeerAddress, ReservedConnection};
use bytes::Bytes;
use futures_util::FutureExt as _;
use telemetry::ClientAddress;
use tower::Service;

use super::{
    error::ApiError,
    json::BodyProgress,
    limits::Limits,
    memory::BodyMemory,
    proxies::{Clients, TrustedProxies},
    rate_limit::RequestQuota,
};

/// Maximum length of a request target, in bytes; the default of gunicorn, which the reference implementation
/// uses.
const MAX_TARGET_BYTES: usize = 4094;
/// Maximum length of a header field, in bytes; gunicorn's default too.
const MAX_FIELD_BYTES: usize = 8190;

/// Value of `Cache-Control` for responses that caches may store but must revalidate before each use.
pub(super) const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Rejects requests that are invalid or exceed a limit, turns panics and time-outs of handlers into error
/// responses, and limits the memory that responses occupy.
///
/// Caches may not store a response unless its handler says otherwise.
pub(super) async fn guard(
    State((limits, memory)): State<(Limits, BodyMemory)>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = match rejection(&limits, &request) {
        Some((error, connection)) => {
            let mut response = error.into_response();
            if let Connection::Close = connection {
                close(&mut response);
            }
            response
        }
        None => {
            memory
                .admit(handle_with_quota(&limits, request, next).await)
                .await
        }
    };
    if response.status() == StatusCode::PAYLOAD_TOO_LARGE {
        // The rest of the body is not read, so the connection cannot be reused.
        close(&mut response);
    }
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.entry(header::CACHE_CONTROL).or_insert(NO_STORE);
    headers.insert(
        header::VARY,
        HeaderValue::from_static("Authorization, Accept-Encoding"),
    );
    response
}

/// Whether the connection stays open after a rejected request.
enum Connection {
    KeepAlive,
    Close,
}

/// Returns the error for a request whose head alone is reason to reject it.
fn rejection(limits: &Limits, request: &Request) -> Option<(ApiError, Connection)> {
    if let Some(&problem) = request.extensions().get::<InvalidRequest>() {
        return Some((problem.into(), Connection::Close));
    }
    let headers = request.headers();
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limits.body as u64) {
        return Some((ApiError::body_too_large(), Connection::Close));
    }
    let target = request.uri().path_and_query();
    if target.is_some_and(|target| target.as_str().len() > MAX_TARGET_BYTES) {
        return Some((ApiError::bad_request(), Connection::KeepAlive));
    }
    let mut lengths = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    if lengths.any(|length| length > MAX_FIELD_BYTES) {
        return Some((ApiError::header_too_large(), Connection::KeepAlive));
    }
    let is_probe = request.uri().path().starts_with("/api/health");
    if request.extensions().get::<ReservedConnection>().is_some() && !is_probe {
        return Some((ApiError::service_unavailable(), Connection::Close));
    }
    None
}

fn close(response: &mut Response) {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
}

/// Like [`handle`], but adds the rate limit fields if an extractor sets a quota. Only unsafe methods have quotas.
async fn handle_with_quota(limits: &Limits, mut request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return handle(limits, request, next).await;
    }
    let quota = RequestQuota::default();
    request.extensions_mut().insert(quota.clone());
    request.extensions_mut().insert(BodyProgress::default());
    let mut response = handle(limits, request, next).await;
    quota.write_fields(response.headers_mut());
    response
}

/// Returns the handler's response, or the response to its panic or time-out.
async fn handle(limits: &Limits, request: Request, next: Next) -> Response {
    let body = request.extensions().get::<BodyProgress>().cloned();
    let handled = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(limits.request, handled).await {
        Ok(Ok(response)) => response,
        // The panic hook has logged the panic.
        Ok(Err(panic)) => {
            let message = telemetry::panic_message(panic.as_ref());
            let error = ApiError::internal_error().caused_by("panic", message);
            error.into_response()
        }
        Err(_) => {
            let limit_s = limits.request.as_secs_f64();
            // Anyone can send many half bodies, so they are not worth a warning each.
            if body.is_some_and(|body| body.is_awaited()) {
                telemetry::debug!(
                    request.time_limit = limit_s,
                    "the client did not send the request body in time"
                );
            } else {
                telemetry::warn!(request.time_limit = limit_s, "request timed out");
            }
            let message = "the request exceeded its time limit";
            let error = ApiError::request_timeout().caused_by("timeout", message);
            error.into_response()
        }
    }
}

/// The router, preceded by the steps that routing and telemetry depend on: the service normalises the request
/// target and determines the client and the URL that it used.
#[derive(Debug, Clone)]
pub struct ApiService {
    router: Router,
    clients: Arc<Clients>,
}

impl ApiService {
    pub(super) fn new(router: Router, proxies: TrustedProxies) -> Self {
        Self {
            router,
            clients: Arc::new(Clients::behind(proxies)),
        }
    }
}

impl<B> Service<Request<B>> for ApiService
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = <Router as Service<Request<B>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<Request<B>>::poll_ready(&mut self.router, cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if let Some(uri) = collapse_leading_slashes(request.uri()) {
            *request.uri_mut() = uri;
        }
        if let Some(&PeerAddress(peer)) = request.extensions().get() {
            let (client, url) = self.clients.describe(peer, request.headers());
            let extensions = request.extensions_mut();
            extensions.insert(ClientAddress(client));
            url.and_then(|url| extensions.insert(url));
        }
        self.router.call(request)
    }
}

/// Collapses leading slashes into one, as gunicorn does; `None` if there is nothing to change.
fn collapse_leading_slashes(uri: &Uri) -> Option<Uri> {
    let target = uri.path_and_query()?.as_str();
    if !target.starts_with("//") {
        return None;
    }
    let target = format!("/{}", target.trim_start_matches('/'));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::{
        body::{Body, to_bytes},
        routing::get,
    };
    use tower::ServiceExt as _;

    use super::*;

    async fn guarded_response(router: Router) -> (StatusCode, serde_json::Value) {
        let limits = Limits {
            body: 1024,
            request: Duration::from_millis(50),
        };
        let state = (limits, BodyMemory::default());
        let guarded = router.layer(axum::middleware::from_fn_with_state(state, guard));
        let response = guarded.oneshot(Request::new(Body::empty())).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 16).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn the_response_to_a_panic_is_an_error_without_the_panic_message() {
        async fn handler() {
            panic!("the secret is hunter2");
        }
        let (status, body) = guarded_response(Router::new().route("/", get(handler))).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(body["error"]["code"], "internal_error");
        assert!(!body.to_string().contains("hunter2"));
    }

    #[tokio::test]
    async fn the_response_to_a_request_that_times_out_is_an_error() {
        let router = Router::new().route("/", get(std::future::pending::<()>));
        let (status, body) = guarded_response(router).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body["error"]["code"], "request_timeout");
    }

    #[test]
    fn several_leading_slashes_are_collapsed() {
        let collapsed =
            |target: &str| collapse_leading_slashes(&target.parse().unwrap()).map(|uri| uri.to_string());
        assert_eq!(
            collapsed("//api/health?x=//y").as_deref(),
            Some("/api/health?x=//y")
        );
        assert_eq!(collapsed("/api//health"), None);
    }
}
