//! OTLP settings of one signal: the `OTEL_EXPORTER_OTLP_*` variables of the OpenTelemetry specification 1.x.
//! A per-signal variable overrides the common one. `OTEL_EXPORTER_OTLP_PROXY` is an addition.

use std::net::SocketAddr;
use std::time::Duration;

use http::Uri;
use otlp_recorder::{ClientFiles, Collector, Compression, PemFile, Protocol, Signal};

use super::endpoint::endpoint;
use super::headers::{authorize, headers};
use super::variables::{Variables, in_force};

/// Reads the settings of one signal.
pub(super) fn collector(signal: Signal, variables: &mut Variables<'_>) -> Collector {
    let protocol = variables.choice(
        &in_force(signal, "PROTOCOL", variables),
        &[
            ("http/protobuf", Protocol::HttpProtobuf),
            ("http/json", Protocol::HttpJson),
            ("grpc", Protocol::Grpc),
        ],
        "not grpc, http/protobuf or http/json; http/protobuf is used",
    );
    let (endpoint, user_info) = endpoint(signal, protocol, variables);
    let mut headers = headers(&in_force(signal, "HEADERS", variables), variables);
    if let Some(user_info) = user_info {
        authorize(&mut headers, &user_info);
    }
    let mut collector = Collector::new(protocol, endpoint).timeout(timeout(signal, variables));
    collector.headers = headers;
    collector.compression = variables.choice(
        &in_force(signal, "COMPRESSION", variables),
        &[("none", Compression::None), ("gzip", Compression::Gzip)],
        "neither gzip nor none; requests are not compressed",
    );
    collector.certificate = file(signal, "CERTIFICATE", variables);
    collector.client = client(signal, variables);
    match proxy(signal, protocol, variables) {
        Some(url) => collector.proxy(url),
        None => collector,
    }
}

/// Returns the settings for a receiver on this machine. Only the variables for the time-out apply to it.
pub(super) fn local_receiver(
    signal: Signal,
    address: SocketAddr,
    variables: &mut Variables<'_>,
) -> Collector {
    let endpoint = format!("http://{address}{}", signal.http_path());
    Collector::new(Protocol::HttpProtobuf, endpoint).timeout(timeout(signal, variables))
}

/// Returns the variable that sets the endpoint, if any.
pub(super) fn endpoint_variable(signal: Signal, variables: &Variables<'_>) -> Option<String> {
    let variable = in_force(signal, "ENDPOINT", variables);
    variables.text(&variable).is_some().then_some(variable)
}

fn timeout(signal: Signal, variables: &mut Variables<'_>) -> Duration {
    let variable = in_force(signal, "TIMEOUT", variables);
    variables.timeout(&variable, 10_000)
}

/// Reads the URL of the proxy. The specification has no such variable.
fn proxy(signal: Signal, protocol: Protocol, variables: &mut Variables<'_>) -> Option<String> {
    let variable = in_force(signal, "PROXY", variables);
    let url = variables.text(&variable)?.trim().to_owned();
    let parsed = url.parse::<Uri>().ok().filter(|url| url.host().is_some());
    let scheme = parsed.as_ref().and_then(Uri::scheme_str);
    let problem = match scheme {
        Some("http") if protocol == Protocol::Grpc => "gRPC supports no proxy",
        // Connections to an https:// proxy would not be encrypted.
        Some("http") => return Some(url),
        _ => "it is not an http:// URL",
    };
    variables.warn(format!("{variable} is ignored: {problem}"));
    None
}

fn file(signal: Signal, name: &str, variables: &Variables<'_>) -> Option<PemFile> {
    let variable = in_force(signal, name, variables);
    let path = variables.text(&variable)?.trim().to_owned();
    Some(PemFile {
        setting: variable,
        path,
    })
}

fn client(signal: Signal, variables: &mut Variables<'_>) -> Option<ClientFiles> {
    let key = file(signal, "CLIENT_KEY", variables);
    let certificate = file(signal, "CLIENT_CERTIFICATE", variables);
    match (key, certificate) {
        (Some(key), Some(certificate)) => Some(ClientFiles { key, certificate }),
        (None, None) => None,
        (Some(alone), None) | (None, Some(alone)) => {
            variables.warn(format!(
                "{} is ignored: a client key and a client certificate must both be set",
                alone.setting
            ));
            None
        }
    }
}
