//! Sends requests to the backend with OTLP 1.9 over HTTP, and interprets the responses
//! (<https://opentelemetry.io/docs/specs/otlp/#otlphttp-response>).

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE},
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use otlp_recorder::retry_after;
use prost::Message as _;
use reqwest::{Client, Response};
use tokio::time::timeout;
use url::Url;

use super::{
    client::{RequestError, client, read_body, send},
    config::{Forwarding, StartError},
    timing::Timing,
    token::Tokens,
};
use crate::export::Signal;

/// Name of the server in errors.
const SERVER: &str = "the backend";

/// Time-out for reading the body of a success response, which only reports rejected items.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The backend's verdict on a request.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Accepted, except for `rejected_items`.
    Accepted { rejected_items: u64 },
    /// Permanently rejected.
    Rejected(RequestError),
    /// Permanently rejected because of its content or size; the backend may accept parts of it.
    ContentRejected(RequestError),
    /// Temporary failure. The duration, if any, is the minimum delay before the next attempt.
    Retry(RequestError, Option<Duration>),
    /// The token was rejected and has been discarded.
    Unauthorized(RequestError),
}

/// Sends requests to the backend.
#[derive(Debug)]
pub(super) struct Exchange {
    client: Client,
    urls: [Url; Signal::ALL.len()],
    tokens: Option<Tokens>,
}

impl Exchange {
    pub(super) fn new(forwarding: &Forwarding, timing: &Timing) -> Result<Self, StartError> {
        let endpoint = &forwarding.endpoint;
        let headers = headers(forwarding)?;
        let tokens = |credentials| Tokens::new(credentials, timing);
        Ok(Self {
            client: client(endpoint, "endpoint", headers, timing.request_timeout)?,
            urls: Signal::ALL.map(|signal| signal_url(endpoint, signal)),
            tokens: forwarding.credentials.as_ref().map(tokens).transpose()?,
        })
    }

    /// Sends `request`, which is already compressed with gzip.
    pub(super) async fn post(&self, signal: Signal, request: Bytes) -> Verdict {
        let mut request = self.client.post(self.urls[signal as usize].clone()).body(request);
        let mut token = None;
        if let Some(tokens) = &self.tokens {
            match tokens.authorization().await {
                Ok(authorization) => {
                    request = request.header(AUTHORIZATION, &authorization);
                    token = Some((tokens, authorization));
                }
                Err((error, retry_after)) => return Verdict::Retry(error, Some(retry_after)),
            }
        }
        let response = match send(request).await {
            Ok(response) => response,
            Err(error) => return Verdict::Retry(RequestError::new(SERVER, error), None),
        };
        let status = response.status().as_u16();
        let error = RequestError::Status(SERVER, status);
        match (status, token) {
            (200..=299, _) => Verdict::Accepted {
                rejected_items: rejected_items(response).await,
            },
            (401 | 403, Some((tokens, authorization))) => {
                tokens.discard(&authorization).await;
                Verdict::Unauthorized(error)
            }
            (429 | 502 | 503 | 504, _) => Verdict::Retry(error, retry_after(response.headers())),
            // These statuses do not depend on the content and may be temporary. Redirects are not followed.
            (300..=399 | 401 | 403, _) => Verdict::Retry(error, None),
            (400 | 413 | 422, _) => Verdict::ContentRejected(error),
            _ => Verdict::Rejected(error),
        }
    }
}

fn signal_url(endpoint: &Url, signal: Signal) -> Url {
    let mut url = endpoint.clone();
    let base = endpoint.path().trim_end_matches('/');
    url.set_path(&format!("{base}/v1/{}", signal.name()));
    url
}

fn headers(forwarding: &Forwarding) -> Result<HeaderMap, StartError> {
    let mut headers = HeaderMap::new();
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
/// The responses for all signals have the same encoding.
async fn rejected_items(response: Response) -> u64 {
    let body = timeout(RESPONSE_TIMEOUT, read_body(response)).await;
    let body = body.ok().flatten().unwrap_or_default();
    ExportTraceServiceResponse::decode(&body[..])
        .ok()
        .and_then(|response| response.partial_success)
        .and_then(|partial| u64::try_from(partial.rejected_spans).ok())
        .unwrap_or(0)
}
