//! Accepts connections and serves requests on them until told to stop, then lets those in
//! progress finish within a deadline.
//!
//! Our own loop over hyper, because `axum::serve` has no such deadline, no header-read time-out and
//! no cap on connections.

mod framing;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{body::Body, extract::Request};
use hyper::{
    body::Incoming,
    header::{CONNECTION, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;
use tower::Service as _;

pub use self::framing::AmbiguousFraming;
use self::framing::Watched;
use crate::api::Front;

/// The largest head of a request, in bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// How long to wait after the machine had no descriptor or memory for a connection.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What clients may take of the server by being connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// How many connections may be open; more wait to be accepted.
    pub open: usize,
    /// How long a client may take to send the head of a request, and to begin another one.
    pub header_read: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            open: 10_000,
            header_read: Duration::from_secs(30),
        }
    }
}

/// How serving ends.
#[derive(Debug, Clone)]
pub struct Stopping {
    /// From here on each answer closes its connection (`Connection: close`, RFC 9112, section 9.6), so that its client
    /// opens the next one elsewhere; requests on new connections are answered as before.
    pub draining: CancellationToken,
    /// From here on no connection is accepted.
    pub shutdown: CancellationToken,
    /// How long the requests in progress may then take.
    pub grace: Duration,
}

/// Requests were still in progress at the deadline, and were cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("requests were still in progress after the grace period")]
pub struct GraceExceeded;

/// Serves until `stopping.shutdown`, then closes the listener and waits for the requests in progress.
///
/// # Errors
/// [`GraceExceeded`] when some did not finish.
pub async fn serve(listener: TcpListener, front: Front, stopping: Stopping) -> Result<(), GraceExceeded> {
    serve_within(ConnectionLimits::default(), listener, front, stopping).await
}

/// The same within other limits than the usual ones.
///
/// # Errors
/// [`GraceExceeded`] when some did not finish.
pub async fn serve_within(
    limits: ConnectionLimits,
    listener: TcpListener,
    front: Front,
    stopping: Stopping,
) -> Result<(), GraceExceeded> {
    let connections = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(limits.open));
    loop {
        let accepted = async {
            let place = room.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = stopping.shutdown.cancelled() => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, client)) => {
                let draining = stopping.draining.clone();
                let connection = connection(stream, client, front.clone(), limits.header_read, draining);
                let connection = connections.watch(connection);
                tokio::spawn(async move {
                    let _place = place;
                    if let Err(error) = connection.await {
                        telemetry::debug!(%error, "connection ended");
                    }
                });
            }
            Err(error) if is_the_clients(&error) => telemetry::debug!(%error, "connection not accepted"),
            Err(error) => {
                telemetry::error!(%error, "no connection can be accepted; trying again");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    drop(listener);
    tokio::time::timeout(stopping.grace, connections.shutdown())
        .await
        .map_err(|_| GraceExceeded)
}

fn connection(
    stream: TcpStream,
    client: SocketAddr,
    front: Front,
    header_read: Duration,
    draining: CancellationToken,
) -> http1::Connection<
    TokioIo<Watched<TcpStream>>,
    impl hyper::service::HttpService<Incoming, ResBody = Body, Error = std::convert::Infallible, Future: Send>
    + Send,
> {
    // Answers are small and written whole: waiting to fill a segment only delays them.
    if let Err(error) = stream.set_nodelay(true) {
        telemetry::debug!(%error, "TCP_NODELAY not set");
    }
    let stream = Watched::new(stream);
    let framing = stream.found();
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        let extensions = request.extensions_mut();
        extensions.insert(telemetry::ClientAddress(client));
        extensions.insert(framing.clone());
        let mut front = front.clone();
        let draining = draining.clone();
        async move {
            let mut answer = front.call(request).await?;
            if draining.is_cancelled() {
                answer.headers_mut().insert(CONNECTION, CLOSE);
            }
            Ok(answer)
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_read)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
}

/// Whether only this connection failed, not accepting as such.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
