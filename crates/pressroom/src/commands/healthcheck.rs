//! Asks the API on this machine how it is, for containers without an HTTP client.

use std::{io::Write as _, time::Duration};

use anyhow::Context as _;

use super::{install_cryptography, reachable};
use crate::config::Config;

/// How long the API may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Succeeds when the API answers that it is healthy or degraded.
///
/// # Errors
/// When it does not answer, or answers that it is unhealthy.
pub fn healthcheck(config: &Config) -> anyhow::Result<()> {
    install_cryptography();
    let url = format!("http://{}/api/health", reachable(config.listen));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let (status, body) = runtime.block_on(async {
        let client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()?;
        let answer = client.get(&url).send().await.context("no answer")?;
        let status = answer.status();
        Ok::<_, anyhow::Error>((status, answer.text().await?))
    })?;
    writeln!(std::io::stdout(), "{body}")?;
    anyhow::ensure!(status.is_success(), "the API is unhealthy");
    Ok(())
}
