//! The accept loop: accepts connections up to the limit, serves each on a separate task, and closes them at
//! shutdown.

use std::{error::Error, io, time::Duration};

use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulConnection, GracefulShutdown},
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use crate::{connection::connection_service, framing::WatchedStream};

type BoxError = Box<dyn Error + Send + Sync>;

/// Delay before the next attempt to accept when the system lacks file descriptors or memory.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// Error of a shutdown that aborted requests at the end of the grace period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("requests were still in progress after the grace period")]
#[non_exhaustive]
pub struct GraceExceeded;

/// Maximum number of requests in progress on an HTTP/2 connection.
#[cfg(feature = "http2")]
const MAX_STREAMS: u32 = 32;

/// Time without traffic before a ping on an HTTP/2 connection, and time-out of the ping.
#[cfg(feature = "http2")]
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// HTTP version of all connections of a server.
#[derive(Debug, Clone)]
enum Protocol {
    Http1,
    #[cfg(feature = "http2")]
    Http2,
}

/// Limits and deadlines of an HTTP server, and the accept loop that applies them.
///
/// Each setter returns the changed server. [`Server::new`] documents the defaults.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use bounded_server::{CancellationToken, Server};
///
/// let draining = CancellationToken::new();
/// let server = Server::new()
///     .max_connections(500)
///     .header_read_timeout(Duration::from_secs(10))
///     .drain_on(draining.clone())
///     .grace_period(Duration::from_secs(20));
/// # let _ = server;
/// ```
#[derive(Debug, Clone)]
#[must_use = "a server does nothing until `serve` is called"]
pub struct Server {
    protocol: Protocol,
    max_connections: usize,
    max_head_bytes: usize,
    header_read_timeout: Duration,
    grace_period: Duration,
    detect_ambiguous_framing: bool,
    draining: CancellationToken,
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Server {
    /// Returns an HTTP/1 server with at most 10,000 connections, heads of at most 64 KiB, 30 seconds to read
    /// a head, and a grace period of 30 seconds.
    pub fn new() -> Self {
        Self {
            protocol: Protocol::Http1,
            max_connections: 10_000,
            max_head_bytes: 64 * 1024,
            header_read_timeout: Duration::from_secs(30),
            grace_period: Duration::from_secs(30),
            detect_ambiguous_framing: false,
            draining: CancellationToken::new(),
        }
    }

    /// Returns a server for HTTP/2 without TLS, by prior knowledge, as gRPC clients use it.
    ///
    /// A connection may have 32 requests in progress. After 30 seconds without traffic, the server sends a
    /// ping, and closes the connection unless a reply arrives within another 30 seconds. The other limits
    /// are the same as in [`Server::new`].
    #[cfg(feature = "http2")]
    pub fn http2() -> Self {
        Self {
            protocol: Protocol::Http2,
            ..Self::new()
        }
    }

    /// Sets the maximum number of open connections. Further clients wait in the listener's backlog.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// Sets the maximum size of a request head in bytes: request line and header fields.
    ///
    /// hyper's read buffer has the same limit, at least 8 KiB.
    pub fn max_head_bytes(mut self, bytes: usize) -> Self {
        self.max_head_bytes = bytes.max(8 * 1024);
        self
    }

    /// Sets the maximum time for a client to send a request head, which is also the maximum idle time of an
    /// HTTP/1 connection. The server then closes the connection.
    pub fn header_read_timeout(mut self, timeout: Duration) -> Self {
        self.header_read_timeout = timeout;
        self
    }

    /// Sets the maximum time for requests in progress to finish at shutdown.
    pub fn grace_period(mut self, period: Duration) -> Self {
        self.grace_period = period;
        self
    }

    /// Sets whether requests whose head contains both `Content-Length` and `Transfer-Encoding` have the
    /// extension [`AmbiguousFraming`](crate::AmbiguousFraming), for the service to reject them.
    ///
    /// Such requests may smuggle another request past a proxy (RFC 9112, section 6.3). hyper removes the
    /// length before the service sees the request, so the server scans every byte that it reads. Off by
    /// default.
    pub fn detect_ambiguous_framing(mut self, detect: bool) -> Self {
        self.detect_ambiguous_framing = detect;
        self
    }

    /// Adds `Connection: close` to every HTTP/1 response once `draining` is cancelled (RFC 9112, section
    /// 9.6). Clients then reconnect elsewhere. The server still accepts connections and serves their
    /// requests.
    ///
    /// Cancel the token some time before the shutdown, when load balancers should stop sending requests.
    pub fn drain_on(mut self, draining: CancellationToken) -> Self {
        self.draining = draining;
        self
    }

    /// Serves `service` on the connections of `listener` until `shutdown` completes, then closes the listener
    /// and idle connections, and waits for the requests in progress.
    ///
    /// Dropping the returned future closes the listener and every connection.
    ///
    /// # Errors
    /// [`GraceExceeded`] if requests were still in progress after the grace period.
    pub async fn serve<S, B>(
        self,
        listener: TcpListener,
        service: S,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), GraceExceeded>
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let graceful = GracefulShutdown::new();
        // Dropping the set aborts its tasks.
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept(), if connections.len() < self.max_connections => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if concerns_one_connection(&error) => {
                    tracing::debug!(%error, "connection failed before it was accepted");
                    continue;
                }
                Err(error) => {
                    tracing::error!(%error, "cannot accept connections; retrying in 100 ms");
                    tokio::time::sleep(ACCEPT_BACK_OFF).await;
                    continue;
                }
            };
            // Responses are small and written whole; waiting to fill a segment only delays them.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "cannot set TCP_NODELAY");
            }
            let stream = WatchedStream::new(stream, self.detect_ambiguous_framing);
            let ambiguous_head = stream.ambiguous_head();
            let service = connection_service(service.clone(), peer, ambiguous_head, self.draining.clone());
            let io = TokioIo::new(stream);
            match self.protocol {
                Protocol::Http1 => {
                    let connection = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(self.header_read_timeout)
                        .max_buf_size(self.max_head_bytes)
                        .serve_connection(io, service);
                    connections.spawn(run(&graceful, connection));
                }
                #[cfg(feature = "http2")]
                Protocol::Http2 => {
                    let connection =
                        hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
                            .timer(TokioTimer::new())
                            .max_concurrent_streams(MAX_STREAMS)
                            .keep_alive_interval(KEEP_ALIVE)
                            .keep_alive_timeout(KEEP_ALIVE)
                            .serve_connection(io, service);
                    connections.spawn(run(&graceful, connection));
                }
            }
        }
        drop(listener);
        tokio::time::timeout(self.grace_period, graceful.shutdown())
            .await
            .map_err(|_| GraceExceeded)
    }
}

/// Returns a future that runs `connection` to its end, or until `graceful` shuts it down.
fn run<C>(graceful: &GracefulShutdown, connection: C) -> impl Future<Output = ()> + use<C>
where
    C: GracefulConnection<Error = hyper::Error>,
{
    let connection = graceful.watch(connection);
    async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection failed");
        }
    }
}

/// Whether the error concerns the accepted connection only, not the listener.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
