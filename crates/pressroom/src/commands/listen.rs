//! Binds the address that the API listens on.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpSocket, lookup_host};

use crate::config::{Host, ListenAddress};

/// Maximum number of connections waiting to be accepted.
const BACKLOG: u32 = 1024;

/// Listens on an IP address, or on all addresses of a host name. `::` also accepts IPv4, and falls back to
/// `0.0.0.0` where IPv6 is not available.
pub(super) async fn listen(address: &ListenAddress) -> anyhow::Result<Vec<TcpListener>> {
    let addresses: Vec<SocketAddr> = match &address.host {
        Host::Address(ip) => vec![SocketAddr::new(*ip, address.port)],
        Host::Name(name) => {
            let resolved = lookup_host((name.as_str(), address.port)).await;
            let resolved = resolved
                .with_context(|| format!("HOST: cannot resolve {name}; set HOST to an IP address"))?;
            resolved.collect()
        }
    };
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut failure = None;
    for mut wanted in addresses {
        // With port 0, all addresses share the port that the system chose for the first one.
        if let Some(first) = listeners.first() {
            wanted.set_port(first.local_addr()?.port());
        }
        if listeners
            .iter()
            .any(|listener| listener.local_addr().ok() == Some(wanted))
        {
            continue;
        }
        match bind(wanted) {
            Ok(listener) => listeners.push(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => anyhow::bail!(
                "PORT: port {} of {} is already in use; set PORT to another one",
                wanted.port(),
                wanted.ip()
            ),
            Err(error) => failure = Some(error),
        }
    }
    if listeners.is_empty() {
        let error = failure.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into());
        return Err(error).with_context(|| format!("HOST, PORT: cannot listen on {address}"));
    }
    Ok(listeners)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match (bind_exactly(address), address.ip()) {
        (Err(error), IpAddr::V6(ip))
            if ip.is_unspecified()
                && !matches!(
                    error.kind(),
                    io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
                ) =>
        {
            telemetry::info!(%error, "IPv6 is not available; listening on IPv4 only");
            bind_exactly(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
        }
        (bound, _) => bound,
    }
}

fn bind_exactly(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(address) => {
            let socket = TcpSocket::new_v6()?;
            // The system's default may exclude IPv4.
            if address.ip().is_unspecified() {
                socket2::SockRef::from(&socket).set_only_v6(false)?;
            }
            socket
        }
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
