//! Settings and addresses of an observatory.

use std::net::SocketAddr;

#[cfg(feature = "forward")]
use crate::forward::Forwarding;

/// Settings of an [`Observatory`](crate::Observatory): the addresses to listen on, the memory limit, and the backend to
/// forward to.
///
/// Port 0 selects a free port. Each setter returns the changed settings.
///
/// ```
/// use otlp_observatory::Config;
///
/// let config = Config::default().memory(64 << 20).grpc(None);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Address for OTLP over HTTP and gRPC. Default: 127.0.0.1:4318.
    pub http: SocketAddr,
    /// Second address for OTLP over HTTP and gRPC, the usual port of gRPC. Default: 127.0.0.1:4317. Ignored without the
    /// feature `grpc`.
    pub grpc: Option<SocketAddr>,
    /// Address for health checks, compatible with the collector's `health_check` extension. Default: 127.0.0.1:13133.
    pub health: Option<SocketAddr>,
    /// Address of the pages and of their JSON. Default: 127.0.0.1:4319.
    pub pages: SocketAddr,
    /// Maximum memory for telemetry, in bytes. Default: 256 MiB.
    pub memory: usize,
    /// Whether telemetry is masked before it is stored and shown. What is forwarded is always masked. Default: true.
    pub mask: bool,
    /// Host names, each with or without a port, under which the pages and receivers can be reached besides `localhost`,
    /// loopback addresses and names without a dot. Requests for other hosts are rejected. Default: none. Without any,
    /// servers that listen on an address that is not loopback accept every host.
    pub allowed_hosts: Vec<String>,
    /// Origins of web pages, such as `https://shop.example`, that may send telemetry from a browser besides those of this
    /// machine. `*` stands for all origins. Default: none.
    pub allowed_origins: Vec<String>,
    /// File that telemetry is kept in. Default: none, so that telemetry is lost when the process ends.
    #[cfg(feature = "keep")]
    pub keep: Option<Keep>,
    /// Backend to forward to. Default: none.
    #[cfg(feature = "forward")]
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
            mask: true,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            #[cfg(feature = "keep")]
            keep: None,
            #[cfg(feature = "forward")]
            forward: None,
        }
    }
}

impl Config {
    /// Sets the address for OTLP over HTTP.
    pub fn http(mut self, address: SocketAddr) -> Self {
        self.http = address;
        self
    }

    /// Sets the address for OTLP over gRPC; `None` turns it off.
    pub fn grpc(mut self, address: impl Into<Option<SocketAddr>>) -> Self {
        self.grpc = address.into();
        self
    }

    /// Sets the address for health checks; `None` turns them off.
    pub fn health(mut self, address: impl Into<Option<SocketAddr>>) -> Self {
        self.health = address.into();
        self
    }

    /// Sets the address of the pages and of their JSON.
    pub fn pages(mut self, address: SocketAddr) -> Self {
        self.pages = address;
        self
    }

    /// Sets the maximum memory for telemetry, in bytes.
    pub fn memory(mut self, bytes: usize) -> Self {
        self.memory = bytes;
        self
    }

    /// Sets whether telemetry is masked before it is stored and shown. What is forwarded is always masked.
    pub fn mask(mut self, mask: bool) -> Self {
        self.mask = mask;
        self
    }

    /// Sets the host names under which the servers can be reached besides those of this machine.
    pub fn allowed_hosts(mut self, hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.allowed_hosts = hosts.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the origins of web pages that may send telemetry besides those of this machine.
    pub fn allowed_origins(mut self, origins: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.allowed_origins = origins.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the file that telemetry is kept in; `None` keeps it in memory only.
    #[cfg(feature = "keep")]
    pub fn keep(mut self, keep: impl Into<Option<Keep>>) -> Self {
        self.keep = keep.into();
        self
    }

    /// Sets the backend to forward to; `None` turns forwarding off.
    #[cfg(feature = "forward")]
    pub fn forward(mut self, forwarding: impl Into<Option<Forwarding>>) -> Self {
        self.forward = forwarding.into();
        self
    }
}

/// File that telemetry is kept in, with the bounds beyond which the oldest telemetry is removed.
#[cfg(feature = "keep")]
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Keep {
    /// Path of the file, an SQLite database. Files with the same name and `-wal` or `-shm` appended are part of it.
    pub path: std::path::PathBuf,
    /// Maximum size, in bytes. Default: 4 GiB.
    pub max_bytes: u64,
    /// Maximum age of telemetry. Default: seven days.
    pub max_age: std::time::Duration,
}

#[cfg(feature = "keep")]
impl Keep {
    /// Keeps telemetry in the file at `path`, within the default bounds.
    pub fn new(path: impl Into<std::path::PathBuf>) -> Self {
        Self {
            path: path.into(),
            max_bytes: 4 << 30,
            max_age: std::time::Duration::from_secs(7 * 86_400),
        }
    }

    /// Sets the maximum size, in bytes.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets the maximum age of telemetry.
    pub fn max_age(mut self, age: std::time::Duration) -> Self {
        self.max_age = age;
        self
    }
}

/// Addresses an observatory listens on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Addresses {
    /// Address for OTLP over HTTP.
    pub http: SocketAddr,
    /// Address for OTLP over gRPC.
    pub grpc: Option<SocketAddr>,
    /// Address for health checks.
    pub health: Option<SocketAddr>,
    /// Address of the pages and of their JSON.
    pub pages: SocketAddr,
}
