//! The observatory alone, for services in any language. It exports no telemetry of its own: it is where telemetry goes.

mod embedded;

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::Context as _;
use observatory::{Addresses, BindError, Observatory};
use telemetry::Export;

pub(super) use self::embedded::Embedded;
use super::{GRACE_MARGIN, with_telemetry};
use crate::{
    config::Config,
    lifecycle::{Ending, Lifecycle},
};

const NAME: &str = "pressroom-observatory";

/// Runs until SIGTERM or Ctrl-C.
///
/// # Errors
/// When it cannot listen, or when a part fails.
pub fn observatory(config: Config) -> anyhow::Result<()> {
    with_telemetry(NAME, Export::Never, |_| run(config))
}

async fn run(config: Config) -> anyhow::Result<()> {
    let settings = config.observatory.context("no observatory in this mode")?;
    warn_of_strangers(settings.pages);
    let destination = settings.forward.as_ref().map(|forward| forward.endpoint.clone());
    let observatory = Observatory::bind(settings.clone())
        .await
        .map_err(|error| cannot_listen(&settings, error))?;
    let addresses = observatory.addresses();
    let mut lifecycle = Lifecycle::new();
    let shutdown = lifecycle.shutdown();
    lifecycle.spawn("observatory", async move { Ok(observatory.run(shutdown).await?) });
    welcome(addresses, destination)?;
    let ending = Ending {
        delay: Duration::ZERO,
        grace: config.shutdown_grace + GRACE_MARGIN,
    };
    lifecycle.run(ending, || {}).await
}

/// Says that there is no login, where others than this machine's users may come.
fn warn_of_strangers(pages: SocketAddr) {
    if !pages.ip().is_loopback() {
        telemetry::warn!(
            address = %pages.ip(),
            "OBSERVATORY_HOST: there is no login; whoever reaches this address reads and adds telemetry"
        );
    }
}

/// With the name of the setting that helps.
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

/// The address for a browser on this machine.
fn url(address: SocketAddr) -> String {
    let ip = address.ip();
    if ip == Ipv4Addr::LOCALHOST || ip.is_unspecified() {
        format!("http://localhost:{}", address.port())
    } else {
        format!("http://{address}")
    }
}

/// Tells where to look and how to send something.
fn welcome(addresses: Addresses, destination: Option<url::Url>) -> anyhow::Result<()> {
    let optional = |address: Option<SocketAddr>| address.map_or("off".to_owned(), url);
    let text = format!(
        r"
The observatory is running.

  Pages      {pages}
  OTLP       {http} (HTTP), {grpc} (gRPC)
  Health     {health}
  Sent on    {destination}

Point a service in any language at it:

  export OTEL_EXPORTER_OTLP_ENDPOINT={http}

Stop with Ctrl-C.

",
        pages = url(addresses.pages),
        http = url(addresses.http),
        grpc = optional(addresses.grpc),
        health = optional(addresses.health),
        destination = destination.map_or("nowhere".to_owned(), |url| format!("to {url}")),
    );
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}
