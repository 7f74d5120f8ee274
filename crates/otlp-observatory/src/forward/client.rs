//! HTTP clients for the backend and the token endpoint, and the check of their addresses.

use std::{error::Error, iter::successors, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use reqwest::{Body, Client, Response, redirect::Policy};
use url::{Host, Url};

use super::config::StartError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns a client for requests to `url`, after checking that the requests are confidential.
///
/// `purpose` names the setting with the address. The client does not follow redirects: the body would be
/// lost, and secrets would be sent to another host.
pub(super) fn client(url: &Url, purpose: &'static str) -> Result<Client, StartError> {
    check(url, purpose)?;
    // Another part of the process may have chosen a provider already; any will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .redirect(Policy::none())
        .connect_timeout(CONNECT_TIMEOUT);
    if url.scheme() != "https" {
        // Requests to loopback need no proxy, and no system certificates, which a small image may lack.
        builder = builder.no_proxy().tls_certs_only([]);
    }
    builder.build().map_err(|error| StartError::Client(error.into()))
}

/// Telemetry and credentials are confidential, so anything but loopback needs TLS.
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

/// Reads the body of a response; `None` when it is longer than `limit` bytes or incomplete.
pub(super) async fn body(response: Response, limit: usize) -> Option<Bytes> {
    let body = Limited::new(Body::from(response), limit).collect().await;
    Some(body.ok()?.to_bytes())
}

/// Describes an error with its sources, but without the URL, whose query may be a secret.
pub(super) fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let causes = successors(Some(&error as &dyn Error), |error| (**error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
