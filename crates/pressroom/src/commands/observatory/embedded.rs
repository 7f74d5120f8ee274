//! The observatory in embedded mode, on its own thread. It starts before telemetry is set up and stops after the
//! last telemetry has been received. If telemetry is exported elsewhere, the observatory is off.

use std::{
    net::SocketAddr,
    thread::{self, JoinHandle},
};

use anyhow::Context as _;
use observatory::{
    Addresses, BindError, FirstStep, FirstSteps, Observatory,
    cli::{
        OBSERVATORY_HEALTH_PORT, OBSERVATORY_OTLP_GRPC_PORT, cannot_listen, reachable, url,
        warn_without_login,
    },
};
use telemetry::Export;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::{
    commands::{current_thread, install_cryptography},
    config::masked_url,
};

/// Commands with which a newcomer creates the first telemetry, with `API` in place of the service's URL.
const FIRST_STEPS: [(&str, &str); 3] = [
    (
        "Register:",
        r#"curl -s -X POST API/register \
  -H 'Content-Type: application/json' \
  -d '{"email": "alice@example.com", "name": "Alice",
       "password": "password123"}'"#,
    ),
    (
        "Log in and store the token in a shell variable:",
        r#"TOKEN=$(curl -s -X POST API/login \
  -H 'Content-Type: application/json' \
  -d '{"email": "alice@example.com", "password": "password123"}' |
  sed 's/.*"access_token":"\([^"]*\)".*/\1/')"#,
    ),
    (
        "Create an article; a worker sends the notifications:",
        r#"curl -s -X POST API/articles/ \
  -H "Authorization: Bearer $TOKEN" \
  -H 'Content-Type: application/json' \
  -d '{"title": "My Article", "description": "A brief description",
       "body": "Article content here"}'"#,
    ),
];

/// Destination of the telemetry of the service in this process.
pub(in crate::commands) enum Embedded {
    /// The embedded observatory.
    Here(Box<Running>),
    /// The destination that this variable sets.
    Configured(String),
    /// The process that already listens at the observatory's address: a collector or another observatory.
    Other(SocketAddr),
    /// No destination, because this address of the pages is already in use.
    PagesInUse(SocketAddr),
}

/// A running observatory.
pub(in crate::commands) struct Running {
    addresses: Addresses,
    first_steps: FirstSteps,
    /// The endpoint that telemetry is forwarded to.
    destination: Option<url::Url>,
    /// Addresses that were already in use, and the settings that change them.
    in_use: Vec<(SocketAddr, &'static str)>,
    shutdown: CancellationToken,
    thread: JoinHandle<()>,
}

impl Embedded {
    /// Starts the observatory, unless telemetry is exported elsewhere.
    ///
    /// # Errors
    /// Returns an error if an address cannot be bound, unless it is already in use.
    pub(in crate::commands) fn start(settings: observatory::Config) -> anyhow::Result<Self> {
        if let Some(variable) = telemetry::destination_variable() {
            return Ok(Self::Configured(variable));
        }
        install_cryptography();
        let runtime = current_thread()?;
        let (observatory, in_use) = match runtime.block_on(bind(settings.clone())) {
            Ok(bound) => bound,
            Err(error) if error.is_in_use() && error.address == settings.http => {
                return Ok(Self::Other(reachable(error.address)));
            }
            Err(error) if error.is_in_use() => return Ok(Self::PagesInUse(error.address)),
            Err(error) => return Err(cannot_listen(&settings, &error).into()),
        };
        let (addresses, first_steps) = (observatory.addresses(), observatory.first_steps());
        let shutdown = CancellationToken::new();
        let thread = spawn(runtime, observatory, shutdown.clone())?;
        Ok(Self::Here(Box::new(Running {
            addresses,
            first_steps,
            destination: settings.forward.map(|forward| forward.endpoint),
            in_use,
            shutdown,
            thread,
        })))
    }

    /// Returns the destination to which the service exports.
    pub(in crate::commands) fn export(&self) -> Export {
        match self {
            Self::Here(running) => Export::LocalReceiver(reachable(running.addresses.http)),
            Self::Other(address) => Export::LocalReceiver(*address),
            Self::Configured(_) | Self::PagesInUse(_) => Export::WhenConfigured,
        }
    }

    /// Describes the destination in lines of the start-up message, and logs a warning if other machines can reach the
    /// pages. The first page then shows how to call the API at `api`. Call after logging is set up.
    pub(in crate::commands) fn introduce(&self, api: &str) -> String {
        match self {
            Self::Here(running) => {
                let step = |(text, command): (&str, &str)| {
                    FirstStep::new(text, command.replace("API", &format!("{api}/api")))
                };
                running.first_steps.set(FIRST_STEPS.map(step));
                warn_without_login(running.addresses.pages);
                let pages = url(running.addresses.pages);
                let pages = match &running.destination {
                    Some(destination) => format!("{pages}, forwarded to {}", masked_url(destination)),
                    None => pages,
                };
                format!("{pages}\n  OTLP       {}", running.receivers())
            }
            Self::Configured(variable) => format!("set by {variable}; the observatory is off"),
            Self::Other(address) => {
                format!(
                    "exported to {address}, which is already in use; the observatory is off \
                     (to start it, set OBSERVATORY_OTLP_HTTP_PORT to another port)"
                )
            }
            Self::PagesInUse(address) => {
                format!("off: {address} is already in use; set OBSERVATORY_PORT to another port")
            }
        }
    }

    /// Stops the observatory; telemetry waiting to be forwarded is kept.
    pub(in crate::commands) fn stop(self) {
        if let Self::Here(running) = self {
            running.shutdown.cancel();
            // The thread has logged its failure.
            running.thread.join().ok();
        }
    }
}

impl Running {
    /// Lists the addresses for other services, and the ports that were already in use.
    fn receivers(&self) -> String {
        let mut text = url(self.addresses.http);
        if let Some(grpc) = self.addresses.grpc {
            text += &format!(", {}", url(grpc));
        }
        for (address, variable) in &self.in_use {
            text += &format!("; {address} is already in use, set {variable} to another port");
        }
        text
    }
}

/// Binds the observatory, without gRPC or the health check if their ports are in use: this process does not need
/// them. Also returns these addresses, with the settings that change them.
async fn bind(
    mut settings: observatory::Config,
) -> Result<(Observatory, Vec<(SocketAddr, &'static str)>), BindError> {
    let mut in_use = Vec::new();
    loop {
        match Observatory::bind(settings.clone()).await {
            Err(error) if error.is_in_use() && settings.grpc == Some(error.address) => {
                settings.grpc = None;
                in_use.push((error.address, OBSERVATORY_OTLP_GRPC_PORT.variable));
            }
            Err(error) if error.is_in_use() && settings.health == Some(error.address) => {
                settings.health = None;
                in_use.push((error.address, OBSERVATORY_HEALTH_PORT.variable));
            }
            result => return result.map(|observatory| (observatory, in_use)),
        }
    }
}

/// Runs the observatory on a new thread; a failure does not stop the service.
fn spawn(
    runtime: Runtime,
    observatory: Observatory,
    shutdown: CancellationToken,
) -> anyhow::Result<JoinHandle<()>> {
    let serve = move || {
        if let Err(error) = runtime.block_on(observatory.run(shutdown)) {
            telemetry::error!(%error, "the observatory failed");
        }
    };
    let thread = thread::Builder::new().name("observatory".to_owned());
    thread
        .spawn(serve)
        .context("cannot start the observatory's thread")
}
