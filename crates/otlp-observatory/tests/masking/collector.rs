//! The OpenTelemetry Collector with the delivered configuration.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::sink::Sink;
use crate::support::client;

/// Delivered configurations, from the root of the repository.
const FILES: [&str; 2] = ["config/otel-config.yaml", "deploy/grafana/otel-prometheus.yaml"];

pub struct Collector {
    pub url: String,
    /// URL of the metrics for Prometheus.
    pub prometheus: String,
    process: Child,
}

impl Collector {
    /// Starts the collector; `sink` is its Scout.
    pub async fn start(sink: &Sink) -> Self {
        let [http, grpc, health, zpages, prometheus] = [(); 5].map(|()| free_address());
        let mut command = command();
        for (setting, address) in [
            ("receivers::otlp::protocols::http::endpoint", http),
            ("receivers::otlp::protocols::grpc::endpoint", grpc),
            ("extensions::health_check::endpoint", health),
            ("extensions::zpages::endpoint", zpages),
            ("exporters::prometheus::endpoint", prometheus),
        ] {
            command.arg(format!("--set={setting}={address}"));
        }
        // The collector's own metrics have a port that cannot be chosen as easily.
        command.arg("--set=service::telemetry::metrics::level=none");
        command
            .env("SCOUT_ENDPOINT", sink.url())
            .env("SCOUT_TOKEN_URL", format!("{}/token", sink.url()))
            .env("SCOUT_CLIENT_ID", "pressroom")
            .env("SCOUT_CLIENT_SECRET", "secret");
        let collector = Self {
            url: format!("http://{http}"),
            prometheus: format!("http://{prometheus}/metrics"),
            process: command.spawn().unwrap(),
        };
        for _ in 0..1_500 {
            let ready = client().get(format!("http://{health}")).send().await;
            if ready.is_ok_and(|response| response.status() == 200) {
                return collector;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the collector is not ready after 30 seconds");
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "the environment names the program")]
fn program() -> String {
    std::env::var("TEST_COLLECTOR")
        .expect("TEST_COLLECTOR must name the collector of tests/collector; scripts/test builds it and sets the variable")
}

/// Returns a command without an environment that reads the delivered files.
fn command() -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut command = Command::new(program());
    command.env_clear().stdin(Stdio::null());
    for file in FILES {
        command.arg("--config").arg(root.join(file));
    }
    command
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn the_delivered_files_are_valid_without_any_variable() {
    let checked = command().arg("validate").output().unwrap();
    let errors = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{errors}");
    assert!(!errors.contains("deprecated"), "{errors}");
}
