//! Parsing of the response to a request that was accepted, entirely or in part. A malformed response counts
//! as a full success.

use http::HeaderMap;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
#[cfg(feature = "json")]
use serde_json::Value;

use super::outcome::Accepted;

/// Minimum length of a header value that is hidden in messages. Shorter values are unlikely to be secrets
/// and occur in ordinary text.
const MIN_SECRET: usize = 6;

/// Parses a protobuf response. The responses of the three signals differ in field names only.
pub(super) fn from_protobuf(body: &[u8], sent: &HeaderMap) -> Accepted {
    let partial = ExportTraceServiceResponse::decode(body)
        .ok()
        .and_then(|response| response.partial_success);
    match partial {
        Some(partial) => accepted(partial.rejected_spans, &partial.error_message, sent),
        None => Accepted::default(),
    }
}

/// Parses a JSON response, in which a 64-bit integer may be a string or a number.
#[cfg(feature = "json")]
pub(super) fn from_json(body: &[u8], sent: &HeaderMap) -> Accepted {
    let response: Value = serde_json::from_slice(body).unwrap_or_default();
    let partial = &response["partialSuccess"];
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

/// Returns a message of the collector as one line, without the values of the headers that were sent.
fn presentable(text: &str, sent: &HeaderMap) -> String {
    let mut line: String = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    for value in sent.values().filter_map(|value| value.to_str().ok()) {
        for secret in [value].into_iter().chain(value.split_whitespace()) {
            if secret.len() >= MIN_SECRET {
                line = line.replace(secret, "***");
            }
        }
    }
    line
}

#[cfg(all(test, feature = "json"))]
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
        let headers = HeaderMap::new();
        assert_eq!(
            from_protobuf(&logs.encode_to_vec(), &headers),
            partial(3, "too old")
        );
        assert_eq!(from_protobuf(&metrics.encode_to_vec(), &headers), partial(5, ""));
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
            assert_eq!(from_json(json.as_bytes(), &headers), expected, "{json}");
        }
    }

    #[test]
    fn a_malformed_response_is_a_full_success() {
        for body in [
            &b""[..],
            b"\xff\xff\xff",
            b"<html>",
            b"[]",
            b"{\"partialSuccess\":[1]}",
        ] {
            assert_eq!(from_protobuf(body, &HeaderMap::new()), Accepted::default());
            assert_eq!(from_json(body, &HeaderMap::new()), Accepted::default());
        }
    }

    #[test]
    fn a_message_of_the_collector_is_one_line_without_header_values() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Bearer t0p-s3cret".parse().unwrap());
        headers.insert("x-scope", "a".parse().unwrap());
        assert_eq!(
            presentable(" bad token\nt0p-s3cret of a scope ", &headers),
            "bad token *** of a scope"
        );
    }
}
