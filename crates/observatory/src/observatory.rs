//! The parts, put together: sockets are bound first, so that a port that is taken is known before anything runs.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{forward::Forwarding, ingest::Ingest, pages, store::Store};

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
    pages: TcpListener,
    http: SocketAddr,
    grpc: Option<SocketAddr>,
    store: Arc<Store>,
    _ingest: Ingest,
}

impl Observatory {
    /// Binds every address of `config`.
    ///
    /// # Errors
    /// The first address that cannot be listened on; nothing stays bound then.
    pub async fn bind(config: Config) -> Result<Self, BindError> {
        let pages = bind(config.pages, "the pages").await?;
        let store = Arc::new(Store::new(config.memory));
        let ingest = Ingest::start(store.clone(), None);
        Ok(Self {
            pages,
            http: config.http,
            grpc: config.grpc,
            store,
            _ingest: ingest,
        })
    }

    /// Serves until `shutdown`; what was accepted by then is kept, and queued for the backend.
    ///
    /// # Errors
    /// When a listener fails for good.
    pub async fn run(self, shutdown: CancellationToken) -> io::Result<()> {
        let explorer = pages::Explorer {
            store: self.store,
            pages: self.pages.local_addr()?,
            http: self.http,
            grpc: self.grpc,
            status: Box::new(pages::SiteStatus::default),
        };
        axum::serve(self.pages, pages::router(explorer))
            .with_graceful_shutdown(shutdown.cancelled_owned())
            .await
    }
}

async fn bind(address: SocketAddr, purpose: &'static str) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| BindError {
        address,
        purpose,
        source,
    })
}
