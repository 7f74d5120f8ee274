//! OTLP over HTTP, with protobuf or JSON in the body.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use http::header::{
    CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION,
    RETRY_AFTER, USER_AGENT,
};
use http::{StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prost::bytes::Bytes;
use tokio::time::timeout;

use super::connector::ProxyConnector;
#[cfg(feature = "json")]
use super::json;
use super::outcome::{
    Accepted, MAX_RESPONSE, Retry, SendError, TransportError, USER_AGENT as OUR_USER_AGENT, described,
};
use super::response;
use super::tls::Tls;
use crate::collector::{Collector, Compression, Protocol};
use crate::destination::Request;

/// Time limit for reading the response to an accepted request.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(feature = "tls")]
type Connector = hyper_rustls::HttpsConnector<ProxyConnector>;
#[cfg(not(feature = "tls"))]
type Connector = ProxyConnector;

/// A client that follows no redirects, because a redirect would lose the body and send the headers to another
/// server.
type Client = legacy::Client<Connector, Full<Bytes>>;

#[derive(Debug)]
pub(crate) struct Http {
    client: Client,
    url: Uri,
    /// Headers of every request, including secrets.
    headers: HeaderMap,
    protocol: Protocol,
    compression: Compression,
    /// Time limit of one export, retries included.
    pub(super) timeout: Duration,
}

impl Http {
    pub(super) fn new(collector: &Collector, warnings: &mut Vec<String>) -> Result<Self, TransportError> {
        let url: Uri = collector.endpoint.parse().map_err(|_| TransportError::Endpoint)?;
        if url.host().is_none() {
            return Err(TransportError::Endpoint);
        }
        let content_type = match collector.protocol {
            Protocol::HttpJson => "application/json",
            _ => "application/x-protobuf",
        };
        let mut headers = collector.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers
            .entry(USER_AGENT)
            .or_insert(HeaderValue::from_static(OUR_USER_AGENT));
        let compression = available(collector.compression, warnings);
        if compression == Compression::Gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let connector = ProxyConnector::new(collector.proxy.as_ref());
        if let Some(authorization) = connector.authorization(&url) {
            headers.insert(PROXY_AUTHORIZATION, authorization);
        }
        Ok(Self {
            client: client(connector, Tls::read(collector, warnings)?)?,
            url,
            headers,
            protocol: collector.protocol,
            compression,
            timeout: collector.timeout,
        })
    }

    /// Returns the body of `request`, for all attempts to send it.
    pub(super) fn body(&self, request: &Request) -> Bytes {
        let plain = match self.protocol {
            #[cfg(feature = "json")]
            Protocol::HttpJson => json::json_body(request).into(),
            _ => request.protobuf().clone(),
        };
        match self.compression {
            #[cfg(feature = "gzip")]
            Compression::Gzip => gzip(&plain),
            _ => plain,
        }
    }

    pub(super) async fn attempt(&self, body: Bytes) -> Result<Accepted, SendError> {
        let mut request = http::Request::post(self.url.clone())
            .body(Full::new(body))
            .map_err(|error| SendError::connection(error.to_string()))?;
        *request.headers_mut() = self.headers.clone();
        let response = self
            .client
            .request(request)
            .await
            .map_err(|error| SendError::connection(described(&error)))?;
        let status = response.status();
        if !status.is_success() {
            return Err(rejected(status, response.headers()));
        }
        #[cfg(feature = "json")]
        let is_json = response
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
        let body = timeout(RESPONSE_TIMEOUT, read_body(response.into_body()))
            .await
            .unwrap_or_default();
        #[cfg(feature = "json")]
        if is_json {
            return Ok(response::from_json(&body, &self.headers));
        }
        Ok(response::from_protobuf(&body, &self.headers))
    }
}

/// Returns `compression`, or none with a warning if the feature for it is missing.
fn available(compression: Compression, warnings: &mut Vec<String>) -> Compression {
    if compression == Compression::Gzip && cfg!(not(feature = "gzip")) {
        warnings.push(
            "requests are not compressed: this program is built without gzip; enable the feature gzip of \
             otlp-recorder"
                .to_owned(),
        );
        return Compression::None;
    }
    compression
}

fn client(connector: ProxyConnector, tls: Tls) -> Result<Client, TransportError> {
    #[cfg(feature = "tls")]
    let connector = hyper_rustls::HttpsConnector::from((connector, tls.client_config()?));
    #[cfg(not(feature = "tls"))]
    let _ = tls;
    Ok(legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .build(connector))
}

#[cfg(feature = "gzip")]
fn gzip(plain: &[u8]) -> Bytes {
    use std::io::Write;

    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    // Writing to memory does not fail.
    let written = encoder.write_all(plain).and_then(|()| encoder.finish());
    written.unwrap_or_default().into()
}

/// Returns the body of the response, or an empty one if it is too long or incomplete.
async fn read_body(body: Incoming) -> Bytes {
    let collected = Limited::new(body, MAX_RESPONSE).collect().await;
    collected.map(|body| body.to_bytes()).unwrap_or_default()
}

/// Returns the error for a rejected request. The body of the response is not read, because it may quote
/// exported data.
fn rejected(status: StatusCode, headers: &HeaderMap) -> SendError {
    let retry = match status.as_u16() {
        413 => Retry::Smaller(0),
        429 | 502 | 503 | 504 => retry_after(headers).map_or(Retry::AfterBackoff, Retry::After),
        _ => Retry::Never,
    };
    SendError {
        error_type: error_type(status),
        message: format!("the collector responded with HTTP status {status}"),
        retry,
    }
}

/// Returns the delay that a response requests with `Retry-After`: seconds or a date.
///
/// A date is compared with the `Date` header of the response, because the clocks of client and server differ.
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok().map(str::trim);
    let value = text(RETRY_AFTER)?;
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let now = text(DATE).and_then(|date| httpdate::parse_http_date(date).ok());
    let delay = until.duration_since(now.unwrap_or_else(SystemTime::now));
    Some(delay.unwrap_or_default())
}

/// Returns the code of a known status, or `_OTHER`, which bounds the number of values.
fn error_type(status: StatusCode) -> Cow<'static, str> {
    match status.canonical_reason() {
        Some(_) => status.as_str().to_owned().into(),
        None => "_OTHER".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(status: u16, headers: &[(HeaderName, &str)]) -> SendError {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.clone(), value.parse().unwrap()))
            .collect();
        rejected(StatusCode::from_u16(status).unwrap(), &headers)
    }

    #[test]
    fn five_statuses_are_retried_one_of_them_with_a_smaller_request() {
        let retried: Vec<u16> = (300..600)
            .filter(|status| failure(*status, &[]).retry != Retry::Never)
            .collect();
        assert_eq!(retried, [413, 429, 502, 503, 504]);
        assert_eq!(failure(413, &[]).retry, Retry::Smaller(0));
        assert_eq!(failure(503, &[]).error_type, "503");
        assert_eq!(failure(599, &[]).error_type, "_OTHER");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (wish, expected) in [
            ("120", Retry::After(Duration::from_secs(120))),
            ("0", Retry::After(Duration::ZERO)),
            (
                "Sun, 06 Nov 1994 08:50:07 GMT",
                Retry::After(Duration::from_secs(30)),
            ),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Retry::After(Duration::ZERO)),
            ("soon", Retry::AfterBackoff),
            ("-5", Retry::AfterBackoff),
        ] {
            let failure = failure(429, &[(DATE, date), (RETRY_AFTER, wish)]);
            assert_eq!(failure.retry, expected, "{wish}");
        }
        let without_date = failure(503, &[(RETRY_AFTER, date)]);
        assert_eq!(without_date.retry, Retry::After(Duration::ZERO));
        // `Retry-After` has no effect on a status that is not retried.
        assert_eq!(failure(400, &[(RETRY_AFTER, "1")]).retry, Retry::Never);
    }

    #[tokio::test]
    async fn an_error_does_not_contain_the_url() {
        // No server can listen on this port.
        let collector = Collector::new(Protocol::HttpProtobuf, "http://127.0.0.1:0/in?key=s3cret");
        let http = Http::new(&collector, &mut Vec::new()).unwrap();
        let failure = http.attempt(Bytes::new()).await.unwrap_err();
        assert_eq!(
            (&*failure.error_type, failure.retry),
            ("connection_error", Retry::AfterBackoff)
        );
        let text = failure.message;
        assert!(!text.contains("s3cret") && !text.contains("/in"), "{text}");
    }
}
