//! HTTP clients for the backend and the token endpoint, the check of their addresses, and request errors.

use std::{error::Error, iter::successors, time::Duration};

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt as _, Limited};
use reqwest::{Body, Client, RequestBuilder, Response, redirect::Policy};
use telemetry::{HttpClientLayer, Propagation, without_spans};
use url::{Host, Url};

use super::config::StartError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// Reason a request failed.
///
/// Excludes text written by the server, because it may quote the request or the secret. The first field is
/// the server, such as `the backend`.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error("cannot reach {0}: {1}")]
    Connection(&'static str, String),
    #[error("{0} did not respond in time")]
    Timeout(&'static str),
    #[error("{0} responded with HTTP {1}")]
    Status(&'static str, u16),
    #[error("{0} rejected the request: {1}")]
    Rejected(&'static str, String),
    #[error("{0} responded without a valid token")]
    NoToken(&'static str),
}

impl RequestError {
    /// Describes `error` with its sources, but without the URL, whose query may be a secret.
    pub(super) fn new(server: &'static str, error: reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::Timeout(server);
        }
        let error = error.without_url();
        let causes = successors(Some(&error as &dyn Error), |error| (**error).source());
        let causes: Vec<_> = causes.map(ToString::to_string).collect();
        Self::Connection(server, causes.join(": "))
    }
}

/// Returns a client for requests to `url`, after checking that the requests are confidential.
///
/// `purpose` names the setting with the address. The client does not follow redirects: the body would be
/// lost, and secrets would be sent to another host.
pub(super) fn client(
    url: &Url,
    purpose: &'static str,
    headers: HeaderMap,
    timeout: Duration,
) -> Result<Client, StartError> {
    check(url, purpose)?;
    // Fails if the process has already installed a provider, which is then used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(concat!("otlp-observatory/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .redirect(Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(timeout);
    if url.scheme() != "https" {
        // Requests to loopback need no proxy, and no system certificates, which a small image may lack.
        builder = builder.no_proxy().tls_certs_only([]);
    }
    builder.build().map_err(|error| StartError::Client(error.into()))
}

/// Sends a request and records its duration.
///
/// Creates no span, because a process that forwards its own spans would never stop. The server, a third party, receives
/// no trace context.
pub(super) async fn send(request: RequestBuilder) -> reqwest::Result<Response> {
    const OUTGOING: HttpClientLayer = HttpClientLayer::new().propagation(Propagation::NOTHING);
    without_spans(OUTGOING.send(request)).await
}

/// Checks that requests to `url` are encrypted or stay on this machine.
fn check(url: &Url, purpose: &'static str) -> Result<(), StartError> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err(StartError::SecretInUrl { purpose });
    }
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback(url) => Ok(()),
        _ => Err(StartError::NotHttps { purpose }),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Reads the body of a response; `None` if it is too long or incomplete.
pub(super) async fn read_body(body: impl Into<Body>) -> Option<Bytes> {
    let body = Limited::new(body.into(), MAX_RESPONSE_BYTES).collect().await;
    Some(body.ok()?.to_bytes())
}
