//! `pressroom healthcheck`: asks the API on this machine for its health, for containers without an HTTP
//! client.

use std::{io::Write as _, time::Duration};

use anyhow::Context as _;

use super::{current_thread, install_cryptography, reachable};
use crate::config::HealthcheckConfig;

/// Maximum wait for the answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Succeeds when the API answers that it is healthy or degraded.
///
/// # Errors
/// Returns an error if the service does not respond or is unhealthy.
pub fn healthcheck(config: HealthcheckConfig) -> anyhow::Result<()> {
    install_cryptography();
    let url = format!("http://{}/api/health", reachable(config.api));
    let (status, body) = current_thread()?.block_on(async {
        let client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()?;
        let answer = client
            .get(&url)
            .send()
            .await
            .with_context(|| format!("no answer from {url}"))?;
        let status = answer.status();
        Ok::<_, anyhow::Error>((status, answer.text().await?))
    })?;
    writeln!(std::io::stdout(), "{body}")?;
    anyhow::ensure!(status.is_success(), "the API at {url} is unhealthy");
    Ok(())
}
