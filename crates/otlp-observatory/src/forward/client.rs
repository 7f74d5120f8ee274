//! HTTP clients for the backend and its tokens, and which addresses they may be used for.

use std::{error::Error, net::IpAddr, time::Duration};

use reqwest::{Client, Response, redirect::Policy};
use url::{Host, Url};

use super::StartError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client for `url`. It follows no redirect: a redirected body would be lost, and secrets would go to somebody else.
pub(super) fn client(url: &Url) -> reqwest::Result<Client> {
    // Another part of the process may have chosen a provider already; any will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder()
        .redirect(Policy::none())
        .connect_timeout(CONNECT_TIMEOUT);
    match url.scheme() {
        "https" => builder.build(),
        // It stays on this machine: not by a proxy, and without the system's certificates, which a small image may not
        // even have.
        _ => builder.no_proxy().tls_certs_only([]).build(),
    }
}

/// What is sent is not for everyone to read, and neither are the secrets with it.
pub(super) fn check(url: &Url, purpose: &'static str) -> Result<(), StartError> {
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
        Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        None => false,
    }
}

/// The body of an answer; `None` when it is longer than `limit`, or breaks off.
pub(super) async fn body(mut response: Response, limit: usize) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        if body.len() + chunk.len() > limit {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    Some(body)
}

/// Why there is no answer, without the address, whose query may be a secret.
pub(super) fn described(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
