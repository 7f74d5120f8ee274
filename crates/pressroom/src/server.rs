//! The HTTP server of the service.

use bounded_server::Server;

/// Returns a server for [`api::service`](crate::api::service), which rejects requests with ambiguous framing.
pub fn server() -> Server {
    Server::new().detect_ambiguous_framing(true)
}
