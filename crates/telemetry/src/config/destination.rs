//! Where one signal goes: `OTEL_<SIGNAL>_EXPORTER` and the `OTEL_EXPORTER_OTLP_*` variables, of which the signal's own
//! form goes before the common one.

use std::time::Duration;

use super::{Export, variables::Variables};

const DEFAULT_ENDPOINT: &str = "http://localhost:4318";

/// What becomes of a signal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Destination {
    /// It is not made.
    Off,
    /// JSON lines on standard output.
    Console,
    Otlp(Otlp),
}

/// An OTLP endpoint over http/protobuf.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Otlp {
    /// The whole URL with the signal's path.
    pub(crate) endpoint: String,
    /// Of one export with its retries.
    pub(crate) timeout: Duration,
    /// The file of `OTEL_EXPORTER_OTLP_CERTIFICATE`.
    pub(crate) certificate: Option<String>,
}

impl Destination {
    /// `signal` as the variables spell it, `path` as OTLP does.
    pub(super) fn read(signal: &str, path: &str, default: Export, variables: &mut Variables<'_>) -> Self {
        let exporter = format!("OTEL_{signal}_EXPORTER");
        match variables.text(&exporter).as_deref().map(str::trim) {
            None if default == Export::WhenConfigured && !has_endpoint(signal, variables) => {
                return Self::Off;
            }
            None | Some("otlp") => {}
            Some("none") => return Self::Off,
            Some("console") => return Self::Console,
            Some(other) => {
                variables.warn(format!("{exporter}={other} is not supported; otlp is used"));
            }
        }
        for (name, supported, instead) in [
            ("PROTOCOL", &["http/protobuf"][..], "http/protobuf"),
            ("COMPRESSION", &["gzip", "none"], "none"),
        ] {
            let variable = in_force(signal, name, variables);
            if let Some(value) = variables.text(&variable)
                && !supported.contains(&value.trim())
            {
                variables.warn(format!("{variable}={value} is not supported; {instead} is used"));
            }
        }
        let headers = in_force(signal, "HEADERS", variables);
        if let Some(value) = variables.text(&headers)
            && value
                .split(',')
                .any(|entry| !entry.trim().is_empty() && !entry.contains('='))
        {
            variables.warn(format!(
                "{headers} has an entry without name=value, which is left out"
            ));
        }
        let timeout = in_force(signal, "TIMEOUT", variables);
        let certificate = in_force(signal, "CERTIFICATE", variables);
        Self::Otlp(Otlp {
            endpoint: endpoint(signal, path, variables),
            timeout: variables.milliseconds(&timeout, 10_000),
            certificate: variables.text(&certificate),
        })
    }
}

fn has_endpoint(signal: &str, variables: &Variables<'_>) -> bool {
    let variable = in_force(signal, "ENDPOINT", variables);
    variables.text(&variable).is_some()
}

/// The signal's own variable when it is set, else the common one.
fn in_force(signal: &str, name: &str, variables: &Variables<'_>) -> String {
    let own = format!("OTEL_EXPORTER_OTLP_{signal}_{name}");
    if variables.text(&own).is_some() {
        return own;
    }
    format!("OTEL_EXPORTER_OTLP_{name}")
}

/// The signal's own endpoint as it is, or the common one with the signal's path behind it.
fn endpoint(signal: &str, path: &str, variables: &mut Variables<'_>) -> String {
    let own = format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT");
    if let Some(url) = variables.text(&own) {
        if is_http_url(url.trim()) {
            return url.trim().to_owned();
        }
        variables.warn(format!("{own} is not an http(s) URL and is left out"));
    }
    let common = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let base = match variables.text(common) {
        Some(url) if is_http_url(url.trim()) => url.trim().to_owned(),
        Some(_) => {
            variables.warn(format!(
                "{common} is not an http(s) URL; {DEFAULT_ENDPOINT} is used"
            ));
            DEFAULT_ENDPOINT.to_owned()
        }
        None => DEFAULT_ENDPOINT.to_owned(),
    };
    format!("{}{path}", base.trim_end_matches('/'))
}

fn is_http_url(url: &str) -> bool {
    url.parse::<http::Uri>()
        .is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
}
