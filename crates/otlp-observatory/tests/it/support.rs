//! A running observatory on free ports, and its clients.

use std::{net::SocketAddr, time::Duration};

use otlp_observatory::{Addresses, Config, Observatory};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Running observatory that stops on drop; [`Running::stop`] waits until it has stopped.
pub struct Running {
    pub addresses: Addresses,
    shutdown: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

impl Running {
    pub async fn start() -> Self {
        Self::start_with(config()).await
    }

    pub async fn start_with(config: Config) -> Self {
        let observatory = Observatory::bind(config).await.unwrap();
        let addresses = observatory.addresses();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(observatory.run(shutdown.clone()));
        Self {
            addresses,
            shutdown,
            task,
        }
    }

    /// Starts the shutdown without waiting for its end.
    pub fn request_stop(&self) {
        self.shutdown.cancel();
    }

    pub async fn stop(mut self) -> std::io::Result<()> {
        self.shutdown.cancel();
        within(&mut self.task).await.unwrap()
    }

    /// Returns the origin of the pages.
    pub fn origin(&self) -> String {
        format!("http://{}", self.addresses.pages)
    }

    /// Returns the URL of a path on the OTLP/HTTP port.
    pub fn http(&self, path: &str) -> String {
        format!("http://{}{path}", self.addresses.http)
    }
}

impl Running {
    /// Returns the JSON of a page.
    pub async fn json(&self, path: &str) -> Value {
        let response = within(
            client()
                .get(format!("http://{}{path}", self.addresses.pages))
                .send(),
        );
        let body = response.await.unwrap().bytes().await.unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    /// Polls the JSON of a page until `holds` is true.
    pub async fn json_when(&self, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let json = self.json(path).await;
            if holds(&json) {
                return json;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "{path} has not changed as expected: {json:#}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Returns a configuration with every endpoint on a free loopback port.
pub fn config() -> Config {
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    Config::default().http(free).grpc(free).health(free).pages(free)
}

/// Panics if `future` takes longer than 30 seconds.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future)
        .await
        .expect("no result within 30 seconds")
}

/// Returns a client that ignores proxy settings.
pub fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(30))
        .build()
        .unwrap()
}
