//! The HTTP server of the service.

use std::{net::IpAddr, num::NonZeroUsize, time::Duration};

use bounded_server::Server;

use crate::api::{BodyMemory, TrustedProxies};

/// Default maximum number of connections, if the limit on open files allows as many.
const MAX_CONNECTIONS: usize = 10_000;

/// Number of connections that are reserved for health probes.
const RESERVED_CONNECTIONS: usize = 16;

/// Limits of the server.
#[derive(Debug, Clone)]
pub struct ServerLimits {
    /// Maximum number of connections; `None` for the default.
    pub connections: Option<NonZeroUsize>,
    /// Maximum number of connections from one client address, except trusted proxies; by default half of the
    /// maximum number of connections.
    pub connections_per_address: Option<NonZeroUsize>,
    pub header_read_timeout: Duration,
    pub keep_alive_timeout: Duration,
    pub write_timeout: Duration,
}

/// Returns a server for [`api::service`](crate::api::service), which also responds to invalid requests.
///
/// `descriptors` is the number of file descriptors for clients.
pub fn server(
    limits: &ServerLimits,
    descriptors: usize,
    proxies: TrustedProxies,
    memory: BodyMemory,
) -> Server {
    let wanted = limits.connections.map_or(MAX_CONNECTIONS, NonZeroUsize::get);
    let connections = wanted.min(descriptors);
    if connections < wanted {
        telemetry::warn!(
            "the limit on open files allows only {connections} connections; raise the hard limit (ulimit -Hn), \
             or lower MAX_CONNECTIONS"
        );
    }
    let per_address = limits.connections_per_address;
    let per_address = per_address.map_or(connections.div_ceil(2), NonZeroUsize::get);
    Server::new()
        .max_connections(connections)
        .reserved_connections(RESERVED_CONNECTIONS.min(connections / 8))
        .max_connections_per_address(per_address, move |address: IpAddr| proxies.contains(address))
        .header_read_timeout(limits.header_read_timeout)
        .keep_alive_timeout(limits.keep_alive_timeout)
        .write_timeout(limits.write_timeout)
        .close_slow_readers_under(move || memory.is_scarce())
        .pass_invalid_requests(true)
}
