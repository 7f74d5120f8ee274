//! Memory of the API during and after many concurrent logins.
#![cfg(target_os = "linux")]

use futures_util::future::join_all;
use serde_json::json;

use super::installation::Installation;
use crate::support::raw;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_bounded_in_a_storm_of_logins() {
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
        let (resident, peak) = (serve.memory_mib("VmRSS"), serve.memory_mib("VmHWM"));
        assert!(resident < 100, "{scheme}: {resident} MiB afterwards");
        assert!(peak < 128, "{scheme}: {peak} MiB at most");
        assert!(serve.terminate().await.success(), "{}", serve.output());
    }
}
