//! The settings of an OTLP exporter.

use std::fmt;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::signal::Signal;

/// Address of an OTLP collector, and the settings of requests to it.
///
/// ```
/// use std::time::Duration;
/// use otlp_recorder::{Collector, Protocol};
///
/// let collector = Collector::new(Protocol::HttpProtobuf, "https://collector.example:4318/v1/traces")
///     .timeout(Duration::from_secs(5))
///     .certificate("/etc/ssl/private-ca.pem");
/// ```
///
/// `Debug` output hides the values of `headers` that are marked sensitive; [`Collector::secret_header`] marks
/// them.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Collector {
    /// Encoding and transport.
    pub protocol: Protocol,
    /// An http or https URL without user info: the complete URL for HTTP, scheme and authority for gRPC.
    pub endpoint: String,
    /// Headers sent with every request.
    pub headers: HeaderMap,
    /// Time limit of one export, retries included. Ten seconds by default.
    pub timeout: Duration,
    /// Compression of request bodies.
    pub compression: Compression,
    /// CA certificates to trust instead of the system's.
    pub certificate: Option<PemFile>,
    /// Client key and certificate for mutual TLS.
    pub client: Option<ClientFiles>,
    pub(crate) proxy: Option<Proxy>,
}

/// URL of a proxy. `Debug` output hides it, because it may contain a password.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct Proxy(pub(crate) String);

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Encoding and transport of OTLP. All variants except [`Protocol::HttpProtobuf`] need a cargo feature.
/// Without the feature, the signal is not exported, and [`Pipeline::warnings`](crate::Pipeline::warnings) has
/// a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Protocol {
    /// gRPC (feature `grpc`).
    Grpc,
    /// HTTP with protobuf bodies.
    HttpProtobuf,
    /// HTTP with JSON bodies (feature `json`).
    HttpJson,
}

/// Compression of request bodies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Compression {
    /// No compression.
    None,
    /// gzip (feature `gzip`; without it bodies are sent uncompressed).
    Gzip,
}

/// A PEM file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PemFile {
    /// Name of the setting that gave the path, for warnings.
    pub setting: String,
    /// Path of the file.
    pub path: String,
}

/// Key and certificate files for mutual TLS.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientFiles {
    /// Private key.
    pub key: PemFile,
    /// Certificate with its chain.
    pub certificate: PemFile,
}

impl Collector {
    /// Creates the settings for `endpoint`, without headers, compression or private certificates.
    ///
    /// [`PipelineBuilder::all_signals`](crate::PipelineBuilder::all_signals) takes a base URL and appends the
    /// path of each signal; elsewhere the URL is used unchanged.
    pub fn new(protocol: Protocol, endpoint: impl Into<String>) -> Self {
        Self {
            protocol,
            endpoint: endpoint.into(),
            headers: HeaderMap::new(),
            timeout: Duration::from_secs(10),
            compression: Compression::None,
            certificate: None,
            client: None,
            proxy: None,
        }
    }

    /// Adds a header whose value is hidden in `Debug` output.
    #[must_use]
    pub fn secret_header(mut self, name: HeaderName, mut value: HeaderValue) -> Self {
        value.set_sensitive(true);
        self.headers.insert(name, value);
        self
    }

    /// Sets the time limit of one export, retries included.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the compression of request bodies.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Trusts the CA certificates in this PEM file instead of the system's.
    #[must_use]
    pub fn certificate(mut self, path: impl Into<String>) -> Self {
        self.certificate = Some(PemFile::new("certificate", path));
        self
    }

    /// Presents the client certificate in the PEM file `certificate`, with the private key in the PEM file
    /// `key`.
    #[must_use]
    pub fn client_certificate(mut self, certificate: impl Into<String>, key: impl Into<String>) -> Self {
        self.client = Some(ClientFiles {
            key: PemFile::new("client key", key),
            certificate: PemFile::new("client certificate", certificate),
        });
        self
    }

    /// Sends the requests through an HTTP proxy, such as `http://user:password@proxy.example:3128`. gRPC does not
    /// support one.
    ///
    /// Without this setting, requests use no proxy, whatever `HTTP_PROXY` and similar variables say: these are for
    /// the calls of the program, and a collector is usually on the same network.
    #[must_use]
    pub fn proxy(mut self, url: impl Into<String>) -> Self {
        self.proxy = Some(Proxy(url.into()));
        self
    }

    /// Returns the settings with the path of a signal appended to the URL.
    pub(crate) fn for_signal(&self, signal: Signal) -> Self {
        let mut collector = self.clone();
        if self.protocol != Protocol::Grpc {
            collector.endpoint = format!("{}{}", self.endpoint.trim_end_matches('/'), signal.http_path());
        }
        collector
    }
}

impl PemFile {
    fn new(setting: &str, path: impl Into<String>) -> Self {
        Self {
            setting: setting.to_owned(),
            path: path.into(),
        }
    }
}
