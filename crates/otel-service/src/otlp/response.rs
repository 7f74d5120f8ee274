//! What a collector says after it has taken a request: everything, or a partial success. An answer that cannot be read
//! changes nothing about that it was taken.

use http::HeaderMap;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use serde_json::Value;

use super::Accepted;
use crate::mask::mask;

/// The longest message that is passed on, in characters.
const LONGEST_MESSAGE: usize = 256;

/// Shorter words than this are no secrets and would blacken innocent text.
const SHORTEST_SECRET: usize = 6;

/// Reads a protobuf answer. Those of the three signals differ in the names of their fields only.
pub(super) fn of_protobuf(body: &[u8], sent: &HeaderMap) -> Accepted {
    let partial = ExportTraceServiceResponse::decode(body)
        .ok()
        .and_then(|response| response.partial_success);
    match partial {
        Some(partial) => accepted(partial.rejected_spans, &partial.error_message, sent),
        None => Accepted::default(),
    }
}

/// Reads a JSON answer, in which a 64-bit integer may be text or a number.
pub(super) fn of_json(body: &[u8], sent: &HeaderMap) -> Accepted {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let partial = &answer["partialSuccess"];
    let rejected = ["rejectedSpans", "rejectedDataPoints", "rejectedLogRecords"]
        .iter()
        .find_map(|name| match &partial[*name] {
            Value::String(text) => text.parse().ok(),
            other => other.as_i64(),
        });
    let message = partial["errorMessage"].as_str().unwrap_or_default();
    accepted(rejected.unwrap_or_default(), message, sent)
}

fn accepted(rejected: i64, message: &str, sent: &HeaderMap) -> Accepted {
    let message = presentable(message, sent);
    Accepted {
        rejected: u64::try_from(rejected).unwrap_or_default(),
        message: (!message.is_empty()).then_some(message),
    }
}

/// A collector's words as they may be logged: one short line, masked, without what we sent in headers.
fn presentable(text: &str, sent: &HeaderMap) -> String {
    let mut line: String = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    for value in sent.values().filter_map(|value| value.to_str().ok()) {
        for secret in [value].into_iter().chain(value.split_whitespace()) {
            if secret.len() >= SHORTEST_SECRET {
                line = line.replace(secret, "***");
            }
        }
    }
    mask(&line).chars().take(LONGEST_MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::logs::v1::{
        ExportLogsPartialSuccess, ExportLogsServiceResponse,
    };
    use opentelemetry_proto::tonic::collector::metrics::v1::{
        ExportMetricsPartialSuccess, ExportMetricsServiceResponse,
    };

    fn partial(rejected: u64, message: &str) -> Accepted {
        Accepted {
            rejected,
            message: (!message.is_empty()).then(|| message.to_owned()),
        }
    }

    #[test]
    fn partial_successes_of_every_signal_are_read() {
        let logs = ExportLogsServiceResponse {
            partial_success: Some(ExportLogsPartialSuccess {
                rejected_log_records: 3,
                error_message: "too old".to_owned(),
            }),
        };
        let metrics = ExportMetricsServiceResponse {
            partial_success: Some(ExportMetricsPartialSuccess {
                rejected_data_points: 5,
                error_message: String::new(),
            }),
        };
        let none = HeaderMap::new();
        assert_eq!(of_protobuf(&logs.encode_to_vec(), &none), partial(3, "too old"));
        assert_eq!(of_protobuf(&metrics.encode_to_vec(), &none), partial(5, ""));
        for (json, expected) in [
            (
                r#"{"partialSuccess":{"rejectedSpans":"7","errorMessage":"x"}}"#,
                partial(7, "x"),
            ),
            (r#"{"partialSuccess":{"rejectedDataPoints":2}}"#, partial(2, "")),
            (
                r#"{"partialSuccess":{"rejectedLogRecords":"-1"}}"#,
                partial(0, ""),
            ),
            (
                r#"{"partialSuccess":{"errorMessage":"slow down"}}"#,
                partial(0, "slow down"),
            ),
            (r#"{"partialSuccess":null}"#, partial(0, "")),
        ] {
            assert_eq!(of_json(json.as_bytes(), &none), expected, "{json}");
        }
    }

    #[test]
    fn garbage_says_nothing() {
        for body in [
            &b""[..],
            b"\xff\xff\xff",
            b"<html>",
            b"[]",
            b"{\"partialSuccess\":[1]}",
        ] {
            assert_eq!(of_protobuf(body, &HeaderMap::new()), Accepted::default());
            assert_eq!(of_json(body, &HeaderMap::new()), Accepted::default());
        }
    }

    #[test]
    fn words_of_the_collector_are_short_masked_and_without_our_secrets() {
        let mut sent = HeaderMap::new();
        sent.insert("authorization", "Bearer t0p-s3cret".parse().unwrap());
        sent.insert("x-scope", "a".parse().unwrap());
        assert_eq!(
            presentable(" bad token\nt0p-s3cret of alice@example.com ", &sent),
            "bad token *** of al***@example.com"
        );
        assert_eq!(
            presentable(&"ä".repeat(1_000), &sent).chars().count(),
            LONGEST_MESSAGE
        );
    }
}
