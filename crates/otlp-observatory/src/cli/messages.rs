//! Messages at the start of an observatory.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::settings::{
    OBSERVATORY_HEALTH_PORT, OBSERVATORY_HOST, OBSERVATORY_OTLP_GRPC_PORT, OBSERVATORY_OTLP_HTTP_PORT,
    OBSERVATORY_PORT, SettingError, shown_endpoint,
};
use crate::{
    config::{Addresses, Config},
    observatory::BindError,
};

/// Logs a warning if other machines can reach the pages, which have no login.
pub fn warn_without_login(pages: SocketAddr) {
    if !pages.ip().is_loopback() {
        telemetry::warn!(
            listener.address = %pages.ip(),
            "OBSERVATORY_HOST: there is no login; anyone who reaches this address can read and add telemetry"
        );
    }
}

/// Returns the error for the setting that an address comes from.
pub fn cannot_listen(config: &Config, error: &BindError) -> SettingError {
    let port = [
        (OBSERVATORY_OTLP_HTTP_PORT, Some(config.http)),
        (OBSERVATORY_OTLP_GRPC_PORT, config.grpc),
        (OBSERVATORY_HEALTH_PORT, config.health),
    ]
    .into_iter()
    .find(|(_, address)| *address == Some(error.address))
    .map_or(OBSERVATORY_PORT, |(setting, _)| setting);
    let (setting, cause) = match error.source.kind() {
        ErrorKind::AddrInUse => {
            let cause = format!(
                "another program uses the port; stop it, or set {} to another port",
                port.variable
            );
            (port, cause)
        }
        ErrorKind::AddrNotAvailable => (
            OBSERVATORY_HOST,
            "this machine does not have the address".to_owned(),
        ),
        _ => (port, error.source.to_string()),
    };
    SettingError {
        variable: setting.variable,
        problem: format!("{error}: {cause}"),
    }
}

/// Returns the address at which this process reaches a listener on `address`.
pub fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// Returns the URL for a browser on this machine.
pub fn url(address: SocketAddr) -> String {
    let ip = address.ip();
    if ip == Ipv4Addr::LOCALHOST || ip.is_unspecified() {
        format!("http://localhost:{}", address.port())
    } else {
        format!("http://{address}")
    }
}

/// Prints the addresses and how to send telemetry. `destination` is the endpoint that telemetry is forwarded to.
pub fn welcome(addresses: Addresses, destination: Option<&url::Url>) {
    let receivers: Vec<_> = [Some(addresses.http), addresses.grpc]
        .into_iter()
        .flatten()
        .map(url)
        .collect();
    telemetry::print(format!(
        r"
The observatory is running.

  Pages      {pages}
  OTLP       {receivers}, over HTTP and gRPC
  Health     {health}
  Forwarded  {destination}

Point a service in any language at it:

  export OTEL_EXPORTER_OTLP_ENDPOINT={http}

Stop with Ctrl-C.

",
        pages = url(addresses.pages),
        receivers = receivers.join(" and "),
        http = url(addresses.http),
        health = addresses.health.map_or("off".to_owned(), url),
        destination = destination.map_or("off".to_owned(), |url| format!("to {}", shown_endpoint(url))),
    ));
}
