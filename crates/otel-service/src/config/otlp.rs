//! OTLP settings of one signal: the `OTEL_EXPORTER_OTLP_*` variables of the OpenTelemetry specification 1.x. A
//! per-signal variable overrides the common one.

use std::net::SocketAddr;
use std::time::Duration;

use http::HeaderMap;

use super::Signal;
use super::endpoint::endpoint;
use super::headers::{authorize, headers};
use super::variables::Variables;

/// OTLP exporter of one signal. `Debug` output contains no secrets: header values, which include the user info of the
/// endpoint, are marked sensitive.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Otlp {
    pub(crate) protocol: Protocol,
    /// An http or https URL without user info: complete for HTTP, scheme and authority for gRPC.
    pub(crate) endpoint: String,
    /// Headers of every request.
    pub(crate) headers: HeaderMap,
    /// Time limit of one export including its retries.
    pub(crate) timeout: Duration,
    pub(crate) compression: Compression,
    /// CA certificates trusted to sign the certificate of the collector.
    pub(crate) certificate: Option<PemFile>,
    /// Key and certificate of the client, for mutual TLS.
    pub(crate) client: Option<ClientFiles>,
}

/// Transport and encoding of OTLP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Protocol {
    Grpc,
    HttpProtobuf,
    HttpJson,
}

/// Compression of request bodies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Compression {
    None,
    Gzip,
}

/// A PEM file and the variable that names it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct PemFile {
    pub(crate) variable: String,
    pub(crate) path: String,
}

/// Key and certificate of the client, for mutual TLS.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ClientFiles {
    pub(crate) key: PemFile,
    pub(crate) certificate: PemFile,
}

impl Otlp {
    pub(super) fn read(signal: Signal, variables: &mut Variables<'_>) -> Self {
        let protocol = protocol(signal, variables);
        let (endpoint, user_info) = endpoint(signal, protocol, variables);
        let mut headers = headers(&in_force(signal, "HEADERS", variables), variables);
        if let Some(user_info) = user_info {
            authorize(&mut headers, &user_info);
        }
        Self {
            protocol,
            endpoint,
            headers,
            timeout: timeout(signal, variables),
            compression: compression(signal, variables),
            certificate: file(signal, "CERTIFICATE", variables),
            client: client(signal, variables),
        }
    }

    /// Creates the settings for a receiver on this machine, which the endpoint variables do not apply to.
    pub(super) fn nearby(signal: Signal, address: SocketAddr, variables: &mut Variables<'_>) -> Self {
        Self {
            protocol: Protocol::HttpProtobuf,
            endpoint: format!("http://{address}{}", signal.http_path()),
            headers: HeaderMap::new(),
            timeout: timeout(signal, variables),
            compression: Compression::None,
            certificate: None,
            client: None,
        }
    }

    /// Returns the variable that sets the endpoint, if any.
    pub(super) fn configured_by(signal: Signal, variables: &Variables<'_>) -> Option<String> {
        let variable = in_force(signal, "ENDPOINT", variables);
        variables.text(&variable).is_some().then_some(variable)
    }
}

/// Returns the per-signal variable if it is set, otherwise the common one.
pub(super) fn in_force(signal: Signal, name: &str, variables: &Variables<'_>) -> String {
    let own = format!("OTEL_EXPORTER_OTLP_{}_{name}", signal.in_variables());
    if variables.text(&own).is_some() {
        return own;
    }
    format!("OTEL_EXPORTER_OTLP_{name}")
}

fn protocol(signal: Signal, variables: &mut Variables<'_>) -> Protocol {
    let variable = in_force(signal, "PROTOCOL", variables);
    match variables.keyword(&variable).as_deref() {
        Some("grpc") => Protocol::Grpc,
        None | Some("http/protobuf") => Protocol::HttpProtobuf,
        Some("http/json") => Protocol::HttpJson,
        Some(_) => {
            variables.warn(format!(
                "{variable} is not grpc, http/protobuf or http/json; http/protobuf is used"
            ));
            Protocol::HttpProtobuf
        }
    }
}

fn timeout(signal: Signal, variables: &mut Variables<'_>) -> Duration {
    let variable = in_force(signal, "TIMEOUT", variables);
    variables.timeout(&variable, 10_000)
}

fn compression(signal: Signal, variables: &mut Variables<'_>) -> Compression {
    let variable = in_force(signal, "COMPRESSION", variables);
    match variables.keyword(&variable).as_deref() {
        Some("gzip") => Compression::Gzip,
        None | Some("none") => Compression::None,
        Some(_) => {
            variables.warn(format!(
                "{variable} is neither gzip nor none; requests are not compressed"
            ));
            Compression::None
        }
    }
}

fn file(signal: Signal, name: &str, variables: &Variables<'_>) -> Option<PemFile> {
    let variable = in_force(signal, name, variables);
    let path = variables.text(&variable)?.trim().to_owned();
    Some(PemFile { variable, path })
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
                alone.variable
            ));
            None
        }
    }
}
