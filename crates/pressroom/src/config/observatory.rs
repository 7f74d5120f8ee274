//! Settings of the observatory: its addresses, its memory, and the endpoint that it forwards telemetry to.

use std::{net::SocketAddr, time::Duration};

use axum::http::{HeaderName, HeaderValue};
use observatory::{Config, Credentials, Forwarding, Secret};
use percent_encoding::percent_decode_str;
use url::{Host, Url};

use super::{
    error::{ConfigError, Result},
    given::{Configuration, configuration},
    parts::{LogConfig, address, data_dir},
    reader::Reader,
    secret::masked_url,
    setting::{
        Fallback::{self, Fixed},
        Setting,
    },
    settings::*,
};

settings! { OWN:
    OBSERVATORY_OTLP_HTTP_PORT, "observatory-otlp-http-port", "PORT", Fixed("4318"),
        "Port that receives OTLP over HTTP and gRPC";
    OBSERVATORY_OTLP_GRPC_PORT, "observatory-otlp-grpc-port", "PORT", Fixed("4317"),
        "Second port that receives OTLP over HTTP and gRPC, the usual one of gRPC";
    OBSERVATORY_HEALTH_PORT, "observatory-health-port", "PORT", Fixed("13133"),
        "Port of the health check; the default is the OpenTelemetry Collector's";
    OBSERVATORY_ALLOWED_HOSTS, "observatory-allowed-hosts", "HOST,...", Fallback::None,
        "Host names of the observatory besides localhost and names without a dot";
    OBSERVATORY_ALLOWED_ORIGINS, "observatory-allowed-origins", "ORIGIN,...", Fallback::None,
        "Origins of web pages that may send telemetry besides those of this machine; * for all";
    OBSERVATORY_MEMORY, "observatory-memory", "SIZE", Fixed("256MiB"),
        "Memory for telemetry, for example 64MiB or 1GiB";
    OBSERVATORY_MASK, "observatory-mask", "on|off", Fixed("on"),
        "Whether the pages mask e-mail addresses and tokens; forwarded telemetry is always masked";
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

/// Minimum size of the queue, in bytes: the maximum size of a received request.
const MIN_QUEUE: u64 = 16 << 20;

const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

configuration! {
    /// Configuration of `pressroom observatory`.
    ObservatoryConfig {
        observatory: Config;
        shutdown_grace: Duration = Reader::seconds[SHUTDOWN_GRACE];
        log: LogConfig;
    }
}

impl Configuration for Config {
    fn settings() -> Vec<Setting> {
        [&[DATA_DIR, OBSERVATORY_HOST, OBSERVATORY_PORT], OWN].concat()
    }

    fn read(reader: &mut Reader) -> Result<Self> {
        read(reader, OBSERVATORY_MEMORY)
    }
}

/// Configuration of the observatory in embedded mode: less memory, and `DATA_DIR` among the settings of
/// [`DevConfig`](super::DevConfig).
#[derive(Debug, Clone)]
pub struct EmbeddedObservatory(pub Config);

impl EmbeddedObservatory {
    const MEMORY: Setting = OBSERVATORY_MEMORY.or("64MiB");
}

impl Configuration for EmbeddedObservatory {
    fn settings() -> Vec<Setting> {
        let mut settings = Config::settings();
        settings
            .retain(|setting| ![DATA_DIR.variable, OBSERVATORY_MEMORY.variable].contains(&setting.variable));
        settings.push(Self::MEMORY);
        settings
    }

    fn read(reader: &mut Reader) -> Result<Self> {
        read(reader, Self::MEMORY).map(Self)
    }
}

fn read(reader: &mut Reader, memory: Setting) -> Result<Config> {
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
        .memory(usize::try_from(size(reader, memory, MIN_MEMORY)?).unwrap_or(usize::MAX))
        .mask(reader.switch(OBSERVATORY_MASK)?)
        .allowed_hosts(list(reader, OBSERVATORY_ALLOWED_HOSTS))
        .allowed_origins(list(reader, OBSERVATORY_ALLOWED_ORIGINS));
    Ok(config.forward(forwarding(reader)?))
}

/// Reads a list of names separated by commas.
fn list(reader: &mut Reader, setting: Setting) -> Vec<String> {
    let text = reader.text(setting).unwrap_or_default();
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

fn forwarding(reader: &mut Reader) -> Result<Option<Forwarding>> {
    let url = |text: &str| {
        http_url(text).map(|url| {
            let shown = masked_url(&url);
            (url, shown)
        })
    };
    let endpoint = reader.optional(OBSERVATORY_FORWARD_ENDPOINT, url)?;
    let headers = reader.optional(OBSERVATORY_FORWARD_HEADERS, headers)?;
    let queue_limit = size(reader, OBSERVATORY_QUEUE_LIMIT, MIN_QUEUE)?;
    let scout_endpoint = reader.optional(SCOUT_ENDPOINT, url)?;
    let client_id = reader.text(SCOUT_CLIENT_ID);
    let client_secret = reader.secret(SCOUT_CLIENT_SECRET);
    let token_url = reader.optional(SCOUT_TOKEN_URL, url)?;
    let environment = reader.text(SCOUT_ENVIRONMENT);

    let queue = data_dir(reader, DATA_DIR)?.join("observatory");
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
        let required = ConfigError::required_with(OBSERVATORY_FORWARD_ENDPOINT, OBSERVATORY_FORWARD_HEADERS);
        return Err(required);
    }
    let scout = [
        (SCOUT_ENDPOINT, scout_endpoint.is_some()),
        (SCOUT_CLIENT_ID, client_id.is_some()),
        (SCOUT_CLIENT_SECRET, client_secret.is_some()),
        (SCOUT_TOKEN_URL, token_url.is_some()),
    ];
    let given = scout.iter().find(|(_, is_given)| *is_given);
    let missing = scout.iter().find(|(_, is_given)| !is_given);
    if let (Some((given, _)), Some((missing, _))) = (given, missing) {
        return Err(ConfigError::required_with(*missing, *given));
    }
    let (Some(endpoint), Some(client_id), Some(client_secret), Some(token_url)) =
        (scout_endpoint, client_id, client_secret, token_url)
    else {
        return Ok(None);
    };
    let client_secret = Secret::new(client_secret.expose());
    let credentials = Credentials::new(token_url, client_id, client_secret).audience(SCOUT_AUDIENCE);
    let forwarding = Forwarding::new(endpoint, queue)
        .credentials(credentials)
        .environment(environment.unwrap_or_default())
        .queue_limit(queue_limit);
    Ok(Some(forwarding))
}

/// Reads a number of bytes: `1048576`, `1024KiB`, `1MiB` or `1GiB`.
fn size(reader: &mut Reader, setting: Setting, least: u64) -> Result<u64> {
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

/// Parses a URL that contains no secret and that secrets can be sent to.
fn http_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text.trim()).ok();
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https"));
    let url = url.ok_or("is not an http:// or https:// URL")?;
    let is_local = match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    if !url.username().is_empty() || url.password().is_some() {
        Err("must not contain a user or password")
    } else if url.query().is_some() || url.fragment().is_some() {
        Err("must not contain a query or fragment")
    } else if url.scheme() == "http" && !is_local {
        Err("must be an https:// URL, because its host is not this machine")
    } else {
        Ok(url)
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
