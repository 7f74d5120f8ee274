//! Health endpoint, compatible with the collector's `health_check` extension: GET at any path.

use std::{
    fmt::Write as _,
    time::{Duration, Instant, SystemTime},
};

use axum::{
    Router,
    http::{StatusCode, header::CONTENT_TYPE},
    routing::get,
};
use jiff::Timestamp;
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// Returns routes that answer 200, or 503 once `stopping` is cancelled.
pub(crate) fn router(stopping: CancellationToken) -> Router {
    let started = Instant::now();
    let since = Timestamp::try_from(SystemTime::now()).unwrap_or_default();
    let answer = get(async move || {
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
    Router::new().route("/", answer.clone()).route("/{*path}", answer)
}

/// Formats a duration like Go: `1h2m3.4s`, `1m2.3s`, `2.3s`. Unlike in Go, less than a second is in seconds:
/// `0.25s`.
fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut text = String::new();
    if hours > 0 {
        let _ = write!(text, "{hours}h");
    }
    if hours > 0 || minutes > 0 {
        let _ = write!(text, "{minutes}m");
    }
    let _ = write!(text, "{seconds}");
    let nanos = format!("{:09}", duration.subsec_nanos());
    let fraction = nanos.trim_end_matches('0');
    if !fraction.is_empty() {
        let _ = write!(text, ".{fraction}");
    }
    text.push('s');
    text
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
