//! The server side of HTTP as a tower layer: one server span a request, the request metrics, and the trace id given back
//! in `traceresponse`. Follows the stable HTTP conventions (OpenTelemetry semantic conventions 1.4x) and, beside them,
//! `http_requests_total` and `http_request_duration_seconds`.

mod attributes;
mod measures;
mod series;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use ::http::request::Parts;
use ::http::{HeaderName, HeaderValue, Request, Response};
use opentelemetry::trace::{FutureExt, SpanBuilder, SpanKind, Status, TraceContextExt, WithContext};
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_http::HeaderExtractor;
use tower_layer::Layer;
use tower_service::Service;

use crate::context;
use crate::failure::{self, Fault};
use measures::{CANCELLED, Measured};

static TRACERESPONSE: HeaderName = HeaderName::from_static("traceresponse");

/// The address of the client, put into the request's extensions by whoever accepted the connection (and knows which
/// proxies to trust).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClientAddress(pub std::net::SocketAddr);

/// Gives every request a server span, metrics and a `traceresponse` header. Put it outside of whatever answers requests
/// by itself (time-outs, limits), so that those answers are recorded too.
///
/// A 5xx response carries its cause in a [`Fault`] extension.
///
/// ```
/// use axum::extract::MatchedPath;
/// use telemetry::HttpLayer;
///
/// let layer = HttpLayer::new(|parts| {
///     let matched = parts.extensions.get::<MatchedPath>()?;
///     Some(matched.as_str().to_owned())
/// })
/// .quiet(|path| path == "/health");
/// let router: axum::Router = axum::Router::new().layer(layer);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct HttpLayer {
    route: fn(&Parts) -> Option<String>,
    quiet: fn(&str) -> bool,
}

impl HttpLayer {
    /// `route` gives the route's template, `None` on an unknown route; it is called before the inner service.
    pub fn new(route: fn(&Parts) -> Option<String>) -> Self {
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
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, task: &mut std::task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (parts, body) = request.into_parts();
        let route = (self.layer.route)(&parts).map(Arc::<str>::from);
        let parent = global::get_text_map_propagator(|propagator| {
            propagator.extract_with_context(&Context::current(), &HeaderExtractor(&parts.headers))
        });
        let cx = if (self.layer.quiet)(parts.uri.path()) {
            context::untraced(&parent)
        } else {
            start(&parts, route.as_ref(), &parent)
        };
        let measured = Measured::start(&parts, route, cx.span().span_context());
        let inner = {
            // Attached for this synchronous call only, and gone before anything is awaited.
            let _attached = cx.clone().attach();
            self.inner.call(Request::from_parts(parts, body))
        };
        ResponseFuture {
            inner: Box::pin(inner.with_context(cx.clone())),
            cx,
            measured,
        }
    }
}

/// The future of [`HttpService`]. Dropping it before it is done (the client went away, an outer time-out struck) ends
/// the span and the measurements like an answer would.
#[derive(Debug)]
pub struct ResponseFuture<F> {
    inner: Pin<Box<WithContext<F>>>,
    cx: Context,
    measured: Measured,
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, task: &mut std::task::Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let mut result = ready!(this.inner.as_mut().poll(task));
        match &mut result {
            Ok(response) => this.answered(response),
            Err(_) => {
                failure::record(&this.cx, "service_error".into(), "no response".to_owned());
                this.measured.failed("service_error".into());
            }
        }
        this.cx.span().end();
        Poll::Ready(result)
    }
}

impl<F> Drop for ResponseFuture<F> {
    fn drop(&mut self) {
        if self.measured.is_over() {
            return;
        }
        let span = self.cx.span();
        // A client that goes away is no failure of the service; a panic is.
        if std::thread::panicking() {
            failure::record(&self.cx, "panic".into(), "the request panicked".to_owned());
            self.measured.failed("panic".into());
        } else {
            span.set_attribute(KeyValue::new("error.type", CANCELLED));
        }
        // A task that was spawned from the request may hold its context; the request ends now.
        span.end();
    }
}

impl<F> ResponseFuture<F> {
    fn answered<R>(&mut self, response: &mut Response<R>) {
        let status = response.status();
        let span = self.cx.span();
        span.set_attribute(KeyValue::new(
            "http.response.status_code",
            i64::from(status.as_u16()),
        ));
        if status.is_server_error() {
            match response.extensions().get::<Fault>() {
                Some(fault) => {
                    failure::record(&self.cx, fault.error_type.clone(), fault.message.clone());
                }
                None => {
                    span.set_attribute(KeyValue::new("error.type", status.as_str().to_owned()));
                    // The code says it all; a description is for causes.
                    span.set_status(Status::error(""));
                }
            }
        }
        self.measured.answered(status, response.extensions().get());
        if let Some(value) = traceresponse(&self.cx) {
            response.headers_mut().insert(TRACERESPONSE.clone(), value);
        }
    }
}

/// Starts the server span. Without tracing there is still a trace id.
fn start(parts: &Parts, route: Option<&Arc<str>>, parent: &Context) -> Context {
    let method = attributes::method(&parts.method);
    let name = match (route, method) {
        (Some(route), attributes::OTHER_METHOD) => format!("HTTP {route}").into(),
        (Some(route), method) => format!("{method} {route}").into(),
        (None, attributes::OTHER_METHOD) => "HTTP".into(),
        (None, method) => std::borrow::Cow::Borrowed(method),
    };
    let builder = SpanBuilder::from_name(name)
        .with_kind(SpanKind::Server)
        .with_attributes(attributes::of_request(parts, route));
    let cx = context::start(builder, parent);
    if cx.span().span_context().is_valid() {
        context::with_server_span(&cx)
    } else {
        context::untraced(parent)
    }
}

/// `00-<trace id>-<span id>-<flags>`, the draft W3C response header.
fn traceresponse(cx: &Context) -> Option<HeaderValue> {
    let span = cx.span();
    let span_context = span.span_context();
    let value = format!(
        "00-{}-{}-{:02x}",
        span_context.trace_id(),
        span_context.span_id(),
        span_context.trace_flags()
    );
    span_context
        .is_valid()
        .then(|| HeaderValue::from_str(&value).ok())
        .flatten()
}
