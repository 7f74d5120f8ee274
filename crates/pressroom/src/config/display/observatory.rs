//! The observatory's settings in effect.

use std::{fmt, net::SocketAddr};

use observatory::{Config, Credentials, Forwarding};

use super::line;

/// One `NAME=value` a line, secrets masked.
pub(super) fn observatory(f: &mut fmt::Formatter<'_>, config: &Config) -> fmt::Result {
    let port = |address: SocketAddr| Some(address.port().to_string());
    line(f, "OBSERVATORY_HOST", Some(config.pages.ip().to_string()))?;
    line(f, "OBSERVATORY_PORT", port(config.pages))?;
    line(f, "OBSERVATORY_OTLP_HTTP_PORT", port(config.http))?;
    line(f, "OBSERVATORY_OTLP_GRPC_PORT", config.grpc.and_then(port))?;
    line(f, "OBSERVATORY_HEALTH_PORT", config.health.and_then(port))?;
    let memory = u64::try_from(config.memory).unwrap_or(u64::MAX);
    line(f, "OBSERVATORY_MEMORY", Some(size(memory)))?;

    let forward = config.forward.as_ref();
    let scout = forward.and_then(|forward| Some((forward, forward.credentials.as_ref()?)));
    let other = forward.filter(|_| scout.is_none());
    line(
        f,
        "OBSERVATORY_FORWARD_ENDPOINT",
        other.map(|forward| forward.endpoint.to_string()),
    )?;
    line(f, "OBSERVATORY_FORWARD_HEADERS", other.and_then(headers))?;
    line(
        f,
        "OBSERVATORY_QUEUE_LIMIT",
        forward.map(|forward| size(forward.queue_limit)),
    )?;
    let of_scout = |text: fn(&Forwarding, &Credentials) -> Option<String>| {
        scout.and_then(|(forward, credentials)| text(forward, credentials))
    };
    line(
        f,
        "SCOUT_ENDPOINT",
        of_scout(|forward, _| Some(forward.endpoint.to_string())),
    )?;
    line(
        f,
        "SCOUT_CLIENT_ID",
        of_scout(|_, client| Some(client.client_id.clone())),
    )?;
    line(f, "SCOUT_CLIENT_SECRET", of_scout(|_, _| Some("***".to_owned())))?;
    line(
        f,
        "SCOUT_TOKEN_URL",
        of_scout(|_, client| Some(client.token_url.to_string())),
    )?;
    line(
        f,
        "SCOUT_ENVIRONMENT",
        of_scout(|forward, _| forward.environment.clone()),
    )
}

/// The names of the headers.
fn headers(forward: &Forwarding) -> Option<String> {
    let headers: Vec<_> = forward
        .headers
        .iter()
        .map(|(name, _)| format!("{name}=***"))
        .collect();
    (!headers.is_empty()).then(|| headers.join(","))
}

/// In the largest unit that leaves a whole number.
fn size(bytes: u64) -> String {
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
        .into_iter()
        .find(|(_, unit)| bytes.is_multiple_of(*unit))
        .map_or_else(
            || bytes.to_string(),
            |(name, unit)| format!("{}{name}", bytes / unit),
        )
}
