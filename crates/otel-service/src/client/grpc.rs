//! gRPC calls to other services, following the RPC conventions (OpenTelemetry semantic conventions 1.44, release
//! candidate). Works with tonic's `Channel` and any other client that takes `http` requests.

use std::fmt::Display;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};

use ::http::{HeaderMap, Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use opentelemetry::KeyValue;
use otlp_recorder::DurationHistogram;
use percent_encoding::percent_decode_str;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::call::Call;
use super::http::{peer, without_brackets};
use crate::exceptions::Operation;
use crate::metrics::{Instruments, SECONDS};
use crate::propagation::Propagation;
use crate::recorder::OWN;

/// Names of the gRPC status codes, by number.
const STATUS_CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// A [`Layer`] for gRPC clients, such as tonic's `Channel`: each call gets a client span, is measured in
/// `rpc.client.call.duration`, and carries the trace context in its metadata.
///
/// A call ends when its trailers arrive. All status codes except `OK` set the span status to Error.
///
/// ```
/// use otel_service::GrpcClientLayer;
/// use tower::ServiceBuilder;
/// # use tower::service_fn;
/// # let channel = service_fn(|_: http::Request<String>| async {
/// #     Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
/// # });
///
/// let layer = GrpcClientLayer::new().server("stock.internal", 50051);
/// let channel = ServiceBuilder::new().layer(layer).service(channel);
/// ```
#[derive(Clone, Debug, Default)]
pub struct GrpcClientLayer {
    propagation: Propagation,
    server: Option<(String, u16)>,
}

impl GrpcClientLayer {
    /// Creates a layer that propagates the trace context, but no baggage.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the parts of the context that are sent to the server.
    #[must_use]
    pub fn propagation(mut self, propagation: Propagation) -> Self {
        self.propagation = propagation;
        self
    }

    /// Sets the address of the server, which requests to a `Channel` do not contain.
    #[must_use]
    pub fn server(mut self, address: impl Into<String>, port: u16) -> Self {
        self.server = Some((address.into(), port));
        self
    }

    fn start(&self, uri: &Uri, headers: &mut HeaderMap) -> Call {
        let method = uri.path().trim_start_matches('/').to_owned();
        let mut labels = vec![
            KeyValue::new("rpc.system.name", "grpc"),
            KeyValue::new("rpc.method", method.clone()),
        ];
        let of_uri = || Some((without_brackets(uri.host()?).to_owned(), uri.port_u16()?));
        let mut peer = None;
        if let Some((address, port)) = self.server.clone().or_else(of_uri) {
            // tonic does not report the address. A name may stand for several ones.
            peer = address.parse().ok().map(|ip| SocketAddr::new(ip, port));
            labels.push(KeyValue::new("server.address", address));
            labels.push(KeyValue::new("server.port", i64::from(port)));
        }
        let call = Call::start(
            method.into(),
            Operation::RpcClientCall,
            duration(),
            labels,
            |_| (),
        );
        call.reached(peer);
        self.propagation.inject(&call.cx, headers);
        call
    }
}

impl<S> Layer<S> for GrpcClientLayer {
    type Service = GrpcClientService<S>;

    fn layer(&self, inner: S) -> GrpcClientService<S> {
        GrpcClientService {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service that [`GrpcClientLayer`] produces.
#[derive(Clone, Debug)]
pub struct GrpcClientService<S> {
    inner: S,
    layer: GrpcClientLayer,
}

impl<S, B, R> Service<Request<B>> for GrpcClientService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Display,
{
    type Response = Response<GrpcClientBody<R>>;
    type Error = S::Error;
    type Future = GrpcClientFuture<S::Future>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let call = self.layer.start(&parts.uri, &mut parts.headers);
        let inner = call.poll(|| self.inner.call(Request::from_parts(parts, body)));
        GrpcClientFuture {
            inner,
            call: Some(call),
        }
    }
}

pin_project! {
    /// The response future of [`GrpcClientService`]. Dropping it records a cancellation.
    #[derive(Debug)]
    pub struct GrpcClientFuture<F> {
        #[pin]
        inner: F,
        // `None` once moved into the response body.
        call: Option<Call>,
    }
}

impl<F, R, E> Future for GrpcClientFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Display,
{
    type Output = Result<Response<GrpcClientBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = match this.call.as_ref() {
            Some(call) => ready!(call.poll(|| this.inner.poll(task))),
            None => ready!(this.inner.poll(task)),
        };
        let mut call = this.call.take();
        Poll::Ready(match result {
            Ok(response) => {
                if let Some(call) = &call {
                    call.reached(peer(response.extensions()));
                }
                // A response without messages has its status in the headers.
                finish(&mut call, response.headers());
                Ok(response.map(|inner| GrpcClientBody { inner, call }))
            }
            Err(error) => {
                if let Some(mut call) = call {
                    call.failed(std::any::type_name::<E>(), error.to_string());
                }
                Err(error)
            }
        })
    }
}

/// Ends the call if `headers` have a status.
fn finish(call: &mut Option<Call>, headers: &HeaderMap) {
    let Some(status) = headers.get("grpc-status") else {
        return;
    };
    let Some(mut call) = call.take() else { return };
    let number: Option<usize> = status.to_str().ok().and_then(|status| status.parse().ok());
    let code = number
        .and_then(|number| STATUS_CODES.get(number))
        .unwrap_or(&"UNKNOWN");
    call.label("rpc.response.status_code", *code);
    if *code != "OK" {
        let message = headers.get("grpc-message").map(|message| message.as_bytes());
        let message = String::from_utf8_lossy(message.unwrap_or_default());
        let message = percent_decode_str(&message).decode_utf8_lossy().into_owned();
        call.refused((*code).into(), message);
    }
    call.end();
}

pin_project! {
    /// The response body of [`GrpcClientService`], which ends the call with its trailers.
    #[derive(Debug)]
    pub struct GrpcClientBody<B> {
        #[pin]
        inner: B,
        // `None` once the call has ended.
        call: Option<Call>,
    }
}

impl<B> Body for GrpcClientBody<B>
where
    B: Body,
    B::Error: Display,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = match this.call.as_ref() {
            Some(call) => ready!(call.poll(|| this.inner.poll_frame(task))),
            None => return this.inner.poll_frame(task),
        };
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    finish(this.call, trailers);
                }
            }
            Some(Err(error)) => {
                if let Some(mut call) = this.call.take() {
                    call.failed(std::any::type_name::<B::Error>(), error.to_string());
                }
            }
            None => {
                if let Some(mut call) = this.call.take() {
                    call.refused("UNKNOWN".into(), "the response has no status".to_owned());
                    call.end();
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Returns `rpc.client.call.duration`.
fn duration() -> Option<&'static DurationHistogram> {
    static DURATION: Instruments<DurationHistogram> = Instruments::new();
    DURATION.get(&OWN, |factory| {
        factory.durations("rpc.client.call.duration", "Duration of outgoing RPCs.", &SECONDS)
    })
}
