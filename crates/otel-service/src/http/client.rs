//! The client of a request.

/// Address of the client, stored as a request extension.
///
/// The server that accepts the connection sets this extension, because only the server knows which proxies to
/// trust.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClientAddress(pub std::net::SocketAddr);
