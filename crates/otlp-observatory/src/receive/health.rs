//! Health endpoint, compatible with the collector's `health_check` extension: `GET` at any path.

use std::time::{Duration, Instant, SystemTime};

use axum::{
    Router,
    http::{StatusCode, header::CONTENT_TYPE},
    routing::get,
};
use jiff::Timestamp;
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// Returns routes that respond with 200, or with 503 once `stopping` is cancelled.
pub(crate) fn router(stopping: CancellationToken) -> Router {
    let started = Instant::now();
    let since = Timestamp::try_from(SystemTime::now()).unwrap_or_default();
    let report = get(async move || {
        let (code, body) = if stopping.is_cancelled() {
            let never = "0001-01-01T00:00:00Z";
            let body = json!({"status": "Server not available", "upSince": never, "uptime": ""});
            (StatusCode::SERVICE_UNAVAILABLE, body)
        } else {
            let (since, uptime) = (since.to_string(), go_duration(started.elapsed()));
            let body = json!({"status": "Server available", "upSince": since, "uptime": uptime});
            (StatusCode::OK, body)
        };
        (code, [(CONTENT_TYPE, "application/json")], body.to_string())
    });
    Router::new().route("/", report.clone()).route("/{*path}", report)
}

/// Formats a duration like Go (`1h2m3.4s`, `1m2.3s`, `2.3s`), except that less than a second is also in
/// seconds (`0.25s`).
fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let minutes = match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => String::new(),
        (0, minutes) => format!("{minutes}m"),
        (hours, minutes) => format!("{hours}h{minutes}m"),
    };
    let fraction = format!(".{:09}", duration.subsec_nanos());
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    format!("{minutes}{}{fraction}s", seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_formatted_like_go() {
        for (duration, printed) in [
            (Duration::ZERO, "0s"),
            (Duration::from_millis(2300), "2.3s"),
            (Duration::from_millis(62_300), "1m2.3s"),
            (Duration::from_secs(3600), "1h0m0s"),
            (Duration::new(90_061, 1), "25h1m1.000000001s"),
        ] {
            assert_eq!(go_duration(duration), printed);
        }
    }
}
