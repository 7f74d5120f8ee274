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
    /// Commands that the page shows while it waits for the first request, besides those for SDKs. Default: none.
    pub first_steps: Vec<FirstStep>,
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
            first_steps: Vec::new(),
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

    /// Sets the commands that the page shows while it waits for the first request, in a panel of their own.
    pub fn first_steps(mut self, steps: impl IntoIterator<Item = FirstStep>) -> Self {
        self.first_steps = steps.into_iter().collect();
        self
    }

    /// Sets the backend to forward to; `None` turns forwarding off.
    #[cfg(feature = "forward")]
    pub fn forward(mut self, forwarding: impl Into<Option<Forwarding>>) -> Self {
        self.forward = forwarding.into();
        self
    }
}

/// A command for the first visit to the pages.
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct FirstStep {
    /// Purpose of the command, such as `Register:`.
    pub text: String,
    /// Command for a shell.
    pub command: String,
}

impl FirstStep {
    /// Creates a step from its text and its command.
    pub fn new(text: impl Into<String>, command: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            command: command.into(),
        }
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
