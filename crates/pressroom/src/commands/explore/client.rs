//! HTTP client for the JSON API of an observatory.

use std::time::Duration;

use anyhow::Context as _;
use reqwest::header::ACCEPT;
use serde::{Deserialize, de::DeserializeOwned};
use url::Url;

use super::text::escaped;

/// Time limit of a request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum size of a response in bytes, more than 500 traces or log records need.
const MAX_RESPONSE_BYTES: usize = 64 << 20;

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
            .context("--observatory: is not an http:// or https:// URL")?;
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
    /// Returns an error if nothing listens at the address, the server is not an observatory, or it
    /// refuses the request.
    pub(super) async fn get(
        &self,
        segments: &[&str],
        parameters: &[(&str, String)],
    ) -> anyhow::Result<Vec<u8>> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .ok()
            .context("--observatory: is not an http:// or https:// URL")?
            .pop_if_empty()
            .extend(segments);
        if !parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(parameters);
        }
        let sent = self.http.get(url).header(ACCEPT, "application/json").send().await;
        let mut response = match sent {
            Ok(response) => response,
            Err(error) if error.is_connect() => anyhow::bail!(
                "nothing listens at {}; start `pressroom` or `pressroom observatory`, \
                 or name another address with --observatory",
                self.base
            ),
            Err(error) if error.is_timeout() => {
                anyhow::bail!("{} did not respond within {} s", self.base, TIMEOUT.as_secs())
            }
            Err(error) => {
                return Err(error.without_url())
                    .with_context(|| format!("the request to {} failed", self.base));
            }
        };
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
            Err(_) => anyhow::bail!("{} is not an observatory: it responded with {status}", self.base),
        }
    }

    /// Parses the body of a response.
    ///
    /// # Errors
    /// Returns an error if the body does not have the expected format.
    pub(super) fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> anyhow::Result<T> {
        serde_json::from_slice(body).ok().with_context(|| {
            format!(
                "the response of {} is not that of an observatory of this version",
                self.base
            )
        })
    }
}
