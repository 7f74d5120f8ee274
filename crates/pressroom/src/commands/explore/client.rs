//! Asks an observatory on this machine or elsewhere for its JSON.

use std::time::Duration;

use anyhow::Context as _;
use reqwest::header::ACCEPT;
use serde::{Deserialize, de::DeserializeOwned};
use url::Url;

use super::text::escaped;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The largest answer, in bytes: more than 500 traces or log records take.
const LARGEST_ANSWER: usize = 64 << 20;

/// Asks one observatory.
pub(super) struct Client {
    base: Url,
    http: reqwest::Client,
}

/// What is wrong, as the observatory says it.
#[derive(Deserialize)]
struct Refusal {
    error: String,
}

impl Client {
    /// # Errors
    /// When `base` is no HTTP URL.
    pub(super) fn new(base: &str) -> anyhow::Result<Self> {
        let base = Url::parse(base)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .context("--observatory: is no http:// or https:// URL")?;
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .no_proxy()
            .build()
            .context("no HTTP client")?;
        Ok(Self { base, http })
    }

    /// The answer to a GET of `segments` with `parameters`.
    ///
    /// # Errors
    /// When nothing listens there, or what does is no observatory, or refuses.
    pub(super) async fn get(
        &self,
        segments: &[&str],
        parameters: &[(&str, String)],
    ) -> anyhow::Result<Vec<u8>> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .ok()
            .context("--observatory: is no http:// or https:// URL")?
            .pop_if_empty()
            .extend(segments);
        if !parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(parameters);
        }
        let asked = self.http.get(url).header(ACCEPT, "application/json").send().await;
        let mut answer = match asked {
            Ok(answer) => answer,
            Err(error) if error.is_connect() => anyhow::bail!(
                "nothing listens at {}; start `pressroom` or `pressroom observatory`, or name another with --observatory",
                self.base
            ),
            Err(error) if error.is_timeout() => anyhow::bail!("no answer from {} in time", self.base),
            Err(error) => {
                return Err(error.without_url()).with_context(|| format!("no answer from {}", self.base));
            }
        };
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.context("the answer broke off")? {
            anyhow::ensure!(
                body.len() + chunk.len() <= LARGEST_ANSWER,
                "the answer is too large"
            );
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return Ok(body);
        }
        match serde_json::from_slice::<Refusal>(&body) {
            Ok(refusal) => anyhow::bail!("{}", escaped(&refusal.error)),
            Err(_) => anyhow::bail!("{} is no observatory: it answered {status}", self.base),
        }
    }

    /// The answer, read.
    pub(super) fn read<T: DeserializeOwned>(&self, answer: &[u8]) -> anyhow::Result<T> {
        serde_json::from_slice(answer)
            .ok()
            .with_context(|| format!("{} answers what no observatory of this version does", self.base))
    }
}
