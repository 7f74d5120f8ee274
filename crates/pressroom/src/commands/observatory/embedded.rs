//! The observatory in the process of the service that it shows. It has a thread of its own: it listens before telemetry
//! is set up, and is there until the last of it has arrived. Where telemetry goes elsewhere, it stays off.

use std::{
    net::SocketAddr,
    thread::{self, JoinHandle},
};

use anyhow::Context as _;
use observatory::{Addresses, BindError, Observatory};
use telemetry::Export;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::{cannot_listen, url, warn_of_strangers};
use crate::commands::{install_cryptography, reachable};

/// What becomes of the telemetry of the service in this process.
pub(in crate::commands) enum Embedded {
    Here(Box<Running>),
    /// A variable decides.
    AsSaid(String),
    /// Something receives at the observatory's address already: a collector, or another observatory.
    Received(SocketAddr),
    /// There is nowhere to show it.
    PagesTaken(SocketAddr),
}

/// An observatory that listens and serves.
pub(in crate::commands) struct Running {
    addresses: Addresses,
    /// Where it sends everything on to.
    destination: Option<url::Url>,
    shutdown: CancellationToken,
    thread: JoinHandle<()>,
}

impl Embedded {
    /// Listens and serves, unless telemetry goes elsewhere.
    ///
    /// # Errors
    /// When an address cannot be listened on for another reason than that something else does.
    pub(in crate::commands) fn start(settings: observatory::Config) -> anyhow::Result<Self> {
        if let Some(variable) = telemetry::decided_by() {
            return Ok(Self::AsSaid(variable));
        }
        install_cryptography();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("no runtime")?;
        let observatory = match runtime.block_on(bind(settings.clone())) {
            Ok(observatory) => observatory,
            Err(error) if error.is_in_use() && error.address == settings.http => {
                return Ok(Self::Received(reachable(error.address)));
            }
            Err(error) if error.is_in_use() => return Ok(Self::PagesTaken(error.address)),
            Err(error) => return Err(cannot_listen(&settings, error)),
        };
        let addresses = observatory.addresses();
        let shutdown = CancellationToken::new();
        let thread = spawn(runtime, observatory, shutdown.clone())?;
        Ok(Self::Here(Box::new(Running {
            addresses,
            destination: settings.forward.map(|forward| forward.endpoint),
            shutdown,
            thread,
        })))
    }

    /// Where the service exports to.
    pub(in crate::commands) fn export(&self) -> Export {
        match self {
            Self::Here(running) => Export::Nearby(reachable(running.addresses.http)),
            Self::Received(address) => Export::Nearby(*address),
            Self::AsSaid(_) | Self::PagesTaken(_) => Export::WhenConfigured,
        }
    }

    /// One line for whoever started the service. To be said when logging is set up.
    pub(in crate::commands) fn introduce(&self) -> String {
        match self {
            Self::Here(running) => {
                warn_of_strangers(running.addresses.pages);
                let pages = url(running.addresses.pages);
                match &running.destination {
                    Some(destination) => format!("{pages}, sent on to {destination}"),
                    None => pages,
                }
            }
            Self::AsSaid(variable) => format!("as {variable} says; the observatory is off"),
            Self::Received(address) => {
                format!("to {address}, where something receives already; the observatory is off")
            }
            Self::PagesTaken(address) => {
                format!("nowhere: {address} is taken; OBSERVATORY_PORT names another port")
            }
        }
    }

    /// Ends it; what has arrived is kept where it is to be sent on.
    pub(in crate::commands) fn stop(self) {
        if let Self::Here(running) = self {
            running.shutdown.cancel();
            // It has logged why, if it failed.
            running.thread.join().ok();
        }
    }
}

/// gRPC and health are for others than this process: without their ports it goes on.
async fn bind(mut settings: observatory::Config) -> Result<Observatory, BindError> {
    loop {
        match Observatory::bind(settings.clone()).await {
            Err(error) if error.is_in_use() && settings.grpc == Some(error.address) => settings.grpc = None,
            Err(error) if error.is_in_use() && settings.health == Some(error.address) => {
                settings.health = None;
            }
            result => return result,
        }
    }
}

/// A failure ends the observatory, never the service.
fn spawn(
    runtime: Runtime,
    observatory: Observatory,
    shutdown: CancellationToken,
) -> anyhow::Result<JoinHandle<()>> {
    let serve = move || {
        if let Err(error) = runtime.block_on(observatory.run(shutdown)) {
            telemetry::error!(%error, "the observatory ended");
        }
    };
    let thread = thread::Builder::new().name("observatory".to_owned());
    thread.spawn(serve).context("no thread for the observatory")
}
