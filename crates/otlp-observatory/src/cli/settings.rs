//! Settings of the observatory: its addresses, its memory, and the endpoint that it forwards telemetry to. Each is a
//! command-line option and an environment variable.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    str::FromStr,
};

use axum::http::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use url::{Host, Position, Url};

use crate::{
    config::Config,
    forward::{Credentials, Forwarding, Secret},
};

/// A setting: a command-line option, and the environment variable of the same name.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Name of the variable.
    pub variable: &'static str,
    /// Name of the option.
    pub option: &'static str,
    /// Kind of the value, for the help text.
    pub value_name: &'static str,
    /// Value if none is given.
    pub default: Option<&'static str>,
    /// Help text.
    pub help: &'static str,
}

impl Setting {
    /// Returns the setting with another default.
    #[must_use]
    pub const fn or(self, default: &'static str) -> Self {
        Self {
            default: Some(default),
            ..self
        }
    }
}

/// Error for an invalid setting. The message fits on one line and contains no secret.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{variable}: {problem}")]
pub struct SettingError {
    /// Name of the variable.
    pub variable: &'static str,
    /// Problem with its value.
    pub problem: String,
}

impl SettingError {
    fn new(setting: Setting, problem: impl Into<String>) -> Self {
        Self {
            variable: setting.variable,
            problem: problem.into(),
        }
    }

    /// The error for a setting that another setting requires.
    fn required_with(setting: Setting, other: Setting) -> Self {
        Self::new(setting, format!("is required with {}", other.variable))
    }
}

/// Result of reading settings.
pub type Result<T, E = SettingError> = std::result::Result<T, E>;

/// Values of settings.
pub trait Values {
    /// Reads the given value of a setting or its default; `None` if there is neither. `parse` also returns the text
    /// that represents the value in output.
    ///
    /// # Errors
    /// Returns an error if `parse` rejects the text.
    fn read<T>(
        &mut self,
        setting: Setting,
        parse: impl FnOnce(&str) -> Result<(T, String), String>,
    ) -> Result<Option<T>>;
}

macro_rules! settings {
    ($($variable:ident, $option:literal, $value:literal, $default:expr, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $variable: Setting = Setting {
                variable: stringify!($variable),
                option: $option,
                value_name: $value,
                default: $default,
                help: $help,
            };
        )*

        /// Settings that [`config`] reads.
        pub const SETTINGS: &[Setting] = &[$($variable),*];
    };
}

settings! {
    DATA_DIR, "data-dir", "FOLDER", Some("./data"),
        "Folder for telemetry waiting to be forwarded";
    OBSERVATORY_HOST, "observatory-host", "IP", Some("127.0.0.1"),
        "Address that the observatory listens on; it has no login";
    OBSERVATORY_PORT, "observatory-port", "PORT", Some("4319"),
        "Port of the observatory's pages and JSON API";
    OBSERVATORY_OTLP_HTTP_PORT, "observatory-otlp-http-port", "PORT", Some("4318"),
        "Port that receives OTLP over HTTP and gRPC";
    OBSERVATORY_OTLP_GRPC_PORT, "observatory-otlp-grpc-port", "PORT", Some("4317"),
        "Second port that receives OTLP over HTTP and gRPC, the usual one of gRPC";
    OBSERVATORY_HEALTH_PORT, "observatory-health-port", "PORT", Some("13133"),
        "Port of the health check; the default is the OpenTelemetry Collector's";
    OBSERVATORY_ALLOWED_HOSTS, "observatory-allowed-hosts", "HOST,...", None,
        "Host names of the observatory besides localhost and names without a dot";
    OBSERVATORY_ALLOWED_ORIGINS, "observatory-allowed-origins", "ORIGIN,...", None,
        "Origins of web pages that may send telemetry besides those of this machine; * for all";
    OBSERVATORY_MEMORY, "observatory-memory", "SIZE", Some("256MiB"),
        "Memory for telemetry, for example 64MiB or 1GiB";
    OBSERVATORY_MASK, "observatory-mask", "on|off", Some("on"),
        "Whether the pages mask e-mail addresses and tokens; forwarded telemetry is always masked";
    OBSERVATORY_KEEP, "keep", "FILE", None,
        "File that telemetry is kept in, an SQLite database; without it, telemetry is lost at the end";
    OBSERVATORY_KEEP_SIZE, "keep-size", "SIZE", Some("4GiB"),
        "Maximum size of the kept telemetry, beyond which the oldest is removed";
    OBSERVATORY_KEEP_DAYS, "keep-days", "DAYS", Some("7"),
        "Maximum age of the kept telemetry";
    OBSERVATORY_FORWARD_ENDPOINT, "observatory-forward-endpoint", "URL", None,
        "OTLP/HTTP endpoint that received telemetry is forwarded to";
    OBSERVATORY_FORWARD_HEADERS, "observatory-forward-headers", "NAME=VALUE,...", None,
        "Headers of forwarded requests, percent-encoded as in OTEL_EXPORTER_OTLP_HEADERS";
    OBSERVATORY_QUEUE_LIMIT, "observatory-queue-limit", "SIZE", Some("256MiB"),
        "Maximum size of the telemetry in DATA_DIR that waits to be forwarded";
    SCOUT_ENDPOINT, "scout-endpoint", "URL", None,
        "OTLP endpoint of base14 Scout that received telemetry is forwarded to; requires the next three";
    SCOUT_CLIENT_ID, "scout-client-id", "TEXT", None, "OAuth2 client id for Scout";
    SCOUT_CLIENT_SECRET, "scout-client-secret", "TEXT", None, "OAuth2 client secret for Scout";
    SCOUT_TOKEN_URL, "scout-token-url", "URL", None, "OAuth2 token endpoint of Scout";
    SCOUT_ENVIRONMENT, "scout-environment", "NAME", Some("development"), "Deployment environment in Scout";
}

/// Audience of tokens for Scout, as in the collector's configuration.
const SCOUT_AUDIENCE: &str = "b14collector";

/// Minimum memory, in bytes: a few hundred traces.
const MIN_MEMORY: u64 = 1 << 20;

/// Minimum size of the kept telemetry, in bytes.
const MIN_KEEP: u64 = 1 << 20;

/// Minimum size of the queue, in bytes: the maximum size of a received request.
const MIN_QUEUE: u64 = 16 << 20;

const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Reads the address of the pages, from [`OBSERVATORY_HOST`] and [`OBSERVATORY_PORT`].
///
/// # Errors
/// Returns an error if a value is invalid.
pub fn pages(values: &mut impl Values) -> Result<SocketAddr> {
    let host: IpAddr = parsed(values, OBSERVATORY_HOST, "an IP address to listen on")?;
    Ok(SocketAddr::new(host, port(values, OBSERVATORY_PORT)?))
}

fn port(values: &mut impl Values, setting: Setting) -> Result<u16> {
    parsed(values, setting, "a port number")
}

/// Reads the whole configuration. `memory` is [`OBSERVATORY_MEMORY`], with any default.
///
/// # Errors
/// Returns an error if a value is missing or invalid.
pub fn config(values: &mut impl Values, memory: Setting) -> Result<Config> {
    let pages = pages(values)?;
    let mut receiver = |setting| Ok(SocketAddr::new(pages.ip(), port(values, setting)?));
    let config = Config::default()
        .pages(pages)
        .http(receiver(OBSERVATORY_OTLP_HTTP_PORT)?)
        .grpc(receiver(OBSERVATORY_OTLP_GRPC_PORT)?)
        .health(receiver(OBSERVATORY_HEALTH_PORT)?)
        .memory(usize::try_from(size(values, memory, MIN_MEMORY)?).unwrap_or(usize::MAX))
        .mask(switch(values, OBSERVATORY_MASK)?)
        .allowed_hosts(list(values, OBSERVATORY_ALLOWED_HOSTS)?)
        .allowed_origins(list(values, OBSERVATORY_ALLOWED_ORIGINS)?);
    let config = keep(values, config)?;
    Ok(config.forward(forwarding(values)?))
}

fn keep(values: &mut impl Values, config: Config) -> Result<Config> {
    let bytes = size(values, OBSERVATORY_KEEP_SIZE, MIN_KEEP)?;
    let days: u32 = parsed(values, OBSERVATORY_KEEP_DAYS, "a number of days")?;
    let path = text(values, OBSERVATORY_KEEP)?;
    #[cfg(feature = "keep")]
    {
        let age = std::time::Duration::from_secs(u64::from(days) * 86_400);
        let keep = path.map(|path| crate::Keep::new(path).max_bytes(bytes).max_age(age));
        Ok(config.keep(keep))
    }
    #[cfg(not(feature = "keep"))]
    match (path, bytes, days) {
        (None, ..) => Ok(config),
        (Some(_), ..) => Err(SettingError::new(
            OBSERVATORY_KEEP,
            "this program was built without the feature `keep`",
        )),
    }
}

/// Reads a list of names separated by commas.
fn list(values: &mut impl Values, setting: Setting) -> Result<Vec<String>> {
    let text = text(values, setting)?.unwrap_or_default();
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    Ok(names.map(str::to_owned).collect())
}

fn text(values: &mut impl Values, setting: Setting) -> Result<Option<String>> {
    values.read(setting, |text| Ok((text.to_owned(), text.to_owned())))
}

fn secret(values: &mut impl Values, setting: Setting) -> Result<Option<Secret>> {
    values.read(setting, |text| Ok((Secret::new(text), "***".to_owned())))
}

/// Reads a setting that has a default.
fn required<T>(
    values: &mut impl Values,
    setting: Setting,
    parse: impl FnOnce(&str) -> Result<(T, String), String>,
) -> Result<T> {
    let value = values.read(setting, parse)?;
    value.ok_or_else(|| SettingError::new(setting, "is required"))
}

/// Reads a value in the format in which it is displayed. `expected` describes valid values in the error.
fn parsed<T: FromStr + ToString>(values: &mut impl Values, setting: Setting, expected: &str) -> Result<T> {
    required(values, setting, |text| {
        let parsed = text.trim().parse::<T>();
        let value = parsed.map_err(|_| format!("{:?} is not {expected}", text.trim()))?;
        let shown = value.to_string();
        Ok((value, shown))
    })
}

/// Reads a setting that is `on` or `off`.
fn switch(values: &mut impl Values, setting: Setting) -> Result<bool> {
    required(values, setting, |text| match text.trim() {
        on @ ("on" | "off") => Ok((on == "on", on.to_owned())),
        other => Err(format!("{other:?} is not one of on, off")),
    })
}

fn forwarding(values: &mut impl Values) -> Result<Option<Forwarding>> {
    let url = |text: &str| {
        http_url(text).map_err(str::to_owned).map(|url| {
            let shown = shown_endpoint(&url);
            (url, shown)
        })
    };
    let endpoint = values.read(OBSERVATORY_FORWARD_ENDPOINT, url)?;
    let headers = values.read(OBSERVATORY_FORWARD_HEADERS, headers)?;
    let queue_limit = size(values, OBSERVATORY_QUEUE_LIMIT, MIN_QUEUE)?;
    let scout_endpoint = values.read(SCOUT_ENDPOINT, url)?;
    let client_id = text(values, SCOUT_CLIENT_ID)?;
    let client_secret = secret(values, SCOUT_CLIENT_SECRET)?;
    let token_url = values.read(SCOUT_TOKEN_URL, url)?;
    let environment = text(values, SCOUT_ENVIRONMENT)?;

    let folder = text(values, DATA_DIR)?.unwrap_or_default();
    let queue = Path::new(&folder).join("observatory");
    if let Some(endpoint) = endpoint {
        if scout_endpoint.is_some() {
            let problem = "is set together with SCOUT_ENDPOINT; unset one of them";
            return Err(SettingError::new(OBSERVATORY_FORWARD_ENDPOINT, problem));
        }
        let forwarding = Forwarding::new(endpoint, queue).queue_limit(queue_limit);
        let with_header = |forwarding: Forwarding, (name, value)| forwarding.header(name, value);
        let headers = headers.unwrap_or_default().into_iter();
        return Ok(Some(headers.fold(forwarding, with_header)));
    }
    if headers.is_some() {
        let required = SettingError::required_with(OBSERVATORY_FORWARD_ENDPOINT, OBSERVATORY_FORWARD_HEADERS);
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
        return Err(SettingError::required_with(*missing, *given));
    }
    let (Some(endpoint), Some(client_id), Some(client_secret), Some(token_url)) =
        (scout_endpoint, client_id, client_secret, token_url)
    else {
        return Ok(None);
    };
    let credentials = Credentials::new(token_url, client_id, client_secret).audience(SCOUT_AUDIENCE);
    let forwarding = Forwarding::new(endpoint, queue)
        .credentials(credentials)
        .environment(environment.unwrap_or_default())
        .queue_limit(queue_limit);
    Ok(Some(forwarding))
}

/// Reads a number of bytes: `1048576`, `1024KiB`, `1MiB` or `1GiB`.
fn size(values: &mut impl Values, setting: Setting, least: u64) -> Result<u64> {
    required(values, setting, |text| {
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
        Ok((size, shown))
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

/// Returns the URL of an endpoint for output. Its path may contain a key.
pub fn shown_endpoint(url: &Url) -> String {
    let rest = if url.path() == "/" { "/" } else { "/***" };
    format!("{}{rest}", &url[..Position::AfterPort])
}

type Headers = Vec<(String, Secret)>;

/// Parses comma-separated, percent-encoded `name=value` pairs; shows the names.
fn headers(text: &str) -> Result<(Headers, String), String> {
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
