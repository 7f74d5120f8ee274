//! Accepts connections and answers requests on them with a router, until told to stop; then those in progress finish
//! within a deadline. All servers of the observatory run on it: `axum::serve` has no such deadline, no time-out for
//! reading heads and no cap on connections.

use std::{io, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::Request};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

/// How many connections of one server may be open; more wait to be accepted.
const MAX_CONNECTIONS: usize = 512;

/// How long a client may take to send the head of a request, and to begin another one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest head of a request, in bytes.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// How many requests one HTTP/2 connection may have in progress.
const MAX_STREAMS: u32 = 32;

/// How long an HTTP/2 client may be silent before it is asked, and then to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// How long to wait after the machine had no descriptor or memory for a connection.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What clients speak.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Protocol {
    Http1,
    /// Without TLS and known beforehand, as gRPC has it.
    Http2,
}

/// Requests were still in progress at the deadline, and were cut off.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("requests were still in progress after the grace period")]
pub(crate) struct GraceExceeded;

/// Serves until `shutdown`, then closes the listener and gives the requests in progress `grace`.
///
/// # Errors
/// [`GraceExceeded`] when some did not finish.
pub(crate) async fn serve(
    listener: TcpListener,
    protocol: Protocol,
    router: Router,
    shutdown: CancellationToken,
    grace: Duration,
) -> Result<(), GraceExceeded> {
    let connections = GracefulShutdown::new();
    let builder = builder(protocol);
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Whoever drops this future, and the deadline, end what is still connected.
    let cut = CancellationToken::new();
    let _cut = cut.clone().drop_guard();
    loop {
        let accepted = async {
            let place = room.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                set_nodelay(&stream);
                let router = router.clone();
                let service =
                    service_fn(move |request: Request<Incoming>| router.clone().call(request.map(Body::new)));
                let connection = builder
                    .serve_connection(TokioIo::new(stream), service)
                    .into_owned();
                let connection = connections.watch(connection);
                let cut = cut.clone();
                tokio::spawn(async move {
                    let _place = place;
                    if let Some(Err(error)) = cut.run_until_cancelled(connection).await {
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
    tokio::time::timeout(grace, connections.shutdown())
        .await
        .map_err(|_| GraceExceeded)
}

fn builder(protocol: Protocol) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    match protocol {
        Protocol::Http1 => builder.http1_only(),
        Protocol::Http2 => builder.http2_only(),
    }
}

/// Answers are small and written whole: waiting to fill a segment only delays them.
fn set_nodelay(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        telemetry::debug!(%error, "TCP_NODELAY not set");
    }
}

/// Whether only this connection failed, not accepting as such.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
