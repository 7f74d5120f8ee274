//! The client of a request.

/// Address of the client, a request extension.
///
/// The server that accepts the connection sets it, because only the server knows which proxies to trust.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClientAddress(pub std::net::SocketAddr);
