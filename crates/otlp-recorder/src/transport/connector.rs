//! Connections of the HTTP transport, direct or through a proxy.
//!
//! TLS is configured separately: the transport installs no process-wide `rustls` provider, and enables no
//! features of other HTTP clients that the program may use.

use std::error::Error;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::collector::Proxy;

/// Interval of the probes that detect a peer that has disappeared without closing the connection.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Opens TCP connections, directly or through a proxy.
#[derive(Clone, Debug)]
pub(super) struct ProxyConnector {
    direct: HttpConnector,
    proxies: Arc<Matcher>,
}

impl ProxyConnector {
    pub(super) fn new(proxy: Option<&Proxy>) -> Self {
        let mut direct = HttpConnector::new();
        // Also used for https; the TLS connector checks the scheme.
        direct.enforce_http(false);
        direct.set_nodelay(true);
        direct.set_keepalive(Some(KEEPALIVE));
        Self {
            direct,
            proxies: Arc::new(Matcher::builder().all(proxy.map_or("", |Proxy(url)| url)).build()),
        }
    }

    /// Returns the `Proxy-Authorization` header for a request that a proxy forwards. A tunnel authenticates
    /// when it is opened.
    pub(super) fn authorization(&self, url: &Uri) -> Option<HeaderValue> {
        if url.scheme_str() != Some("http") {
            return None;
        }
        self.proxies.intercept(url)?.basic_auth().cloned()
    }
}

type BoxError = Box<dyn Error + Send + Sync>;

impl Service<Uri> for ProxyConnector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, task: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.direct.poll_ready(task).map_err(Into::into)
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let proxy = self.proxies.intercept(&url);
        let mut direct = self.direct.clone();
        Box::pin(async move {
            let is_encrypted = url.scheme_str() == Some("https");
            let io = match &proxy {
                None => direct.call(url).await?,
                Some(proxy) if is_encrypted => tunnel(proxy, direct).call(url).await?,
                Some(proxy) => direct.call(proxy.uri().clone()).await?,
            };
            Ok(Stream {
                io,
                is_proxied: proxy.is_some() && !is_encrypted,
            })
        })
    }
}

fn tunnel(proxy: &Intercept, direct: HttpConnector) -> Tunnel<HttpConnector> {
    let tunnel = Tunnel::new(proxy.uri().clone(), direct);
    match proxy.basic_auth() {
        Some(authorization) => tunnel.with_auth(authorization.clone()),
        None => tunnel,
    }
}

/// A TCP connection to a collector or a proxy.
#[derive(Debug)]
pub(super) struct Stream {
    io: TokioIo<TcpStream>,
    /// Whether the peer is a proxy that forwards requests, which need absolute URLs.
    is_proxied: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.io.connected().proxy(self.is_proxied)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(task, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(task, bytes)
    }

    /// Without vectored writes, hyper would copy each body behind its headers.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(task, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(task)
    }
}
