//! The service of one connection. It passes requests from hyper to the tower service, adds the request
//! extensions, and while the server is draining, makes hyper close the connection after each response.

use std::{
    future::poll_fn,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use http::{
    Request, Response, Version,
    header::{CONNECTION, HeaderValue, TRANSFER_ENCODING},
};
use hyper::{
    body::Incoming,
    service::{HttpService, service_fn},
};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use crate::framing::AmbiguousFraming;

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// Address of the peer, an extension of every request.
///
/// Behind a proxy, this is the proxy's address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PeerAddress(pub SocketAddr);

/// Adapts `service` for one hyper connection.
pub(crate) fn connection_service<S, B>(
    service: S,
    peer: SocketAddr,
    ambiguous_head: Arc<AtomicBool>,
    draining: CancellationToken,
) -> impl HttpService<Incoming, ResBody = B, Error = S::Error, Future: Send> + Send
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: http_body::Body + Send,
{
    service_fn(move |mut request: Request<Incoming>| {
        let is_ambiguous =
            request.headers().contains_key(TRANSFER_ENCODING) && ambiguous_head.swap(false, Relaxed);
        // HTTP/2 has no `Connection` header (RFC 9113, section 8.2.2).
        let is_http1 = request.version() < Version::HTTP_2;
        let extensions = request.extensions_mut();
        extensions.insert(PeerAddress(peer));
        if is_ambiguous {
            extensions.insert(AmbiguousFraming);
        }
        let mut service = service.clone();
        let draining = draining.clone();
        async move {
            poll_fn(|cx| service.poll_ready(cx)).await?;
            let mut response = service.call(request).await?;
            if is_http1 && draining.is_cancelled() {
                response.headers_mut().insert(CONNECTION, CLOSE);
            }
            Ok(response)
        }
    })
}
