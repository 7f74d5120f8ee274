//! The parts, put together: sockets are bound first, so that a port that is taken is known before anything runs; what
//! was accepted is kept and queued for the backend before it ends.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use bounded_server::{GraceExceeded, Server};
use tokio::{
    net::TcpListener,
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    forward::{Forwarder, Forwarding},
    ingest::{Counts, Ingest, Ingesting},
    pages::{self, Explorer, SiteStatus},
    receive::{grpc, health, http},
    store::{self, Store},
};

/// How long each step of the end may take: requests in progress, what was accepted on its way into the store and the
/// forwarder, what is queued on its way to the backend, health.
const GRACE: Duration = Duration::from_secs(5);

/// Maximum number of open connections of each server.
const MAX_CONNECTIONS: usize = 512;

/// Where it listens, what it keeps and where it forwards to. Port 0 is any free port.
#[derive(Clone, Debug)]
pub struct Config {
    /// OTLP over HTTP [127.0.0.1:4318].
    pub http: SocketAddr,
    /// OTLP over gRPC [127.0.0.1:4317].
    pub grpc: Option<SocketAddr>,
    /// Health, as the collector's `health_check` extension answers [127.0.0.1:13133].
    pub health: Option<SocketAddr>,
    /// The pages and their JSON [127.0.0.1:4319].
    pub pages: SocketAddr,
    /// How many bytes of telemetry are kept.
    pub memory: usize,
    /// Where telemetry is forwarded to, when it is.
    pub forward: Option<Forwarding>,
}

impl Default for Config {
    fn default() -> Self {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            http: loopback(4318),
            grpc: Some(loopback(4317)),
            health: Some(loopback(13133)),
            pages: loopback(4319),
            memory: 256 << 20,
            forward: None,
        }
    }
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for {purpose}: {source}")]
pub struct BindError {
    pub address: SocketAddr,
    /// What would have been there, as `OTLP over HTTP`.
    pub purpose: &'static str,
    pub source: io::Error,
}

impl BindError {
    /// Whether something else listens there already.
    pub fn is_taken(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }
}

/// Where an observatory listens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Addresses {
    pub http: SocketAddr,
    pub grpc: Option<SocketAddr>,
    pub health: Option<SocketAddr>,
    pub pages: SocketAddr,
}

/// Listens already, and serves as soon as it runs.
#[derive(Debug)]
pub struct Observatory {
    http: Socket,
    grpc: Option<Socket>,
    health: Option<Socket>,
    pages: Socket,
    memory: usize,
    forward: Option<Forwarding>,
}

#[derive(Debug)]
struct Socket {
    listener: TcpListener,
    address: SocketAddr,
}

impl Observatory {
    /// Binds every address of `config`.
    ///
    /// # Errors
    /// The first address that cannot be listened on; nothing stays bound then.
    pub async fn bind(config: Config) -> Result<Self, BindError> {
        let http = Socket::bind(config.http, "OTLP over HTTP").await?;
        let grpc = match config.grpc {
            Some(address) => Some(Socket::bind(address, "OTLP over gRPC").await?),
            None => None,
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
            forward: config.forward,
        })
    }

    /// Where it listens, with the ports that it got.
    pub fn addresses(&self) -> Addresses {
        let address = |socket: &Option<Socket>| socket.as_ref().map(|socket| socket.address);
        Addresses {
            http: self.http.address,
            grpc: address(&self.grpc),
            health: address(&self.health),
            pages: self.pages.address,
        }
    }

    /// Serves until `shutdown`. What was accepted by then is kept, and is sent on or waits on disk.
    ///
    /// # Errors
    /// When forwarding cannot be started ([`StartError`](crate::StartError) is inside), or a part ends by itself.
    pub async fn run(self, shutdown: CancellationToken) -> io::Result<()> {
        let addresses = self.addresses();
        let store = Arc::new(Store::new(self.memory));
        let counts = Arc::new(Counts::default());
        let forwarder = match &self.forward {
            Some(forwarding) => Some(Forwarder::start(forwarding).map_err(io::Error::other)?),
            None => None,
        };
        let (ingest, ingesting) = Ingest::start(store.clone(), forwarder.clone(), counts.clone())?;
        let pages = pages::router(Explorer {
            store,
            pages: addresses.pages,
            http: addresses.http,
            grpc: addresses.grpc,
            status: status(counts, forwarder.clone()),
        });

        let mut servers = Servers::new(shutdown.child_token());
        let http = http::router(ingest.clone());
        servers.start("OTLP over HTTP", self.http, Server::new(), http);
        if let Some(socket) = self.grpc {
            servers.start("OTLP over gRPC", socket, Server::http2(), grpc::router(ingest));
        }
        servers.start("the pages", self.pages, Server::new(), pages);
        // Health says that it is ending until the others have ended.
        let mut last = Servers::new(CancellationToken::new());
        let stopping = servers.shutdown.clone();
        if let Some(socket) = self.health {
            last.start("health", socket, Server::new(), health::router(stopping));
        }

        let ended = servers.finish().await;
        drain(ingesting, forwarder).await;
        last.shutdown.cancel();
        ended.and(last.finish().await)
    }
}

fn status(counts: Arc<Counts>, forwarder: Option<Forwarder>) -> Box<dyn Fn() -> SiteStatus + Send + Sync> {
    Box::new(move || SiteStatus {
        received: store::Counts {
            spans: counts.spans(),
            logs: counts.logs(),
            points: counts.points(),
        },
        refused_requests: counts.refused_requests(),
        forwarding: forwarder.as_ref().map(Forwarder::status),
    })
}

/// What was accepted is put where it belongs: first into the forwarder's queue, then from there to the backend.
async fn drain(ingesting: Ingesting, forwarder: Option<Forwarder>) {
    if tokio::time::timeout(GRACE, ingesting.finish()).await.is_err() {
        telemetry::error!("some of what was accepted was not kept in time");
    }
    if let Some(forwarder) = forwarder {
        forwarder.finish(GRACE).await;
    }
}

/// Servers that end together.
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

    fn start(&mut self, purpose: &'static str, socket: Socket, server: Server, router: Router) {
        let server = server.max_connections(MAX_CONNECTIONS).grace_period(GRACE);
        let served = server.serve(socket.listener, router, self.shutdown.clone().cancelled_owned());
        self.running.spawn(async move { (purpose, served.await) });
    }

    /// Waits until all have ended. One that ends by itself ends the others.
    async fn finish(mut self) -> io::Result<()> {
        let mut result = Ok(());
        while let Some(ended) = self.running.join_next().await {
            self.shutdown.cancel();
            match ended {
                Ok((_, Ok(()))) => {}
                Ok((purpose, Err(error))) => telemetry::warn!(purpose, %error, "connections were cut off"),
                Err(error) => result = Err(panicked(error)),
            }
        }
        result
    }
}

/// Servers end only by panicking, or when told.
fn panicked(error: JoinError) -> io::Error {
    io::Error::other(error)
}

impl Socket {
    async fn bind(address: SocketAddr, purpose: &'static str) -> Result<Self, BindError> {
        let bound = async {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        };
        bound.await.map_err(|source| BindError {
            address,
            purpose,
            source,
        })
    }
}
