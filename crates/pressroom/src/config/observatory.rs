//! Settings of the observatory: its addresses, its memory, and the endpoint that it forwards telemetry to.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::http::{HeaderName, HeaderValue};
use observatory::{Config, Credentials, Forwarding, Secret};
use percent_encoding::percent_decode_str;
use url::{Host, Url};

use super::{
    error::ConfigError,
    given::Configuration,
    parts::{address, data_dir},
    reader::Reader,
    setting::{
        Fallback::{self, Fixed},
        Setting,
    },
    settings::*,
};

settings! { ALL:
    OBSERVATORY_OTLP_HTTP_PORT, "observatory-otlp-http-port", "PORT", Fixed("4318"),
        "Port that receives OTLP over HTTP";
    OBSERVATORY_OTLP_GRPC_PORT, "observatory-otlp-grpc-port", "PORT", Fixed("4317"),
        "Port that receives OTLP over gRPC";
    OBSERVATORY_HEALTH_PORT, "observatory-health-port", "PORT", Fixed("13133"),
        "Port of the health check; the default is that of the OpenTelemetry Collector";
    OBSERVATORY_MEMORY, "observatory-memory", "SIZE", Fixed("256MiB"),
        "Memory for telemetry, for example 64MiB or 1GiB";
    OBSERVATORY_FORWARD_ENDPOINT, "observatory-forward-endpoint", "URL", Fallback::None,
        "OTLP/HTTP endpoint that received telemetry is forwarded to";
    OBSERVATORY_FORWARD_HEADERS, "observatory-forward-headers", "NAME=VALUE,...", Fallback::None,
        "Headers of forwarded requests, percent-encoded as in OTEL_EXPORTER_OTLP_HEADERS";
    OBSERVATORY_QUEUE_LIMIT, "observatory-queue-limit", "SIZE", Fixed("256MiB"),
        "Maximum size of the telemetry in DATA_DIR that waits to be forwarded";
    SCOUT_ENDPOINT, "scout-endpoint", "URL", Fallback::None,
        "OTLP endpoint of base14 Scout that received telemetry is forwarded to; requires the next three";
    SCOUT_CLIENT_ID, "scout-client-id", "TEXT", Fallback::None, "OAuth2 client id for Scout";
    SCOUT_CLIENT_SECRET, "scout-client-secret", "TEXT", Fallback::None, "OAuth2 client secret for Scout";
    SCOUT_TOKEN_URL, "scout-token-url", "URL", Fallback::None, "OAuth2 token endpoint of Scout";
    SCOUT_ENVIRONMENT, "scout-environment", "NAME", Fixed("development"), "Deployment environment in Scout";
}

/// Audience of tokens for Scout, as in the collector's configuration.
const SCOUT_AUDIENCE: &str = "b14collector";

/// Minimum memory, in bytes: a few hundred traces.
const MIN_MEMORY: u64 = 1 << 20;

/// Minimum size of the queue, in bytes: one request of the maximum size that is received.
const MIN_QUEUE: u64 = 16 << 20;

const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Configuration of `pressroom observatory`.
#[derive(Debug, Clone)]
pub struct ObservatoryConfig {
    pub observatory: Config,
    pub shutdown_grace: Duration,
}

impl Configuration for ObservatoryConfig {
    fn settings() -> Vec<Setting> {
        [&[DATA_DIR, SHUTDOWN_GRACE][..], &ObservatorySettings::ALL].concat()
    }

    fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        let data_dir: PathBuf = data_dir(reader);
        Ok(Self {
            observatory: ObservatorySettings::read(reader, OBSERVATORY_MEMORY, &data_dir)?,
            shutdown_grace: reader.seconds(SHUTDOWN_GRACE)?,
        })
    }
}

/// The settings that embedded mode and `pressroom observatory` share.
pub(super) struct ObservatorySettings;

impl ObservatorySettings {
    pub(super) const ALL: [Setting; 14] = Self::with(OBSERVATORY_MEMORY);
    pub(super) const EMBEDDED: [Setting; 14] = Self::with(OBSERVATORY_MEMORY.or("64MiB"));

    const fn with(memory: Setting) -> [Setting; 14] {
        [
            OBSERVATORY_HOST,
            OBSERVATORY_PORT,
            OBSERVATORY_OTLP_HTTP_PORT,
            OBSERVATORY_OTLP_GRPC_PORT,
            OBSERVATORY_HEALTH_PORT,
            memory,
            OBSERVATORY_FORWARD_ENDPOINT,
            OBSERVATORY_FORWARD_HEADERS,
            OBSERVATORY_QUEUE_LIMIT,
            SCOUT_ENDPOINT,
            SCOUT_CLIENT_ID,
            SCOUT_CLIENT_SECRET,
            SCOUT_TOKEN_URL,
            SCOUT_ENVIRONMENT,
        ]
    }

    pub(super) fn read(reader: &mut Reader, memory: Setting, data_dir: &Path) -> Result<Config, ConfigError> {
        let pages = address(reader, OBSERVATORY_HOST, OBSERVATORY_PORT)?;
        let mut port = |setting| {
            let port: u16 = reader.parse(setting, "a port number")?;
            Ok(SocketAddr::new(pages.ip(), port))
        };
        let config = Config::default()
            .pages(pages)
            .http(port(OBSERVATORY_OTLP_HTTP_PORT)?)
            .grpc(port(OBSERVATORY_OTLP_GRPC_PORT)?)
            .health(port(OBSERVATORY_HEALTH_PORT)?)
            .memory(usize::try_from(size(reader, memory, MIN_MEMORY)?).unwrap_or(usize::MAX));
        Ok(config.forward(forwarding(reader, data_dir)?))
    }
}

fn forwarding(reader: &mut Reader, data_dir: &Path) -> Result<Option<Forwarding>, ConfigError> {
    let url = |text: &str| http_url(text).map(|url| (url.clone(), url.to_string()));
    let endpoint = reader.optional(OBSERVATORY_FORWARD_ENDPOINT, url)?;
    let headers = reader.optional(OBSERVATORY_FORWARD_HEADERS, headers)?;
    let queue_limit = size(reader, OBSERVATORY_QUEUE_LIMIT, MIN_QUEUE)?;
    let scout_endpoint = reader.optional(SCOUT_ENDPOINT, url)?;
    let client_id = reader.text(SCOUT_CLIENT_ID);
    let client_secret = reader.secret(SCOUT_CLIENT_SECRET);
    let token_url = reader.optional(SCOUT_TOKEN_URL, url)?;
    let environment = reader.text(SCOUT_ENVIRONMENT);

    let queue = data_dir.join("observatory");
    if let Some(endpoint) = endpoint {
        if scout_endpoint.is_some() {
            let problem = "is set together with SCOUT_ENDPOINT; unset one of them";
            return Err(ConfigError::new("OBSERVATORY_FORWARD_ENDPOINT", problem));
        }
        let forwarding = Forwarding::new(endpoint, queue).queue_limit(queue_limit);
        let with_header = |forwarding: Forwarding, (name, value)| forwarding.header(name, value);
        let headers = headers.unwrap_or_default().into_iter();
        return Ok(Some(headers.fold(forwarding, with_header)));
    }
    if headers.is_some() {
        return Err(required(
            "OBSERVATORY_FORWARD_ENDPOINT",
            "OBSERVATORY_FORWARD_HEADERS",
        ));
    }
    let given = [
        ("SCOUT_ENDPOINT", scout_endpoint.is_some()),
        ("SCOUT_CLIENT_ID", client_id.is_some()),
        ("SCOUT_CLIENT_SECRET", client_secret.is_some()),
        ("SCOUT_TOKEN_URL", token_url.is_some()),
    ];
    let Some((first, _)) = given.iter().find(|(_, is_given)| *is_given) else {
        return Ok(None);
    };
    let [endpoint, id, secret, token] = given.map(|(variable, _)| move || required(variable, first));
    let endpoint = scout_endpoint.ok_or_else(endpoint)?;
    let client_id = client_id.ok_or_else(id)?;
    let client_secret = Secret::new(client_secret.ok_or_else(secret)?.expose());
    let token_url = token_url.ok_or_else(token)?;
    let credentials = Credentials::new(token_url, client_id, client_secret).audience(SCOUT_AUDIENCE);
    Ok(Some(
        Forwarding::new(endpoint, queue)
            .credentials(credentials)
            .environment(environment.unwrap_or_default())
            .queue_limit(queue_limit),
    ))
}

fn required(variable: &'static str, with: &str) -> ConfigError {
    ConfigError::new(variable, format!("is required with {with}"))
}

/// Reads a number of bytes: `1048576`, `1024KiB`, `1MiB` or `1GiB`.
fn size(reader: &mut Reader, setting: Setting, least: u64) -> Result<u64, ConfigError> {
    reader.required(setting, |text| {
        let text = text.trim();
        let (number, unit) = UNITS
            .into_iter()
            .find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))
            .unwrap_or((text, 1));
        let size = number.trim_end().parse::<u64>().ok();
        let size = size.and_then(|number| number.checked_mul(unit));
        let size = size.filter(|size| *size >= least);
        let size =
            size.ok_or_else(|| format!("{text:?} is not a size of at least {least} bytes, such as 64MiB"))?;
        let shown = UNITS
            .into_iter()
            .find(|(_, unit)| size.is_multiple_of(*unit))
            .map_or_else(
                || size.to_string(),
                |(name, unit)| format!("{}{name}", size / unit),
            );
        Ok::<_, String>((size, shown))
    })
}

/// Parses a URL that contains no secret and is safe to send secrets to.
fn http_url(text: &str) -> Result<Url, &'static str> {
    match Url::parse(text.trim()) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") => Err("is not an http:// or https:// URL"),
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            Err("must not contain a user or password")
        }
        Ok(url) if url.query().is_some() || url.fragment().is_some() => {
            Err("must not contain a query or fragment")
        }
        Ok(url) if url.scheme() == "http" && !is_local(&url) => {
            Err("must be an https:// URL, because it is not on this machine")
        }
        Ok(url) => Ok(url),
        Err(_) => Err("is not an http:// or https:// URL"),
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

type Headers = Vec<(String, Secret)>;

/// Parses comma-separated, percent-encoded `name=value` pairs; shows the names.
fn headers(text: &str) -> Result<(Headers, String), &'static str> {
    let entries = text.split(',').filter(|entry| !entry.trim().is_empty());
    let headers = entries.map(|entry| {
        let (name, value) = entry.split_once('=')?;
        let name: HeaderName = name.trim().parse().ok()?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        HeaderValue::from_str(&value).ok()?;
        Some((name.to_string(), Secret::new(value)))
    });
    let headers: Option<Headers> = headers.collect();
    let headers = headers.ok_or("is not a list of name=value pairs that can be sent as headers")?;
    let shown: Vec<_> = headers.iter().map(|(name, _)| format!("{name}=***")).collect();
    Ok((headers, shown.join(",")))
}

#[cfg(test)]
mod tests;
