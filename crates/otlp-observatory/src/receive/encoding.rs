//! Selects the encoding of OTLP/HTTP by `Content-Type`, decodes requests and encodes responses.

use axum::{
    body::Body,
    http::{
        HeaderMap, StatusCode,
        header::{ALLOW, CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse as _, Response},
};
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
    trace::v1::ExportTraceServiceRequest,
};
use prost::Message as _;
use serde::Serialize;

use super::{decoded_size, json, refused::Refused, rejection::Rejection};
use crate::export::{Export, Signal};

/// Encoding of an OTLP/HTTP request and its response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Encoding {
    Protobuf,
    Json,
}

impl Encoding {
    /// Returns the encoding that `Content-Type` names.
    ///
    /// Returns `None` if the type is missing or unsupported. Unsupported types include all types that
    /// browsers send to other sites without a preflight request ("CORS-safelisted request-header" in the
    /// Fetch standard), so pages of other sites cannot send telemetry.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let essence = content_type.split(';').next()?.trim();
        match essence.to_ascii_lowercase().as_str() {
            "application/x-protobuf" => Some(Self::Protobuf),
            "application/json" | "application/jsonl" | "application/x-ndjson" => Some(Self::Json),
            _ => None,
        }
    }

    /// Decodes a body. Returns it with the estimated size of its messages in bytes, without their strings.
    pub(super) fn decode(self, signal: Signal, body: &[u8]) -> Result<(Export, usize), Rejection> {
        let (size, decoded) = match self {
            Self::Protobuf => (
                decoded_size::check_protobuf(signal, body)?,
                decode_protobuf(signal, body).map_err(|error| error.to_string()),
            ),
            Self::Json => (
                decoded_size::check_json(body)?,
                json::decode(signal, body).map_err(|error| error.to_string()),
            ),
        };
        Ok((decoded.map_err(Rejection::Undecodable)?, size))
    }

    /// Returns the success response.
    pub(super) fn success(self, signal: Signal, refused: &Refused) -> Response {
        let bytes = match (self, refused.message()) {
            (Self::Protobuf, _) => refused.response().encode_to_vec(),
            (Self::Json, None) => b"{}".to_vec(),
            (Self::Json, Some(message)) => to_json(&serde_json::json!({"partialSuccess": {
                Refused::json_name(signal): refused.items.to_string(),
                "errorMessage": message,
            }})),
        };
        self.response(StatusCode::OK, bytes)
    }

    pub(super) fn rejection(self, rejection: &Rejection) -> Response {
        let status = rejection.status();
        let bytes = match self {
            Self::Protobuf => status.encode_to_vec(),
            Self::Json => to_json(&status),
        };
        let retry_after = rejection
            .retry_after()
            .map(|delay| [(RETRY_AFTER, delay.as_secs())]);
        let allow = matches!(rejection, Rejection::NotPost).then_some([(ALLOW, "POST")]);
        let response = self.response(rejection.http_status(), bytes);
        (retry_after, allow, response).into_response()
    }

    fn response(self, status: StatusCode, bytes: Vec<u8>) -> Response {
        let content_type = match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        };
        (status, [(CONTENT_TYPE, content_type)], Body::from(bytes)).into_response()
    }
}

fn decode_protobuf(signal: Signal, body: &[u8]) -> Result<Export, prost::DecodeError> {
    Ok(match signal {
        Signal::Traces => Export::Traces(ExportTraceServiceRequest::decode(body)?),
        Signal::Metrics => Export::Metrics(ExportMetricsServiceRequest::decode(body)?),
        Signal::Logs => Export::Logs(ExportLogsServiceRequest::decode(body)?),
    })
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("strings and numbers serialize")
}
