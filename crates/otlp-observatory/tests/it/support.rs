//! A running observatory on free ports, and clients for it.

use std::{net::SocketAddr, time::Duration};

use otlp_observatory::{Addresses, Config, Observatory};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Stops when it is dropped; [`Running::stop`] waits for it.
pub struct Running {
    pub addresses: Addresses,
    shutdown: CancellationToken,
    ended: JoinHandle<std::io::Result<()>>,
}

impl Running {
    pub async fn start() -> Self {
        Self::start_with(config()).await
    }

    pub async fn start_with(config: Config) -> Self {
        let observatory = Observatory::bind(config).await.unwrap();
        let addresses = observatory.addresses();
        let shutdown = CancellationToken::new();
        let ended = tokio::spawn(observatory.run(shutdown.clone()));
        Self {
            addresses,
            shutdown,
            ended,
        }
    }

    /// Asks it to end, without waiting.
    pub fn begin_to_stop(&self) {
        self.shutdown.cancel();
    }

    pub async fn stop(mut self) -> std::io::Result<()> {
        self.shutdown.cancel();
        within(&mut self.ended).await.unwrap()
    }

    /// `http://…` at the OTLP/HTTP port.
    pub fn http(&self, path: &str) -> String {
        format!("http://{}{path}", self.addresses.http)
    }
}

impl Running {
    /// The JSON at `path` of the pages.
    pub async fn json(&self, path: &str) -> Value {
        let response = within(
            client()
                .get(format!("http://{}{path}", self.addresses.pages))
                .send(),
        );
        let body = response.await.unwrap().bytes().await.unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    /// The JSON at `path` as soon as `holds` does.
    pub async fn json_when(&self, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let json = self.json(path).await;
            if holds(&json) {
                return json;
            }
            assert!(tokio::time::Instant::now() < deadline, "{path} stays {json:#}");
            // Between two looks; the deadline above is what is waited for.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Everything on free ports of this machine.
pub fn config() -> Config {
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    Config {
        http: free,
        grpc: Some(free),
        health: Some(free),
        pages: free,
        ..Config::default()
    }
}

/// Fails rather than hangs.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future)
        .await
        .expect("it takes too long")
}

/// Without the machine's proxies and certificates.
pub fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(30))
        .build()
        .unwrap()
}
