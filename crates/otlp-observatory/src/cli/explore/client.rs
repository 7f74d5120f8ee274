//! HTTP client for the JSON API of an observatory.

use std::time::Duration;

use anyhow::Context as _;
use reqwest::header::ACCEPT;
use serde::{Deserialize, de::DeserializeOwned};
use telemetry::escaped;
use url::Url;

/// Time limit of a request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum size of a response, in bytes; enough for 500 traces or log records.
const MAX_RESPONSE_BYTES: usize = 64 << 20;

const NOT_A_URL: &str = "--observatory: is not an http:// or https:// URL";

/// Client for one observatory.
pub(super) struct Client {
    base: Url,
    http: reqwest::Client,
}

/// Body of an error response of the observatory.
#[derive(Deserialize)]
struct ErrorBody {
    error: String,
}

impl Client {
    /// Creates a client for the observatory at `base`.
    ///
    /// # Errors
    /// Returns an error if `base` is not an HTTP URL.
    pub(super) fn new(base: &str) -> anyhow::Result<Self> {
        let base = Url::parse(base)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .context(NOT_A_URL)?;
        // Fails if the process has already installed a provider, which is then used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .no_proxy()
            .build()
            .context("cannot set up the HTTP client")?;
        Ok(Self { base, http })
    }

    /// Requests the path made of `segments`, with `parameters`, and returns the response body.
    ///
    /// # Errors
    /// Returns an error if nothing listens at the address, the server is not an observatory, or the server
    /// rejects the request.
    pub(super) async fn get(
        &self,
        segments: &[&str],
        parameters: &[(&str, String)],
    ) -> anyhow::Result<Vec<u8>> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .ok()
            .context(NOT_A_URL)?
            .pop_if_empty()
            .extend(segments);
        if !parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(parameters);
        }
        let sent = self.http.get(url).header(ACCEPT, "application/json").send().await;
        let base = &self.base;
        let mut response = sent.map_err(|error| match error {
            error if error.is_connect() => anyhow::anyhow!(
                "nothing listens at {base}; start the observatory, or set another address with --observatory"
            ),
            error if error.is_timeout() => {
                anyhow::anyhow!("{base} did not respond within {} s", TIMEOUT.as_secs())
            }
            error => {
                anyhow::Error::from(error.without_url()).context(format!("the request to {base} failed"))
            }
        })?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.context("the response is incomplete")? {
            anyhow::ensure!(
                body.len() + chunk.len() <= MAX_RESPONSE_BYTES,
                "the response is larger than {MAX_RESPONSE_BYTES} bytes; lower --limit"
            );
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return Ok(body);
        }
        match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => anyhow::bail!("{}", escaped(&body.error)),
            Err(_) => anyhow::bail!("{base} is not an observatory: it responded with {status}"),
        }
    }

    /// Parses the body of a response.
    ///
    /// # Errors
    /// Returns an error if the body does not have the expected format.
    pub(super) fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> anyhow::Result<T> {
        let parsed = serde_json::from_slice(body).ok();
        parsed.with_context(|| format!("{} is not an observatory of this version", self.base))
    }
}
