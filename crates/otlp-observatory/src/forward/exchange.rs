//! One request to the backend, as OTLP 1.9 over HTTP wants it, and what its answer means.
//! (<https://opentelemetry.io/docs/specs/otlp/#otlphttp-response>)

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, DATE, RETRY_AFTER, USER_AGENT},
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use reqwest::{Client, Response};
use tokio::time::timeout;
use url::Url;

use super::{
    Forwarding, SIGNALS, StartError,
    client::{body, check, client, described},
    pace::Pace,
    token::{TokenError, Tokens},
};
use crate::export::Signal;

const LONGEST_ANSWER: usize = 64 * 1024;

/// For reading what a backend says about a request that it has taken; that is not worth more waiting.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// Why a request was not taken. The body of a refusal is not read: its words may repeat what was sent.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("the backend cannot be reached: {0}")]
    Connection(String),
    #[error("the backend did not answer in time")]
    Timeout,
    #[error("the backend answered HTTP {0}")]
    Status(u16),
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl SendError {
    /// Whether the backend may take a part of what it refused.
    pub(super) fn is_about_content(&self) -> bool {
        matches!(self, Self::Status(400 | 413 | 422))
    }
}

/// What became of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The backend has it, but for so many items that it did not want.
    Taken { rejected: u64 },
    /// It will not be taken, however often it is sent.
    Refused(SendError),
    /// It may be taken later; not before some time has passed, if one is given.
    Later(SendError, Option<Duration>),
    /// The token was not good, and is thrown away.
    Unauthorized(SendError),
}

#[derive(Debug)]
pub(super) struct Exchange {
    client: Client,
    urls: [Url; SIGNALS.len()],
    /// With which every request is sent, secrets included.
    headers: HeaderMap,
    tokens: Option<Tokens>,
    timeout: Duration,
}

impl Exchange {
    pub(super) fn new(forwarding: &Forwarding, pace: &Pace) -> Result<Self, StartError> {
        check(&forwarding.endpoint, "endpoint")?;
        let tokens = match &forwarding.credentials {
            Some(credentials) => {
                check(&credentials.token_url, "token URL")?;
                Some(Tokens::new(credentials, client(&credentials.token_url)?, pace))
            }
            None => None,
        };
        Ok(Self {
            client: client(&forwarding.endpoint)?,
            urls: SIGNALS.map(|signal| url(&forwarding.endpoint, signal)),
            headers: headers(forwarding)?,
            tokens,
            timeout: pace.request_timeout,
        })
    }

    /// Sends `request`, which is gzip'd.
    pub(super) async fn post(&self, signal: Signal, request: Bytes) -> Outcome {
        let mut headers = self.headers.clone();
        if let Some(tokens) = &self.tokens {
            match tokens.authorization().await {
                Ok(authorization) => headers.insert(AUTHORIZATION, authorization),
                Err(none) => return Outcome::Later(none.error.into(), Some(none.wait)),
            };
        }
        let answer = self
            .client
            .post(self.urls[signal as usize].clone())
            .headers(headers.clone())
            .timeout(self.timeout)
            .body(request)
            .send()
            .await;
        let response = match answer {
            Ok(response) => response,
            Err(error) if error.is_timeout() => return Outcome::Later(SendError::Timeout, None),
            Err(error) => return Outcome::Later(SendError::Connection(described(error)), None),
        };
        let status = response.status();
        let error = SendError::Status(status.as_u16());
        match status.as_u16() {
            200..=299 => Outcome::Taken {
                rejected: rejected(response).await,
            },
            401 | 403 => {
                let (Some(tokens), Some(authorization)) = (&self.tokens, headers.get(AUTHORIZATION)) else {
                    return Outcome::Later(error, None);
                };
                tokens.discard(authorization).await;
                Outcome::Unauthorized(error)
            }
            429 | 502 | 503 | 504 => Outcome::Later(error, retry_after(response.headers())),
            // A redirect is not about what was sent; it is not followed, and may be gone tomorrow.
            300..=399 => Outcome::Later(error, None),
            _ => Outcome::Refused(error),
        }
    }
}

fn url(endpoint: &Url, signal: Signal) -> Url {
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
        HeaderValue::from_static(concat!("pressroom-observatory/", env!("CARGO_PKG_VERSION"))),
    );
    for (name, value) in &forwarding.headers {
        let wrong = || StartError::Header { name: name.clone() };
        let key = HeaderName::try_from(name).map_err(|_| wrong())?;
        let mut value = HeaderValue::try_from(value.reveal()).map_err(|_| wrong())?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    Ok(headers)
}

/// How many items a backend did not want; none when its answer cannot be read. The answers of all signals are encoded
/// alike.
async fn rejected(response: Response) -> u64 {
    let answer = timeout(ANSWER_TIME, body(response, LONGEST_ANSWER)).await;
    let answer = answer.ok().flatten().unwrap_or_default();
    ExportTraceServiceResponse::decode(&answer[..])
        .ok()
        .and_then(|answer| answer.partial_success)
        .and_then(|partial| u64::try_from(partial.rejected_spans).ok())
        .unwrap_or(0)
}

/// Seconds, or a date: the wait until then is counted from the answer's own date, because clocks differ.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok().map(str::trim);
    let wish = text(RETRY_AFTER)?;
    if let Ok(seconds) = wish.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(wish).ok()?;
    let now = text(DATE).and_then(|date| httpdate::parse_http_date(date).ok());
    let wait = until.duration_since(now.unwrap_or_else(SystemTime::now));
    Some(wait.unwrap_or_default())
}
