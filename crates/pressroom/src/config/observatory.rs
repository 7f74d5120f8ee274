//! What the observatory's settings mean: where it listens, how much it keeps, and where it sends telemetry on to.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

use axum::http::{HeaderName, HeaderValue};
use observatory::{Config, Credentials, Forwarding, Secret};
use percent_encoding::percent_decode_str;
use url::{Host, Url};

use super::{
    ConfigError, Mode, ObservatoryOptions,
    parse::{parse, size},
};

/// The audience of tokens for Scout, as the collector's configuration has it too.
const SCOUT_AUDIENCE: &str = "b14collector";

/// The least that is of use: a few hundred traces.
const LEAST_MEMORY: u64 = 1 << 20;

/// A queue holds a request of the largest size that is received.
const LEAST_QUEUE: u64 = 16 << 20;

/// The observatory as `mode` has it; `None` where there is none.
pub(super) fn observatory(
    mode: Mode,
    options: ObservatoryOptions,
    data_dir: &Path,
) -> Result<Option<Config>, ConfigError> {
    let memory = match mode {
        // The service is beside it.
        Mode::Dev => "64MiB",
        Mode::Observatory | Mode::Probe => "256MiB",
        Mode::Serve | Mode::Worker | Mode::Migrate | Mode::Tasks => return Ok(None),
    };
    let host: IpAddr = parse(
        "OBSERVATORY_HOST",
        options.observatory_host.as_deref(),
        "127.0.0.1",
        "an IP address to listen on",
    )?;
    let address = |variable, given: &Option<String>, default| {
        let port: u16 = parse(variable, given.as_deref(), default, "a port number")?;
        Ok(SocketAddr::new(host, port))
    };
    let memory = size(
        "OBSERVATORY_MEMORY",
        options.observatory_memory.as_deref(),
        memory,
        LEAST_MEMORY,
    )?;
    let config = Config::default()
        .http(address(
            "OBSERVATORY_OTLP_HTTP_PORT",
            &options.observatory_otlp_http_port,
            "4318",
        )?)
        .grpc(address(
            "OBSERVATORY_OTLP_GRPC_PORT",
            &options.observatory_otlp_grpc_port,
            "4317",
        )?)
        .health(address(
            "OBSERVATORY_HEALTH_PORT",
            &options.observatory_health_port,
            "13133",
        )?)
        .pages(address("OBSERVATORY_PORT", &options.observatory_port, "4319")?)
        .memory(usize::try_from(memory).unwrap_or(usize::MAX));
    Ok(Some(match mode {
        // A probe only sends a request to the observatory, and forwards nothing.
        Mode::Probe => config,
        _ => config.forward(forwarding(options, data_dir)?),
    }))
}

fn forwarding(options: ObservatoryOptions, data_dir: &Path) -> Result<Option<Forwarding>, ConfigError> {
    let queue_limit = size(
        "OBSERVATORY_QUEUE_LIMIT",
        options.observatory_queue_limit.as_deref(),
        "256MiB",
        LEAST_QUEUE,
    )?;
    let queue = data_dir.join("observatory");
    let Some(endpoint) = options.observatory_forward_endpoint else {
        if options.observatory_forward_headers.is_some() {
            return Err(required(
                "OBSERVATORY_FORWARD_ENDPOINT",
                "OBSERVATORY_FORWARD_HEADERS",
            ));
        }
        return Ok(scout(options)?.map(|(endpoint, credentials, environment)| {
            Forwarding::new(endpoint, queue)
                .credentials(credentials)
                .environment(environment)
                .queue_limit(queue_limit)
        }));
    };
    if options.scout_endpoint.is_some() {
        let problem = "is set beside SCOUT_ENDPOINT; telemetry is sent on to one place";
        return Err(ConfigError::new("OBSERVATORY_FORWARD_ENDPOINT", problem));
    }
    let endpoint = http_url("OBSERVATORY_FORWARD_ENDPOINT", &endpoint)?;
    let headers = headers(options.observatory_forward_headers.as_deref().unwrap_or_default())?;
    let forwarding = Forwarding::new(endpoint, queue).queue_limit(queue_limit);
    let with_headers = |forwarding: Forwarding, (name, value)| forwarding.header(name, value);
    Ok(Some(headers.into_iter().fold(forwarding, with_headers)))
}

/// Scout's endpoint, who we are there, and our environment: all that it takes, or nothing of it.
fn scout(options: ObservatoryOptions) -> Result<Option<(Url, Credentials, String)>, ConfigError> {
    let given = [
        ("SCOUT_ENDPOINT", options.scout_endpoint),
        ("SCOUT_CLIENT_ID", options.scout_client_id),
        ("SCOUT_CLIENT_SECRET", options.scout_client_secret),
        ("SCOUT_TOKEN_URL", options.scout_token_url),
    ];
    let Some(&(first, _)) = given.iter().find(|(_, value)| value.is_some()) else {
        return Ok(None);
    };
    let [endpoint, client_id, client_secret, token_url] = given.map(|(variable, value)| match value {
        Some(value) => Ok(value),
        None => Err(required(variable, first)),
    });
    let endpoint = http_url("SCOUT_ENDPOINT", &endpoint?)?;
    // The first variable that is missing is reported, in the order above.
    let (client_id, client_secret) = (client_id?, Secret::new(client_secret?));
    let token_url = http_url("SCOUT_TOKEN_URL", &token_url?)?;
    let credentials = Credentials::new(token_url, client_id, client_secret).audience(SCOUT_AUDIENCE);
    let environment = options.scout_environment;
    Ok(Some((
        endpoint,
        credentials,
        environment.unwrap_or_else(|| "development".to_owned()),
    )))
}

fn required(variable: &'static str, with: &str) -> ConfigError {
    ConfigError::new(variable, format!("is required with {with}"))
}

/// A URL that may be shown, that a path can be appended to, and that is safe to send secrets to.
fn http_url(variable: &'static str, text: &str) -> Result<Url, ConfigError> {
    let refuse = |problem| Err(ConfigError::new(variable, problem));
    match Url::parse(text.trim()) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") => refuse("is no http:// or https:// URL"),
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            refuse("must hold no user and no password")
        }
        Ok(url) if url.query().is_some() || url.fragment().is_some() => {
            refuse("must hold neither a query nor a fragment")
        }
        Ok(url) if url.scheme() == "http" && !is_local(&url) => {
            refuse("must be https://, because it is not on this machine")
        }
        Ok(url) => Ok(url),
        Err(_) => refuse("is no http:// or https:// URL"),
    }
}

fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// `name=value` pairs with commas in between, percent-encoded where they hold one.
fn headers(text: &str) -> Result<Vec<(String, Secret)>, ConfigError> {
    let entries = text.split(',').filter(|entry| !entry.trim().is_empty());
    let headers = entries.map(|entry| {
        let (name, value) = entry.split_once('=')?;
        let name: HeaderName = name.trim().parse().ok()?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        HeaderValue::from_str(&value).ok()?;
        Some((name.to_string(), Secret::new(value)))
    });
    headers.collect::<Option<_>>().ok_or_else(|| {
        let problem = "is no list of name=value that can be sent as headers";
        ConfigError::new("OBSERVATORY_FORWARD_HEADERS", problem)
    })
}

#[cfg(test)]
mod tests;
