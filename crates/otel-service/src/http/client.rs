//! The client of a request, and the URL as the client used it.

use ::http::uri::Scheme;

/// Address of the client, stored as a request extension.
///
/// The server that accepts the connection sets this extension, because only the server knows which proxies to
/// trust.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClientAddress(pub std::net::SocketAddr);

/// Parts of the URL as the client used it, stored as a request extension.
///
/// They replace those of the request in `url.scheme`, `server.address` and `server.port`. The server that accepts
/// the connection sets this extension from the headers of a trusted proxy, such as `Forwarded`.
///
/// ```
/// use http::uri::Scheme;
/// use otel_service::ClientUrl;
///
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(ClientUrl {
///     scheme: Some(Scheme::HTTPS),
///     host: Some("blog.example".to_owned()),
///     ..ClientUrl::default()
/// });
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClientUrl {
    /// Scheme; others than http and https have no effect.
    pub scheme: Option<Scheme>,
    /// Host, which may have a port. An invalid one has no effect.
    pub host: Option<String>,
    /// Port, unless `host` has one.
    pub port: Option<u16>,
}
