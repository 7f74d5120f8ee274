//! `pressroom healthcheck`: requests the health of the API on this machine, for containers without an HTTP
//! client.

use std::{io::Write as _, time::Duration};

use anyhow::Context as _;

use super::block_on;
use crate::config::HealthcheckConfig;

/// Time limit of the request.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Succeeds if the API is healthy or degraded; with `ready`, if it accepts requests.
///
/// # Errors
/// Returns an error if the API does not respond, is unhealthy, or is not ready.
pub fn healthcheck(config: HealthcheckConfig, ready: bool) -> anyhow::Result<()> {
    let (path, problem) = if ready {
        ("/api/health/ready", "not ready")
    } else {
        ("/api/health", "unhealthy")
    };
    let url = format!("http://{}{path}", config.api.reachable());
    block_on(async {
        let client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()?;
        let response = client.get(&url).send().await.map_err(reqwest::Error::without_url);
        let response = response.with_context(|| {
            format!("cannot reach the API at {url}; start it, or set HOST and PORT to its address")
        })?;
        let status = response.status();
        let printed = writeln!(std::io::stdout(), "{}", response.text().await?);
        anyhow::ensure!(status.is_success(), "the API at {url} is {problem}");
        Ok(printed?)
    })
}
