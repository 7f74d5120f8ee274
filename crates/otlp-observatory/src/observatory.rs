//! Binds the sockets, runs the servers, and stops them in order.
//!
//! Sockets are bound first, so a port in use is reported before anything runs. At shutdown, the servers stop
//! first, then ingestion, then forwarding, so all accepted telemetry is stored and queued.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use bounded_server::{GraceExceeded, Server};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

#[cfg(feature = "keep")]
use crate::config::Keep;
use crate::{
    access::Access,
    archive::Archive,
    config::{Addresses, Config},
    first_steps::FirstSteps,
    forward::{Forwarder, Forwarding},
    ingest::{Ingest, IngestThread, Received},
    pages::{self, Explorer},
    receive::{self, Receiver, health},
    store::Store,
};

/// Time-out for each step of the shutdown: requests in progress, ingestion, forwarding, health.
const GRACE: Duration = Duration::from_secs(5);

/// Maximum number of open connections of each server.
const MAX_CONNECTIONS: usize = 512;

/// Error binding a listen address.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for {purpose}")]
#[non_exhaustive]
pub struct BindError {
    /// Address that could not be bound.
    pub address: SocketAddr,
    /// Purpose of the address, such as `OTLP over HTTP`.
    pub purpose: &'static str,
    /// Error of the operating system.
    pub source: io::Error,
}

impl BindError {
    /// Whether the address is already in use.
    pub fn is_in_use(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }
}

/// An observatory whose sockets are bound; [`run`](Self::run) starts serving.
#[derive(Debug)]
pub struct Observatory {
    http: Socket,
    grpc: Option<Socket>,
    health: Option<Socket>,
    pages: Socket,
    memory: usize,
    mask: bool,
    allowed_hosts: Vec<String>,
    allowed_origins: Vec<String>,
    first_steps: FirstSteps,
    #[cfg(feature = "keep")]
    keep: Option<Keep>,
    forward: Option<Forwarding>,
}

#[derive(Debug)]
struct Socket {
    purpose: &'static str,
    listener: TcpListener,
    address: SocketAddr,
}

impl Observatory {
    /// Binds every address of `config`.
    ///
    /// # Errors
    /// Returns [`BindError`] for the first address that cannot be bound, and releases the others.
    pub async fn bind(config: Config) -> Result<Self, BindError> {
        let http = Socket::bind(config.http, "OTLP over HTTP").await?;
        let grpc = match config.grpc {
            Some(address) if cfg!(feature = "grpc") => Some(Socket::bind(address, "OTLP over gRPC").await?),
            _ => None,
        };
        let health = match config.health {
            Some(address) => Some(Socket::bind(address, "health").await?),
            None => None,
        };
        let pages = Socket::bind(config.pages, "the pages").await?;
        Ok(Self {
            http,
            grpc,
            health,
            pages,
            memory: config.memory,
            mask: config.mask,
            allowed_hosts: config.allowed_hosts,
            allowed_origins: config.allowed_origins,
            first_steps: FirstSteps::default(),
            #[cfg(feature = "keep")]
            keep: config.keep,
            #[cfg(feature = "forward")]
            forward: config.forward,
            #[cfg(not(feature = "forward"))]
            forward: None,
        })
    }

    #[cfg(feature = "keep")]
    fn open_archive(&self) -> io::Result<Option<Arc<Archive>>> {
        let open = |keep: &Keep| {
            Archive::open(keep, self.memory).map_err(|error| {
                let path = keep.path.display();
                io::Error::other(format!("cannot keep telemetry in {path}: {error}"))
            })
        };
        Ok(self.keep.as_ref().map(open).transpose()?.map(Arc::new))
    }

    #[cfg(not(feature = "keep"))]
    fn open_archive(&self) -> io::Result<Option<Arc<Archive>>> {
        Ok(None)
    }

    /// Returns the bound addresses, with the assigned ports.
    pub fn addresses(&self) -> Addresses {
        let address = |socket: &Option<Socket>| socket.as_ref().map(|socket| socket.address);
        Addresses {
            http: self.http.address,
            grpc: address(&self.grpc),
            health: address(&self.health),
            pages: self.pages.address,
        }
    }

    /// Returns the commands for the first visit to the pages, to be set at any time. Default: none.
    pub fn first_steps(&self) -> FirstSteps {
        self.first_steps.clone()
    }

    /// Serves until `shutdown` is cancelled. Before it returns, all accepted telemetry is stored, and forwarded
    /// or queued on disk.
    ///
    /// # Errors
    /// Fails if forwarding cannot start (the error wraps a `StartError`), the file to keep cannot be opened, a thread cannot be started, or a server panicked.
    pub async fn run(self, shutdown: CancellationToken) -> io::Result<()> {
        let addresses = self.addresses();
        let store = Arc::new(Store::new(self.memory));
        let received = Arc::new(Received::default());
        let forwarder = self.forward.as_ref().map(Forwarder::start).transpose();
        let forwarder = forwarder.map_err(io::Error::other)?;
        let archive = self.open_archive()?;
        let (ingest, ingest_thread) = Ingest::start(
            store.clone(),
            archive.clone(),
            self.mask,
            forwarder.clone(),
            received.clone(),
        )?;
        let explorer = Explorer {
            store,
            archive,
            addresses,
            received,
            forwarder: forwarder.clone(),
            first_steps: self.first_steps,
        };
        let access =
            |socket: &Socket| Access::new(socket.address.ip(), &self.allowed_hosts, &self.allowed_origins);

        let mut servers = Servers::new(shutdown.child_token());
        let receiver = Receiver::new(ingest);
        for socket in [Some(self.http), self.grpc].into_iter().flatten() {
            let router = receive::router(&receiver, access(&socket));
            let server = Server::new().pass_invalid_requests(true);
            #[cfg(feature = "grpc")]
            let server = server.accept_http2(true);
            servers.start(socket, server, router);
        }
        let routes = pages::routes(explorer);
        #[cfg(feature = "mcp")]
        let routes = routes.clone().merge(crate::mcp::route(routes));
        let routes = routes.merge(receive::import_route(&receiver));
        let pages = pages::router(routes, access(&self.pages));
        servers.start(self.pages, Server::new(), pages);
        // The health server reports the shutdown until the other servers have ended.
        let mut health_server = Servers::new(CancellationToken::new());
        if let Some(socket) = self.health {
            let router = health::router(servers.shutdown.clone());
            health_server.start(socket, Server::new(), router);
        }

        let ended = servers.finish().await;
        drain(ingest_thread, forwarder).await;
        health_server.shutdown.cancel();
        ended.and(health_server.finish().await)
    }
}

/// Finishes ingestion, which fills the forwarder's queue, and then forwarding.
async fn drain(ingest_thread: IngestThread, forwarder: Option<Forwarder>) {
    if tokio::time::timeout(GRACE, ingest_thread.finish()).await.is_err() {
        telemetry::error!("some of the accepted telemetry was not stored before the shutdown");
    }
    if let Some(forwarder) = forwarder {
        forwarder.finish(GRACE).await;
    }
}

/// Servers that shut down together.
struct Servers {
    shutdown: CancellationToken,
    running: JoinSet<(&'static str, Result<(), GraceExceeded>)>,
}

impl Servers {
    fn new(shutdown: CancellationToken) -> Self {
        Self {
            shutdown,
            running: JoinSet::new(),
        }
    }

    fn start(&mut self, socket: Socket, server: Server, router: Router) {
        let server = server.max_connections(MAX_CONNECTIONS).grace_period(GRACE);
        let shutdown = self.shutdown.clone().cancelled_owned();
        let served = server.serve(socket.listener, router, shutdown);
        self.running.spawn(async move { (socket.purpose, served.await) });
    }

    /// Waits until every server has ended. When one ends, the others are shut down.
    ///
    /// # Errors
    /// Fails if a server panicked.
    async fn finish(mut self) -> io::Result<()> {
        let mut result = Ok(());
        while let Some(ended) = self.running.join_next().await {
            self.shutdown.cancel();
            match ended {
                Ok((_, Ok(()))) => {}
                Ok((purpose, Err(error))) => {
                    telemetry::warn!(listener.purpose = purpose, %error, "closed connections at shutdown");
                }
                Err(panic) => result = Err(io::Error::other(panic)),
            }
        }
        result
    }
}

impl Socket {
    async fn bind(address: SocketAddr, purpose: &'static str) -> Result<Self, BindError> {
        let bound = async {
            let listener = TcpListener::bind(address).await?;
            Ok(Self {
                purpose,
                address: listener.local_addr()?,
                listener,
            })
        };
        bound.await.map_err(|source| BindError {
            address,
            purpose,
            source,
        })
    }
}
