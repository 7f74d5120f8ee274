//! Settings of forwarding, and the errors that prevent it from starting.

use std::{error::Error, fmt, path::PathBuf};

use url::Url;

use super::queue::FolderError;

/// A secret string, shown as `***` in `Debug` output.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Settings for forwarding to an OTLP backend. Each setter returns the changed settings.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Forwarding {
    /// OTLP/HTTP endpoint of the backend, without the path of a signal such as `/v1/traces`.
    ///
    /// Must be `https`, unless the host is loopback.
    pub endpoint: Url,
    /// Headers sent with every request.
    pub headers: Vec<(String, Secret)>,
    /// OAuth2 client credentials, for a backend that requires tokens.
    pub credentials: Option<Credentials>,
    /// Value written to the resource attributes `deployment.environment.name` and `deployment.environment`.
    pub environment: Option<String>,
    /// Folder of the queue on disk, created if missing. One process at a time can use it.
    pub queue: PathBuf,
    /// Maximum size of the queue on disk, in bytes. Default: 256 MiB.
    pub queue_limit: u64,
}

impl Forwarding {
    /// Returns settings for `endpoint`, with the queue in the folder `queue`.
    pub fn new(endpoint: Url, queue: impl Into<PathBuf>) -> Self {
        Self {
            endpoint,
            headers: Vec::new(),
            credentials: None,
            environment: None,
            queue: queue.into(),
            queue_limit: 256 << 20,
        }
    }

    /// Adds a header to every request.
    pub fn header(mut self, name: impl Into<String>, value: Secret) -> Self {
        self.headers.push((name.into(), value));
        self
    }

    /// Authenticates every request with a token obtained with `credentials`.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// Sets the deployment environment of every resource.
    pub fn environment(mut self, environment: impl Into<String>) -> Self {
        self.environment = Some(environment.into());
        self
    }

    /// Sets the maximum size of the queue on disk, in bytes.
    pub fn queue_limit(mut self, bytes: u64) -> Self {
        self.queue_limit = bytes;
        self
    }
}

/// OAuth2 client credentials (RFC 6749, section 4.4).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Credentials {
    /// Address of the token endpoint. Must be `https`, unless the host is loopback.
    pub token_url: Url,
    /// Client identifier.
    pub client_id: String,
    /// Client secret.
    pub client_secret: Secret,
    /// `audience` parameter of the token request.
    pub audience: Option<String>,
}

impl Credentials {
    /// Returns credentials without an audience.
    pub fn new(token_url: Url, client_id: impl Into<String>, client_secret: Secret) -> Self {
        Self {
            token_url,
            client_id: client_id.into(),
            client_secret,
            audience: None,
        }
    }

    /// Sets the `audience` parameter of the token request.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = Some(audience.into());
        self
    }
}

/// Reason forwarding cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An address is not `https`, and its host is not loopback.
    #[error("the {purpose} for forwarding must be https; http is allowed only for loopback hosts")]
    NotHttps {
        /// Setting that contains the address: `endpoint` or `token URL`.
        purpose: &'static str,
    },
    /// An address contains a user name or password.
    #[error(
        "the {purpose} for forwarding must not contain a user name or password; use a header or credentials"
    )]
    SecretInUrl {
        /// Setting that contains the address: `endpoint` or `token URL`.
        purpose: &'static str,
    },
    /// A header name or value is not valid in HTTP.
    #[error("the header {name:?} for forwarding has an invalid name or value")]
    Header {
        /// Name of the header.
        name: String,
    },
    /// The HTTP client cannot be set up, for example because the system's certificates cannot be read.
    #[error("cannot set up the HTTP client for forwarding: {0}")]
    Client(#[source] Box<dyn Error + Send + Sync>),
    /// The folder of the queue cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
}
