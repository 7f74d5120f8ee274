//! A tower layer for HTTP servers: a server span and metrics for each request, and the trace id in the
//! `traceresponse` header of its response. Follows the stable HTTP conventions (OpenTelemetry semantic
//! conventions 1.44) and also records `http_requests_total` and `http_request_duration_seconds`. A request
//! ends when its response body ends.

mod attributes;
mod body;
mod client;
mod exchange;
mod measures;
mod routes;
mod series;

use std::fmt::Display;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use ::http::request::Parts;
use ::http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::http_settings::settings;
use crate::propagation::Propagation;
pub(crate) use attributes::version;
pub use body::ResponseBody;
pub use client::{ClientAddress, ClientUrl};
use exchange::Exchange;

/// A [`Layer`] that gives every request a server span, metrics and a `traceresponse` header.
///
/// Place it outside of layers that respond on their own (time-outs, limits), to record their responses too.
///
/// A request ends when its response has been sent completely, fails, or is dropped. In each case its span
/// ends once, its duration is recorded once, and `http.server.active_requests` is decremented. When the
/// client disconnects early, the span has the `error.type` `cancelled` and no error status. A 5xx response
/// carries its cause in a [`ServerError`](crate::ServerError) extension.
///
/// Behind a proxy, the server adds a [`ClientAddress`] and a [`ClientUrl`] to the request.
/// `OTEL_INSTRUMENTATION_HTTP_*` selects known methods, recorded headers and paths without spans.
///
/// ```
/// use axum::extract::MatchedPath;
/// use otel_service::HttpLayer;
///
/// let layer = HttpLayer::new(|parts| parts.extensions.get().map(MatchedPath::as_str))
///     .untraced_paths(|path| path == "/health");
/// let router: axum::Router = axum::Router::new().layer(layer);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct HttpLayer {
    route: fn(&Parts) -> Option<&str>,
    is_untraced: fn(&str) -> bool,
    propagation: Propagation,
    has_context_spans: bool,
    peer_address: Option<fn(&Parts) -> Option<SocketAddr>>,
}

impl HttpLayer {
    /// Creates a layer that obtains the template of a request's route from `route`.
    ///
    /// `route` is called before the inner service and returns `None` when no route matches.
    pub fn new(route: fn(&Parts) -> Option<&str>) -> Self {
        Self {
            route,
            is_untraced: |_| false,
            propagation: Propagation::TRACE_CONTEXT,
            has_context_spans: false,
            peer_address: None,
        }
    }

    /// Sets a predicate for paths whose requests have no span, such as health endpoints.
    ///
    /// These requests are still counted, and have a trace id for the logs of their errors.
    pub fn untraced_paths(mut self, is_untraced: fn(&str) -> bool) -> Self {
        self.is_untraced = is_untraced;
        self
    }

    /// Runs each request in a [`context_span`](crate::context_span), so that libraries that pass
    /// `tracing::Span::current()` to their threads and tasks, such as sqlx for SQLite, stay in the trace.
    pub fn context_spans(mut self) -> Self {
        self.has_context_spans = true;
        self
    }

    /// Obtains the address of the other end of the connection from `address`, as `network.peer.address` and
    /// `network.peer.port`. It is also the `client.address` of requests without a [`ClientAddress`].
    ///
    /// With axum, add the feature `tokio` and serve `router.into_make_service_with_connect_info::<SocketAddr>()`:
    ///
    /// ```
    /// use std::net::SocketAddr;
    /// use axum::extract::{ConnectInfo, MatchedPath};
    /// use otel_service::HttpLayer;
    ///
    /// let layer = HttpLayer::new(|parts| parts.extensions.get().map(MatchedPath::as_str))
    ///     .peer_address(|parts| parts.extensions.get().map(|ConnectInfo(address)| *address));
    /// ```
    pub fn peer_address(mut self, address: fn(&Parts) -> Option<SocketAddr>) -> Self {
        self.peer_address = Some(address);
        self
    }

    /// Sets the parts of the context that are accepted from callers: by default, the trace context, but no baggage.
    pub fn propagation(mut self, propagation: Propagation) -> Self {
        self.propagation = propagation;
        self
    }
}

impl<S> Layer<S> for HttpLayer {
    type Service = HttpService<S>;

    fn layer(&self, inner: S) -> HttpService<S> {
        HttpService { inner, layer: *self }
    }
}

/// The service that [`HttpLayer`] produces.
#[derive(Clone, Debug)]
pub struct HttpService<S> {
    inner: S,
    layer: HttpLayer,
}

impl<S, B, R> Service<Request<B>> for HttpService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Display,
    R: Body,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, task: &mut std::task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let peer = self.layer.peer_address.and_then(|address| address(&parts));
        if let Some(peer) = peer
            && parts.extensions.get::<ClientAddress>().is_none()
        {
            parts.extensions.insert(ClientAddress(peer));
        }
        let template = (self.layer.route)(&parts);
        let known = template.and_then(routes::route);
        let route = template.map(|template| match known {
            Some(known) => known.template.clone(),
            None => Arc::<str>::from(template).into(),
        });
        let path = parts.uri.path();
        let is_untraced = (self.layer.is_untraced)(path) || settings().excludes(path);
        let parent = self.layer.propagation.extract(&parts.headers);
        let mut exchange = Exchange::start(&parts, peer, route, known, &parent, is_untraced);
        if self.layer.has_context_spans {
            exchange.carry_context();
        }
        let inner = exchange.during(|| self.inner.call(Request::from_parts(parts, body)));
        ResponseFuture {
            inner,
            exchange: Some(exchange),
        }
    }
}

pin_project! {
    /// The response future of [`HttpService`].
    ///
    /// Dropping it early (the client disconnected, an outer time-out expired) ends the span and records the
    /// metrics.
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        // `None` once moved into the response body.
        exchange: Option<Exchange>,
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
    E: Display,
{
    type Output = Result<Response<ResponseBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, task: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        const POLLED_AGAIN: &str = "a completed future is not polled again";
        let this = self.project();
        let exchange = this.exchange.as_mut().expect(POLLED_AGAIN);
        let result = ready!(exchange.during(|| this.inner.poll(task)));
        let mut exchange = this.exchange.take().expect(POLLED_AGAIN);
        Poll::Ready(match result {
            Ok(response) => Ok(ResponseBody::wrap(response, exchange)),
            Err(error) => {
                exchange.failed("service_error", error.to_string());
                Err(error)
            }
        })
    }
}
