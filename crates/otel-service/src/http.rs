//! The server side of HTTP as a tower layer: one server span a request, the request metrics, and the trace id given back
//! in `traceresponse`. Follows the stable HTTP conventions (OpenTelemetry semantic conventions 1.4x) and, beside them,
//! `http_requests_total` and `http_request_duration_seconds`. A request lasts until its answer is sent to the end.

mod attributes;
mod body;
mod exchange;
mod measures;
mod route;
mod series;

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::task::{Poll, ready};

use ::http::request::Parts;
use ::http::{Request, Response};
use http_body::Body;
use opentelemetry::{Context, global};
use opentelemetry_http::HeaderExtractor;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

pub use body::ResponseBody;
use exchange::Exchange;
use route::Route;

/// The address of the client, put into the request's extensions by whoever accepted the connection (and knows which
/// proxies to trust).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClientAddress(pub std::net::SocketAddr);

/// Gives every request a server span, metrics and a `traceresponse` header. Put it outside of whatever answers requests
/// by itself (time-outs, limits), so that those answers are recorded too.
///
/// A request ends when its answer has been sent to the end, has failed on the way, or is given up: whichever it is, its
/// span ends once, its duration is recorded once, and `http.server.active_requests` goes back down. A client that went
/// away leaves `error.type` `cancelled` and no error status. A 5xx response carries its cause in a
/// [`Fault`](crate::Fault) extension.
///
/// ```
/// use axum::extract::MatchedPath;
/// use otel_service::HttpLayer;
///
/// let layer = HttpLayer::new(|parts| parts.extensions.get().map(MatchedPath::as_str))
///     .quiet(|path| path == "/health");
/// let router: axum::Router = axum::Router::new().layer(layer);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct HttpLayer {
    route: fn(&Parts) -> Option<&str>,
    quiet: fn(&str) -> bool,
}

impl HttpLayer {
    /// `route` gives the route's template, `None` on an unknown route; it is called before the inner service.
    pub fn new(route: fn(&Parts) -> Option<&str>) -> Self {
        Self {
            route,
            quiet: |_| false,
        }
    }

    /// Paths that make no spans (health endpoints). They are still counted, and have a trace id for their errors.
    pub fn quiet(self, paths: fn(&str) -> bool) -> Self {
        Self { quiet: paths, ..self }
    }
}

impl<S> Layer<S> for HttpLayer {
    type Service = HttpService<S>;

    fn layer(&self, inner: S) -> HttpService<S> {
        HttpService { inner, layer: *self }
    }
}

/// The service that [`HttpLayer`] makes.
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
        let (parts, body) = request.into_parts();
        let route = (self.layer.route)(&parts).map(Route::of);
        let quiet = (self.layer.quiet)(parts.uri.path());
        let parent = global::get_text_map_propagator(|propagator| {
            propagator.extract_with_context(&Context::current(), &HeaderExtractor(&parts.headers))
        });
        let mut exchange = Exchange::start(&parts, route, &parent, quiet);
        let inner = exchange.during(|| self.inner.call(Request::from_parts(parts, body)));
        ResponseFuture {
            inner,
            exchange: Some(exchange),
        }
    }
}

pin_project! {
    /// The future of [`HttpService`]. Dropping it before it is done (the client went away, an outer time-out struck) ends
    /// the span and the measurements like an answer would.
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        // Until it goes to the body of the answer.
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
        let this = self.project();
        let exchange = this
            .exchange
            .as_mut()
            .expect("a future is not polled again once it is done");
        let result = ready!(exchange.during(|| this.inner.poll(task)));
        let exchange = this.exchange.take();
        Poll::Ready(match result {
            Ok(response) => Ok(ResponseBody::wrap(response, exchange)),
            Err(error) => {
                if let Some(mut exchange) = exchange {
                    exchange.failed("service_error", error.to_string());
                }
                Err(error)
            }
        })
    }
}
