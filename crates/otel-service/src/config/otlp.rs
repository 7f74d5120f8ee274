//! How one signal reaches its collector: the `OTEL_EXPORTER_OTLP_*` variables of the OpenTelemetry specification 1.x,
//! of which the signal's own form goes before the common one.

use std::net::SocketAddr;
use std::time::Duration;

use http::HeaderMap;

use super::Signal;
use super::endpoint::endpoint;
use super::headers::{authorize, headers};
use super::variables::Variables;

/// One signal's OTLP exporter. Nothing in it shows a secret when it is printed: the values of headers are marked
/// sensitive, and the endpoint's user info is among them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Otlp {
    pub(crate) protocol: Protocol,
    /// An http or https URL without user info: with the signal's path for HTTP, scheme and authority alone for gRPC.
    pub(crate) endpoint: String,
    /// Sent with every request.
    pub(crate) headers: HeaderMap,
    /// Of one export with its retries.
    pub(crate) timeout: Duration,
    pub(crate) compression: Compression,
    /// Who may have signed the collector's certificate.
    pub(crate) certificate: Option<PemFile>,
    /// The client's own key and certificate, where the collector asks for them.
    pub(crate) client: Option<ClientFiles>,
}

/// The encodings and transports of OTLP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Protocol {
    Grpc,
    HttpProtobuf,
    HttpJson,
}

/// What is done to a request's body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Compression {
    None,
    Gzip,
}

/// A file that a variable names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct PemFile {
    pub(crate) variable: String,
    pub(crate) path: String,
}

/// What mutual TLS takes.
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

    /// To a receiver on this machine, of which the variables know nothing.
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

    /// The variable that sets the endpoint, when one does.
    pub(super) fn configured_by(signal: Signal, variables: &Variables<'_>) -> Option<String> {
        let variable = in_force(signal, "ENDPOINT", variables);
        variables.text(&variable).is_some().then_some(variable)
    }
}

/// The signal's own variable when it is set, else the common one.
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
                "{variable} names an unknown protocol; http/protobuf is used"
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
                "{variable} names an unknown compression; nothing is compressed"
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
                "{} is left out: a client's key and its certificate go together",
                alone.variable
            ));
            None
        }
    }
}
