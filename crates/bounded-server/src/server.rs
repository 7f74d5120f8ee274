//! The accept loop: accepts connections up to the limits, serves each on a separate task, and closes them at
//! shutdown.

use std::{
    collections::VecDeque,
    error::Error,
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::{Request, Response};
use http_body::Body;
use hyper::server::conn::http1;
#[cfg(feature = "http2")]
use hyper_util::{rt::TokioExecutor, server::conn::auto};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulConnection, GracefulShutdown},
};
use tokio::{
    net::TcpStream,
    runtime::Handle,
    task::{AbortHandle, JoinSet},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use crate::{
    connection::Connection,
    listeners::Listeners,
    open::{Admission, CHECK, ConnectionLimits, OpenConnections},
    request_body::RequestBody,
    state::ConnectionState,
    stream::{CheckedStream, StreamLimits},
};

type BoxError = Box<dyn Error + Send + Sync>;

/// Maximum number of unsent bytes of a response in the kernel's send buffer.
#[cfg(any(target_os = "linux", target_os = "android"))]
const MAX_UNSENT: u32 = 128 * 1024;

/// Number of bytes by which hyper's buffer exceeds the limit on heads, so that hyper can parse every head it gets.
const BUFFER_MARGIN: usize = 8 * 1024;

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
///     .keep_alive_timeout(Duration::from_secs(75))
///     .drain_on(draining.clone())
///     .grace_period(Duration::from_secs(20));
/// # let _ = server;
/// ```
#[derive(Clone)]
#[must_use = "a server does nothing until `serve` is called"]
pub struct Server {
    accepts_http2: bool,
    connections: ConnectionLimits,
    is_proxy: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
    streams: StreamLimits,
    grace_period: Duration,
    passes_invalid_requests: bool,
    draining: CancellationToken,
    runtimes: Vec<Runtime>,
}

/// A runtime for connections.
#[derive(Clone)]
struct Runtime {
    handle: Handle,
    /// Cloned by the task of each connection.
    in_use: Arc<()>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("accepts_http2", &self.accepts_http2)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Server {
    /// Returns an HTTP/1 server with at most 10,000 connections, heads of at most 64 KiB, 30 seconds to read
    /// a head, 75 seconds between two requests, 30 seconds for a client that does not read, and a grace period of
    /// 30 seconds.
    pub fn new() -> Self {
        Self {
            accepts_http2: false,
            connections: ConnectionLimits {
                all: 10_000,
                reserved: 0,
                per_address: usize::MAX,
            },
            is_proxy: Arc::new(|_| false),
            streams: StreamLimits {
                max_head_bytes: 64 * 1024,
                header_read_timeout: Duration::from_secs(30),
                keep_alive_timeout: Duration::from_secs(75),
                write_timeout: Duration::from_secs(30),
                pressure: None,
            },
            grace_period: Duration::from_secs(30),
            passes_invalid_requests: false,
            draining: CancellationToken::new(),
            runtimes: Vec::new(),
        }
    }

    /// Sets whether the server also accepts HTTP/2 without TLS from clients with prior knowledge, such as gRPC
    /// clients (RFC 9113, section 3.3). The first bytes of a connection determine its version.
    ///
    /// An HTTP/2 connection may have 32 requests in progress. After 30 seconds without traffic, the server sends a
    /// ping, and closes the connection unless a reply arrives within another 30 seconds.
    #[cfg(feature = "http2")]
    pub fn accept_http2(mut self, accept: bool) -> Self {
        self.accepts_http2 = accept;
        self
    }

    /// Sets the maximum number of open connections, at least 1.
    ///
    /// At the limit, a new connection replaces the one that has waited longest for a request or the rest of a request
    /// body. If all connections have complete requests in progress, further clients wait in the listener's backlog.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.connections.all = connections.max(1);
        self
    }

    /// Sets how many of the connections are reserved for health probes, none by default.
    ///
    /// While all others have requests in progress, requests on a further connection have the extension
    /// [`ReservedConnection`](crate::ReservedConnection), so the service can reject everything but probes.
    pub fn reserved_connections(mut self, connections: usize) -> Self {
        self.connections.reserved = connections;
        self
    }

    /// Sets the maximum number of connections per client address (per /64 network for IPv6), unlimited by default.
    /// It does not apply to addresses for which `is_proxy` returns true.
    ///
    /// At the limit, a new connection replaces one from the same address that is waiting for a request or the rest of
    /// a request body. If there is none, the new one is closed.
    pub fn max_connections_per_address(
        mut self,
        connections: usize,
        is_proxy: impl Fn(IpAddr) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.connections.per_address = connections.max(1);
        self.is_proxy = Arc::new(is_proxy);
        self
    }

    /// Sets the maximum size of a request head in bytes: request line and header fields. At least 8 KiB.
    pub fn max_head_bytes(mut self, bytes: usize) -> Self {
        self.streams.max_head_bytes = bytes.max(8 * 1024);
        self
    }

    /// Sets the maximum time for a client to send a request head, measured from its first byte or, for the first
    /// head, from the start of the connection. The server then closes the connection. HTTP/1 only.
    pub fn header_read_timeout(mut self, timeout: Duration) -> Self {
        self.streams.header_read_timeout = timeout;
        self
    }

    /// Sets the maximum time between a response and the next request on an HTTP/1 connection. It should exceed
    /// the idle time-out of a load balancer in front of the server, which might otherwise send a request on a
    /// connection that is being closed.
    pub fn keep_alive_timeout(mut self, timeout: Duration) -> Self {
        self.streams.keep_alive_timeout = timeout;
        self
    }

    /// Sets the maximum time for a client to accept 16 KiB of a response, or the rest of it if that is less. The
    /// server then closes the connection.
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.streams.write_timeout = timeout;
        self
    }

    /// Reduces the write time-out to two seconds while `pressure` returns true, for example because many
    /// responses wait for slow readers. `pressure` is called once per second for each slow reader.
    pub fn close_slow_readers_under(mut self, pressure: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.streams.pressure = Some(Arc::new(pressure));
        self
    }

    /// Sets the maximum time for requests in progress to finish at shutdown.
    pub fn grace_period(mut self, period: Duration) -> Self {
        self.grace_period = period;
        self
    }

    /// Sets whether requests with an invalid head are passed to the service, which then chooses the response. They
    /// have the extension [`InvalidRequest`](crate::InvalidRequest). By default, the server responds with the
    /// status alone. Either way, it closes the connection. HTTP/1 only.
    pub fn pass_invalid_requests(mut self, pass: bool) -> Self {
        self.passes_invalid_requests = pass;
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

    /// Sets the runtimes that serve the connections; by default, the one that runs [`Self::serve`] does. A new connection
    /// is served by the runtime with the fewest connections.
    ///
    /// With one thread per runtime, a connection stays on its thread. On processors whose cores share data slowly, this
    /// saves much of the cost of small requests. All requests on a thread wait for one that blocks it.
    ///
    /// The runtimes must not shut down before [`Self::serve`] returns. Otherwise new connections are closed, because the
    /// runtime without connections is chosen.
    ///
    /// # Panics
    /// [`Self::serve`] panics if the I/O or the time driver of a runtime is not enabled.
    pub fn serve_on(mut self, runtimes: impl IntoIterator<Item = Handle>) -> Self {
        let runtimes = runtimes.into_iter();
        self.runtimes = runtimes
            .map(|handle| Runtime {
                handle,
                in_use: Arc::default(),
            })
            .collect();
        self
    }

    /// Serves `service` on the connections of one or more listeners until `shutdown` completes, then closes the
    /// listeners and idle connections, and waits for the requests in progress.
    ///
    /// Dropping the returned future closes the listeners and every connection.
    ///
    /// # Errors
    /// [`GraceExceeded`] if requests were still in progress after the grace period.
    pub async fn serve<S, B>(
        self,
        listeners: impl Into<Listeners>,
        service: S,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), GraceExceeded>
    where
        S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let mut listeners = listeners.into();
        let graceful = GracefulShutdown::new();
        // Dropping the set aborts its tasks.
        let mut connections = JoinSet::new();
        let mut open = OpenConnections::new(self.connections.clone());
        let mut shutdown = std::pin::pin!(shutdown);
        // Accepted connections that wait to replace others.
        let mut held = VecDeque::new();
        let mut held_check = interval(CHECK);
        held_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Whether to decide about the first held connection before accepting another one.
        let mut is_full = false;
        loop {
            // A replaced connection keeps its file descriptor until its task has ended.
            let is_closing = connections.len() > self.connections.all;
            let (stream, peer) = tokio::select! {
                () = &mut shutdown => break,
                Some(ended) = connections.join_next_with_id() => {
                    // The task of a connection that was replaced is cancelled.
                    if ended.is_ok() {
                        held_check.reset_immediately();
                    }
                    open.remove(ended.map_or_else(|error| error.id(), |(id, ())| id));
                    continue;
                }
                accepted = listeners.accept(), if !is_full && !is_closing => accepted,
                _ = held_check.tick(), if !held.is_empty() => match held.pop_front() {
                    Some(held) => held,
                    None => continue,
                },
            };
            let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            let admission = open.admit(peer.ip(), (self.is_proxy)(peer.ip()), held.len());
            is_full = matches!(admission, Admission::Wait(_));
            match admission {
                Admission::Serve | Admission::Reserve => {}
                Admission::Close => continue,
                Admission::Wait(time) => {
                    held.push_front((stream, peer));
                    held_check.reset_after(time);
                    continue;
                }
                Admission::Hold => {
                    held.push_back((stream, peer));
                    continue;
                }
            }
            let connection = Connection {
                peer,
                state: ConnectionState::new(),
                is_reserved: admission == Admission::Reserve,
                passes_invalid_requests: self.passes_invalid_requests,
                draining: self.draining.clone(),
            };
            let state = connection.state.clone();
            let task = match self.start(&mut connections, &graceful, stream, connection, service.clone()) {
                Ok(task) => task,
                Err(error) => {
                    tracing::debug!(%error, "connection failed before it was served");
                    continue;
                }
            };
            open.insert(peer.ip(), admission, state, task);
            held.truncate(open.max_held());
        }
        drop((listeners, held));
        tokio::time::timeout(self.grace_period, graceful.shutdown())
            .await
            .map_err(|_| GraceExceeded)
    }

    /// Starts the task of a connection.
    fn start<S, B>(
        &self,
        connections: &mut JoinSet<()>,
        graceful: &GracefulShutdown,
        stream: TcpStream,
        connection: Connection,
        service: S,
    ) -> io::Result<AbortHandle>
    where
        S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let runtime = self
            .runtimes
            .iter()
            .min_by_key(|runtime| Arc::strong_count(&runtime.in_use));
        let in_use = runtime.map(|runtime| Arc::clone(&runtime.in_use));
        // The stream's events are reported to the runtime that it was created on.
        let _entered = runtime.map(|runtime| runtime.handle.enter());
        let stream = match runtime {
            Some(_) => TcpStream::from_std(stream.into_std()?)?,
            None => stream,
        };
        let io = self.stream(stream, &connection.state);
        let service = connection.service(service);
        let handle = runtime.map_or_else(Handle::current, |runtime| runtime.handle.clone());
        Ok(match self.accepts_http2 {
            #[cfg(feature = "http2")]
            true => {
                let builder = self.either_version();
                let connection = builder.serve_connection(io, service).into_owned();
                connections.spawn_on(run(graceful, connection, in_use), &handle)
            }
            _ => {
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    // The stream applies this time-out. hyper's would include the time between requests.
                    .header_read_timeout(None)
                    .max_buf_size(self.streams.max_head_bytes + BUFFER_MARGIN)
                    .serve_connection(io, service);
                connections.spawn_on(run(graceful, connection, in_use), &handle)
            }
        })
    }

    fn stream(&self, stream: TcpStream, state: &Arc<ConnectionState>) -> TokioIo<CheckedStream> {
        // Responses are small and written whole; waiting to fill a segment only delays them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        // Otherwise the system buffers megabytes for a client that does not read, and a client that reads slowly seems
        // to accept nothing for a long time.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Err(error) = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(MAX_UNSENT) {
            tracing::debug!(%error, "cannot set TCP_NOTSENT_LOWAT");
        }
        TokioIo::new(CheckedStream::new(
            stream,
            state.clone(),
            self.streams.clone(),
            self.accepts_http2,
        ))
    }

    /// Returns the settings of connections that may be HTTP/1 or HTTP/2.
    #[cfg(feature = "http2")]
    fn either_version(&self) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_buf_size(self.streams.max_head_bytes + BUFFER_MARGIN);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        builder
    }
}

/// Returns a future that runs `connection` to its end, or until `graceful` shuts it down, and holds `in_use`.
fn run<C>(
    graceful: &GracefulShutdown,
    connection: C,
    in_use: Option<Arc<()>>,
) -> impl Future<Output = ()> + use<C>
where
    C: GracefulConnection<Error: fmt::Display>,
{
    let connection = graceful.watch(connection);
    async move {
        let _in_use = in_use;
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection failed");
        }
    }
}
