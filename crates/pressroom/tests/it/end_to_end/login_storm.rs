//! Memory of the API during and after many concurrent logins.
#![cfg(target_os = "linux")]

use futures_util::future::join_all;
use serde_json::json;

use super::installation::Installation;
use crate::support::{process::Process, raw};

/// Returns the resident memory of a process and its peak, in MiB.
fn memory(process: &Process) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let field = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    };
    (field("VmRSS:"), field("VmHWM:"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_remains_bounded_in_a_storm_of_logins() {
    let installation = Installation::new().await;
    for scheme in ["argon2id", "scrypt"] {
        let variables = [
            ("RATE_LIMIT", "off"),
            ("PASSWORD_SCHEME", scheme),
            ("OTEL_SDK_DISABLED", "true"),
        ];
        let (mut serve, api) = installation.serve_with(&variables).await;
        raw::register(api, &format!("{scheme}@example.com")).await;
        let body = json!({"email": format!("{scheme}@example.com"), "password": "password123"});
        let logins = (0..128).map(|_| raw::request(api, "POST", "/api/login", None, Some(&body)));
        let responses = join_all(logins).await;
        for response in &responses {
            assert!(matches!(response.status, 200 | 503), "{}", response.head);
        }
        assert!(responses.iter().any(|response| response.status == 200));
        let (resident, peak) = memory(&serve);
        assert!(resident < 100, "{scheme}: {resident} MiB afterwards");
        assert!(peak < 128, "{scheme}: {peak} MiB at most");
        assert!(serve.terminate().await.success(), "{}", serve.output());
    }
}
