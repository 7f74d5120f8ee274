//! The service of one connection. It passes requests from hyper to the tower service, adds the request
//! extensions and, while the server is draining, makes hyper close the connection after the response.

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use http::{
    Request, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, EXPECT, HeaderValue},
};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    service::{Service as HyperService, service_fn},
};
use pin_project_lite::pin_project;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use crate::{
    request_body::RequestBody,
    state::{ConnectionState, InProgress},
};

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// Request extension with the address of the peer, present on every request.
///
/// An IPv6 listener's IPv4-mapped addresses are converted to IPv4. Behind a proxy, this is the proxy's address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PeerAddress(pub SocketAddr);

/// Request extension that marks a connection reserved for health probes; see
/// [`Server::reserved_connections`](crate::Server::reserved_connections).
///
/// The service should reject all other requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReservedConnection;

/// Data about one connection that its service needs.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) peer: SocketAddr,
    pub(crate) state: Arc<ConnectionState>,
    pub(crate) is_reserved: bool,
    pub(crate) passes_invalid_requests: bool,
    pub(crate) draining: CancellationToken,
}

impl Connection {
    /// Adapts `service` for the connection.
    pub(crate) fn service<S, B>(
        self,
        service: S,
    ) -> impl HyperService<
        Request<Incoming>,
        Response = Response<ResponseBody<B>>,
        Error = S::Error,
        Future: Send + 'static,
    > + Send
    where
        S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: Body + Send + 'static,
    {
        let requests = AtomicU64::new(0);
        service_fn(move |mut request: Request<Incoming>| {
            let in_progress = self.state.begin();
            let refusal = self.state.refusal_of(requests.fetch_add(1, Relaxed));
            // HTTP/2 has no `Connection` header (RFC 9113, section 8.2.2).
            let is_http1 = request.version() < Version::HTTP_2;
            let extensions = request.extensions_mut();
            extensions.insert(PeerAddress(self.peer));
            if self.is_reserved {
                extensions.insert(ReservedConnection);
            }
            if let Some(refusal) = refusal {
                extensions.insert(refusal);
            }
            let refused = refusal.filter(|_| !self.passes_invalid_requests);
            let expects_continue = request.headers().contains_key(EXPECT);
            let (parts, body) = request.into_parts();
            let (body, unread) = RequestBody::new(body);
            let unread = unread.filter(|_| is_http1);
            let mut service = service.clone();
            let draining = self.draining.clone();
            async move {
                if let Some(refusal) = refused {
                    let mut response = Response::new(ResponseBody::empty(in_progress));
                    *response.status_mut() = refusal.status();
                    return Ok(response);
                }
                poll_fn(|cx| service.poll_ready(cx)).await?;
                let mut response = service.call(Request::from_parts(parts, body)).await?;
                // In a 304 response, Content-Length would have to be that of the 200 response (RFC 9110, section 8.6).
                // For HEAD, axum adds the length of the empty body.
                if response.status() == StatusCode::NOT_MODIFIED {
                    response.headers_mut().remove(CONTENT_LENGTH);
                }
                let mut close = is_http1 && draining.is_cancelled();
                if let Some(unread) = unread
                    && !response.headers().contains_key(CONNECTION)
                {
                    close |= !unread.discard(expects_continue).await;
                }
                if close {
                    response.headers_mut().insert(CONNECTION, CLOSE);
                }
                Ok(response.map(|body| ResponseBody::new(body, in_progress)))
            }
        })
    }
}

pin_project! {
    /// Response body. Its request counts as in progress until hyper drops the body.
    pub(crate) struct ResponseBody<B> {
        #[pin]
        body: Option<B>,
        in_progress: InProgress,
    }
}

impl<B> ResponseBody<B> {
    fn new(body: B, in_progress: InProgress) -> Self {
        let body = Some(body);
        Self { body, in_progress }
    }

    fn empty(in_progress: InProgress) -> Self {
        Self {
            body: None,
            in_progress,
        }
    }
}

impl<B: Body> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.project().body.as_pin_mut() {
            Some(body) => body.poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), B::size_hint)
    }
}
