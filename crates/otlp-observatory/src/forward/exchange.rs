//! Sends requests to the backend by OTLP 1.9 over HTTP, and interprets the responses
//! (<https://opentelemetry.io/docs/specs/otlp/#otlphttp-response>).

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT},
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use otlp_recorder::retry_after;
use prost::Message as _;
use reqwest::{Client, Response};
use tokio::time::timeout;
use url::Url;

use super::{
    client::{body, client, describe},
    config::{Forwarding, StartError},
    timing::Timing,
    token::{TokenError, Tokens},
};
use crate::export::Signal;

const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// Time-out for reading the body of a success response, which only reports rejected items.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Reason a request was not accepted. The body of a refusal is not read, because it may quote the request.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("cannot reach the backend: {0}")]
    Connection(String),
    #[error("the backend did not respond in time")]
    Timeout,
    #[error("the backend responded with HTTP {0}")]
    Status(u16),
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl SendError {
    /// Whether the backend may accept parts of the rejected request.
    pub(super) fn concerns_content(&self) -> bool {
        matches!(self, Self::Status(400 | 413 | 422))
    }
}

/// The backend's verdict on a request.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Accepted, except for `rejected_items`.
    Accepted { rejected_items: u64 },
    /// Permanently refused.
    Refused(SendError),
    /// Temporary failure. The duration, if any, is the minimum delay before the next attempt.
    Retry(SendError, Option<Duration>),
    /// The token was rejected and has been discarded.
    Unauthorized(SendError),
}

/// Sends requests to the backend.
#[derive(Debug)]
pub(super) struct Exchange {
    client: Client,
    urls: [Url; Signal::ALL.len()],
    /// Headers of every request, including secrets.
    headers: HeaderMap,
    tokens: Option<Tokens>,
    timeout: Duration,
}

impl Exchange {
    pub(super) fn new(forwarding: &Forwarding, timing: &Timing) -> Result<Self, StartError> {
        let endpoint = &forwarding.endpoint;
        let tokens = |credentials| Tokens::new(credentials, timing);
        Ok(Self {
            client: client(endpoint, "endpoint")?,
            urls: Signal::ALL.map(|signal| signal_url(endpoint, signal)),
            headers: headers(forwarding)?,
            tokens: forwarding.credentials.as_ref().map(tokens).transpose()?,
            timeout: timing.request_timeout,
        })
    }

    /// Sends `request`, which is compressed with gzip.
    pub(super) async fn post(&self, signal: Signal, request: Bytes) -> Verdict {
        let mut headers = self.headers.clone();
        if let Some(tokens) = &self.tokens {
            match tokens.authorization().await {
                Ok(authorization) => headers.insert(AUTHORIZATION, authorization),
                Err((error, retry_after)) => return Verdict::Retry(error.into(), Some(retry_after)),
            };
        }
        let sent = self
            .client
            .post(self.urls[signal as usize].clone())
            .headers(headers.clone())
            .timeout(self.timeout)
            .body(request)
            .send()
            .await;
        let response = match sent {
            Ok(response) => response,
            Err(error) if error.is_timeout() => return Verdict::Retry(SendError::Timeout, None),
            Err(error) => return Verdict::Retry(SendError::Connection(describe(error)), None),
        };
        let status = response.status();
        let error = SendError::Status(status.as_u16());
        match status.as_u16() {
            200..=299 => Verdict::Accepted {
                rejected_items: rejected_items(response).await,
            },
            401 | 403 => {
                let (Some(tokens), Some(authorization)) = (&self.tokens, headers.get(AUTHORIZATION)) else {
                    return Verdict::Retry(error, None);
                };
                tokens.discard(authorization).await;
                Verdict::Unauthorized(error)
            }
            429 | 502 | 503 | 504 => Verdict::Retry(error, retry_after(response.headers())),
            // A redirect does not concern the content; it is not followed and may be temporary.
            300..=399 => Verdict::Retry(error, None),
            _ => Verdict::Refused(error),
        }
    }
}

fn signal_url(endpoint: &Url, signal: Signal) -> Url {
    let mut url = endpoint.clone();
    url.set_path(&format!(
        "{}/v1/{}",
        endpoint.path().trim_end_matches('/'),
        signal.name()
    ));
    url
}

fn headers(forwarding: &Forwarding) -> Result<HeaderMap, StartError> {
    let mut headers = HeaderMap::new();
    headers.insert(
        USER_AGENT,
        HeaderValue::from_static(concat!("otlp-observatory/", env!("CARGO_PKG_VERSION"))),
    );
    for (name, value) in &forwarding.headers {
        let invalid = || StartError::Header { name: name.clone() };
        let key = HeaderName::try_from(name).map_err(|_| invalid())?;
        let mut value = HeaderValue::try_from(value.reveal()).map_err(|_| invalid())?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    Ok(headers)
}

/// Returns the number of items that the backend rejected; 0 if the response cannot be read.
///
/// The responses of all signals have the same encoding.
async fn rejected_items(response: Response) -> u64 {
    let body = timeout(RESPONSE_TIMEOUT, body(response, MAX_RESPONSE_BYTES)).await;
    let body = body.ok().flatten().unwrap_or_default();
    ExportTraceServiceResponse::decode(&body[..])
        .ok()
        .and_then(|response| response.partial_success)
        .and_then(|partial| u64::try_from(partial.rejected_spans).ok())
        .unwrap_or(0)
}
