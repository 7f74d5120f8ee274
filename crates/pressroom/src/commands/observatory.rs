//! `pressroom observatory`: the observatory alone, for services in any language. The process exports no
//! telemetry about itself.

mod embedded;

use std::net::{Ipv4Addr, SocketAddr};

use observatory::{Addresses, BindError, Observatory};
use telemetry::Export;

pub(super) use self::embedded::Embedded;
use super::with_telemetry;
use crate::{
    config::{ObservatoryConfig, masked_url},
    lifecycle::Lifecycle,
};

const NAME: &str = "pressroom-observatory";

/// Runs until SIGTERM or Ctrl-C.
///
/// # Errors
/// Returns an error if the observatory cannot listen or a component fails.
pub fn observatory(config: ObservatoryConfig) -> anyhow::Result<()> {
    with_telemetry(NAME, None, Export::Never, &config.log.clone(), |_| run(config))
}

async fn run(config: ObservatoryConfig) -> anyhow::Result<()> {
    let settings = config.observatory;
    warn_without_login(settings.pages);
    let destination = settings.forward.as_ref().map(|forward| forward.endpoint.clone());
    let observatory = Observatory::bind(settings.clone())
        .await
        .map_err(|error| cannot_listen(&settings, error))?;
    let addresses = observatory.addresses();
    let mut lifecycle = Lifecycle::new();
    let shutdown = lifecycle.shutdown();
    lifecycle.spawn("observatory", async move { Ok(observatory.run(shutdown).await?) });
    welcome(addresses, destination);
    lifecycle.run(config.shutdown_grace, || {}).await
}

/// Logs a warning if other machines can reach the pages, which have no login.
fn warn_without_login(pages: SocketAddr) {
    if !pages.ip().is_loopback() {
        telemetry::warn!(
            listener.address = %pages.ip(),
            "OBSERVATORY_HOST: there is no login; anyone who reaches this address can read and add telemetry"
        );
    }
}

/// Adds the name of the setting that the address comes from.
fn cannot_listen(settings: &observatory::Config, error: BindError) -> anyhow::Error {
    let variable = [
        ("OBSERVATORY_OTLP_HTTP_PORT", Some(settings.http)),
        ("OBSERVATORY_OTLP_GRPC_PORT", settings.grpc),
        ("OBSERVATORY_HEALTH_PORT", settings.health),
    ]
    .into_iter()
    .find(|(_, address)| *address == Some(error.address))
    .map_or("OBSERVATORY_PORT", |(variable, _)| variable);
    anyhow::Error::new(error).context(variable)
}

/// Returns the URL for a browser on this machine.
fn url(address: SocketAddr) -> String {
    let ip = address.ip();
    if ip == Ipv4Addr::LOCALHOST || ip.is_unspecified() {
        format!("http://localhost:{}", address.port())
    } else {
        format!("http://{address}")
    }
}

/// Prints the addresses and how to send telemetry.
fn welcome(addresses: Addresses, destination: Option<url::Url>) {
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
        destination = destination.map_or("off".to_owned(), |url| format!("to {}", masked_url(&url))),
    ));
}
