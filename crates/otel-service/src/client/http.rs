//! HTTP requests to other services, following the stable conventions for HTTP clients (OpenTelemetry semantic
//! conventions 1.44).

use std::fmt::Display;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};

use ::http::{Extensions, HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::client::legacy::connect::HttpInfo;
use opentelemetry::KeyValue;
use opentelemetry::trace::TraceContextExt;
use otlp_recorder::DurationHistogram;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::call::Call;
use super::error::describe_error;
use crate::exceptions::Operation;
use crate::http::version;
use crate::http_settings::{OTHER_METHOD, settings};
use crate::metrics::{Instruments, SECONDS};
use crate::propagation::Propagation;
use crate::query::redacted_parts;
use crate::recorder::OWN;

/// A [`Layer`] for HTTP clients: each request gets a client span, is measured in
/// `http.client.request.duration`, and carries the trace context in its headers.
///
/// A request ends when the head of its response arrives. 4xx and 5xx responses set the span status to
/// Error. The URL is recorded without credentials and without the values of secret parameters.
///
/// ```
/// use otel_service::HttpClientLayer;
/// use tower::ServiceBuilder;
/// # use tower::service_fn;
/// # let client = service_fn(|_: http::Request<String>| async {
/// #     Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
/// # });
///
/// let client = ServiceBuilder::new().layer(HttpClientLayer::new()).service(client);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpClientLayer {
    pub(super) propagation: Propagation,
    hides_path: bool,
}

impl HttpClientLayer {
    /// Creates a layer that propagates the trace context, but no baggage.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            propagation: Propagation::TRACE_CONTEXT,
            hides_path: false,
        }
    }

    /// Sets the parts of the context that are sent to the server.
    #[must_use]
    pub const fn propagation(mut self, propagation: Propagation) -> Self {
        self.propagation = propagation;
        self
    }

    /// Records URLs without path and query, for servers whose paths contain secrets, such as receivers of
    /// webhooks.
    #[must_use]
    pub const fn hide_path(mut self) -> Self {
        self.hides_path = true;
        self
    }

    /// Starts a request and adds the context to its headers.
    pub(super) fn start(self, method: &Method, url: &Url<'_>, headers: &mut HeaderMap) -> Call {
        let name = settings().client.method(method);
        let mut labels = vec![KeyValue::new("http.request.method", name)];
        if let Some((host, port)) = url.server() {
            labels.push(KeyValue::new("server.address", host.to_owned()));
            labels.push(KeyValue::new("server.port", i64::from(port)));
        }
        labels.push(KeyValue::new("url.scheme", url.scheme.to_owned()));
        let span_name = if name == OTHER_METHOD { "HTTP" } else { name };
        let call = Call::start(
            span_name.into(),
            Operation::HttpClientRequest,
            duration(),
            labels,
            |into| {
                into.text("url.full", &url.shown(self.hides_path));
                if name == OTHER_METHOD {
                    into.text("http.request.method_original", method.as_str());
                }
                let captured = settings().client.of_request(headers);
                captured.for_each(|header| into.set(&header));
            },
        );
        self.propagation.inject(&call.cx, headers);
        call
    }
}

/// Records the head of a response and ends the request.
fn responded(mut call: Call, response: &impl ResponseHead) {
    let status = response.status();
    call.label("http.response.status_code", i64::from(status.as_u16()));
    call.label("network.protocol.version", version(response.version()));
    call.reached(response.peer());
    let span = call.cx.span();
    if span.is_recording() {
        let captured = settings().client.of_response(response.headers());
        captured.for_each(|header| span.set_attribute(header));
    }
    if status.is_client_error() || status.is_server_error() {
        // No description: the status code is already an attribute.
        call.refused(status.as_str().to_owned().into(), String::new());
    }
    call.end();
}

/// The URL of a request.
#[derive(Debug)]
pub(super) struct Url<'a> {
    pub(super) scheme: &'a str,
    pub(super) has_credentials: bool,
    pub(super) host: Option<&'a str>,
    pub(super) port: Option<u16>,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
}

impl<'a> Url<'a> {
    fn new(uri: &'a Uri) -> Self {
        let authority = uri.authority();
        Self {
            scheme: uri.scheme_str().unwrap_or("http"),
            has_credentials: authority.is_some_and(|authority| authority.as_str().contains('@')),
            host: uri.host(),
            port: uri.port_u16(),
            path: uri.path(),
            query: uri.query(),
        }
    }

    /// Returns the host and the port, by default the port of the scheme.
    fn server(&self) -> Option<(&'a str, u16)> {
        let default_port = if self.scheme == "https" { 443 } else { 80 };
        Some((without_brackets(self.host?), self.port.unwrap_or(default_port)))
    }

    /// Returns the value of `url.full`.
    fn shown(&self, hides_path: bool) -> String {
        let mut shown = String::with_capacity(64);
        if let Some(host) = self.host {
            shown.push_str(self.scheme);
            shown.push_str("://");
            if self.has_credentials {
                shown.push_str("REDACTED:REDACTED@");
            }
            shown.push_str(host);
            if let Some(port) = self.port {
                shown.push(':');
                shown.push_str(&port.to_string());
            }
        }
        if hides_path {
            shown.push_str("/REDACTED");
            return shown;
        }
        shown.push_str(self.path);
        if let Some(query) = self.query {
            shown.push('?');
            shown.extend(redacted_parts(query));
        }
        shown
    }
}

/// Returns a host without the brackets of an IPv6 address.
pub(super) fn without_brackets(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

impl<S> Layer<S> for HttpClientLayer {
    type Service = HttpClientService<S>;

    fn layer(&self, inner: S) -> HttpClientService<S> {
        HttpClientService { inner, layer: *self }
    }
}

/// The service that [`HttpClientLayer`] produces.
#[derive(Clone, Debug)]
pub struct HttpClientService<S> {
    pub(super) inner: S,
    pub(super) layer: HttpClientLayer,
}

impl<S, B, R> Service<Request<B>> for HttpClientService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Display + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = HttpClientFuture<S::Future>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let call = self
            .layer
            .start(&parts.method, &Url::new(&parts.uri), &mut parts.headers);
        let inner = call.poll(|| self.inner.call(Request::from_parts(parts, body)));
        HttpClientFuture::new(inner, call)
    }
}

pin_project! {
    /// The response future of [`HttpClientService`]. Dropping it records a cancellation.
    #[derive(Debug)]
    pub struct HttpClientFuture<F> {
        #[pin]
        inner: F,
        // `None` once the request has ended.
        call: Option<Call>,
    }
}

impl<F> HttpClientFuture<F> {
    pub(super) fn new(inner: F, call: Call) -> Self {
        Self {
            inner,
            call: Some(call),
        }
    }
}

impl<F, R, E> Future for HttpClientFuture<F>
where
    F: Future<Output = Result<R, E>>,
    R: ResponseHead,
    E: Display + 'static,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<F::Output> {
        let this = self.project();
        let Some(call) = this.call.as_ref() else {
            return this.inner.poll(task);
        };
        let result = ready!(call.poll(|| this.inner.poll(task)));
        if let Some(mut call) = this.call.take() {
            match &result {
                Ok(response) => responded(call, response),
                Err(error) => {
                    let (error_type, message) = describe_error(error);
                    call.failed(error_type, message);
                }
            }
        }
        Poll::Ready(result)
    }
}

/// The head of a response from any client.
pub trait ResponseHead {
    /// Returns the status.
    fn status(&self) -> StatusCode;

    /// Returns the HTTP version.
    fn version(&self) -> Version;

    /// Returns the headers.
    fn headers(&self) -> &HeaderMap;

    /// Returns the address of the other end of the connection, if the client reports it.
    fn peer(&self) -> Option<SocketAddr>;
}

impl<B> ResponseHead for Response<B> {
    fn status(&self) -> StatusCode {
        self.status()
    }

    fn version(&self) -> Version {
        self.version()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn peer(&self) -> Option<SocketAddr> {
        peer(self.extensions())
    }
}

/// Returns the address of the other end of the connection, which the client of hyper-util adds to its responses.
pub(super) fn peer(extensions: &Extensions) -> Option<SocketAddr> {
    extensions.get().map(HttpInfo::remote_addr)
}

/// Returns `http.client.request.duration`.
fn duration() -> Option<&'static DurationHistogram> {
    static DURATION: Instruments<DurationHistogram> = Instruments::new();
    DURATION.get(&OWN, |factory| {
        factory.durations(
            "http.client.request.duration",
            "Duration of HTTP client requests.",
            &SECONDS,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_secrets() {
        for (uri, expected) in [
            ("http://shop.test/a?page=2", "http://shop.test/a?page=2"),
            (
                "https://me:s3cret@shop.test:8443/a?token=s3cret&b=1",
                "https://REDACTED:REDACTED@shop.test:8443/a?token=REDACTED&b=1",
            ),
            ("http://[2001:db8::1]:81/", "http://[2001:db8::1]:81/"),
            ("/a?key=s3cret", "/a?key=REDACTED"),
        ] {
            let uri: Uri = uri.parse().unwrap();
            assert_eq!(Url::new(&uri).shown(false), expected);
        }
        let uri: Uri = "https://hooks.test/services/s3cret?x=1".parse().unwrap();
        assert_eq!(Url::new(&uri).shown(true), "https://hooks.test/REDACTED");
        let uri: Uri = "https://[2001:db8::1]/".parse().unwrap();
        assert_eq!(Url::new(&uri).server(), Some(("2001:db8::1", 443)));
    }
}
