//! OTLP over HTTP, with protobuf or JSON in the body.

use std::io::Write;
use std::time::{Duration, SystemTime};

use flate2::write::GzEncoder;
use http::header::{
    CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT,
};
use prost::bytes::Bytes;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Identity, Method, Response, StatusCode, Url};
use tokio::time::timeout;

use super::retry::{Again, Failure};
use super::tls::{Roots, Tls};
use super::{Accepted, LONGEST_ANSWER, Request, TransportError, described, json, response};
use crate::config::{Compression, Otlp, Protocol};

/// For reading what a collector says about a request that it has taken; that is not worth more waiting.
const ANSWER_TIME: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Http {
    client: Client,
    url: Url,
    /// With which a request is sent, secrets included.
    headers: HeaderMap,
    encoding: Encoding,
    compression: Compression,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Encoding {
    Protobuf,
    Json,
}

impl Http {
    pub(super) fn new(otlp: &Otlp, warnings: &mut Vec<String>) -> Result<Self, TransportError> {
        let url = Url::parse(&otlp.endpoint).map_err(|_| TransportError::Endpoint)?;
        let encoding = match otlp.protocol {
            Protocol::HttpJson => Encoding::Json,
            _ => Encoding::Protobuf,
        };
        let content_type = match encoding {
            Encoding::Protobuf => "application/x-protobuf",
            Encoding::Json => "application/json",
        };
        let mut headers = otlp.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers
            .entry(USER_AGENT)
            .or_insert(HeaderValue::from_static(super::USER_AGENT));
        if otlp.compression == Compression::Gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Ok(Self {
            client: client(&Tls::read(otlp, warnings))?,
            url,
            headers,
            encoding,
            compression: otlp.compression,
        })
    }

    /// The body of every attempt to send `request`.
    pub(super) fn body(&self, request: &Request) -> Bytes {
        let plain = match self.encoding {
            Encoding::Protobuf => request.protobuf(),
            Encoding::Json => json::body(request).into(),
        };
        match self.compression {
            Compression::None => plain,
            Compression::Gzip => gzip(&plain),
        }
    }

    pub(super) async fn attempt(&self, body: Bytes) -> Result<Accepted, Failure> {
        let mut request = reqwest::Request::new(Method::POST, self.url.clone());
        *request.headers_mut() = self.headers.clone();
        *request.body_mut() = Some(body.into());
        let response = self
            .client
            .execute(request)
            .await
            .map_err(|error| Failure::connection(described(&error.without_url())))?;
        let status = response.status();
        if !status.is_success() {
            return Err(refused(status, response.headers()));
        }
        let is_json = response
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
        let answer = timeout(ANSWER_TIME, answer(response)).await.unwrap_or_default();
        Ok(if is_json {
            response::of_json(&answer, &self.headers)
        } else {
            response::of_protobuf(&answer, &self.headers)
        })
    }
}

fn client(tls: &Tls) -> reqwest::Result<Client> {
    // Another part of the process may have chosen a provider already; any will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // A redirected body would be lost, and headers would go to somebody else.
    let mut builder = Client::builder().redirect(Policy::none());
    builder = match &tls.roots {
        // No TLS, so no reading of the system's certificates, which a small image may not even have.
        Roots::None => builder.tls_certs_only([]),
        Roots::System => builder,
        Roots::Own(pem) => builder.tls_certs_only(Certificate::from_pem_bundle(pem)?),
    };
    if let Some(client) = &tls.client {
        let both = [&client.certificate[..], b"\n", &client.key].concat();
        builder = builder.identity(Identity::from_pem(&both)?);
    }
    builder.build()
}

fn gzip(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    // Writing to memory does not fail.
    let written = encoder.write_all(plain).and_then(|()| encoder.finish());
    written.unwrap_or_default().into()
}

/// As much of the body as is worth reading; empty when there is more, or when it breaks off.
async fn answer(mut response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        if body.len() + chunk.len() > LONGEST_ANSWER {
            return Vec::new();
        }
        body.extend_from_slice(&chunk);
    }
    body
}

/// The body of a refusal is not read: its words may repeat what was sent.
fn refused(status: StatusCode, headers: &HeaderMap) -> Failure {
    let again = match status.as_u16() {
        429 | 502 | 503 | 504 => retry_after(headers).map_or(Again::AfterPause, Again::After),
        _ => Again::Never,
    };
    Failure {
        error_type: error_type(status),
        message: format!("the collector answered HTTP {status}"),
        again,
    }
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
    Some(
        until
            .duration_since(now.unwrap_or_else(SystemTime::now))
            .unwrap_or_default(),
    )
}

fn error_type(status: StatusCode) -> &'static str {
    match status.as_u16() {
        301 => "301",
        302 => "302",
        307 => "307",
        308 => "308",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        405 => "405",
        408 => "408",
        411 => "411",
        413 => "413",
        415 => "415",
        422 => "422",
        429 => "429",
        500 => "500",
        501 => "501",
        502 => "502",
        503 => "503",
        504 => "504",
        _ => "_OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(status: u16, headers: &[(HeaderName, &str)]) -> Failure {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.clone(), value.parse().unwrap()))
            .collect();
        refused(StatusCode::from_u16(status).unwrap(), &headers)
    }

    #[test]
    fn four_statuses_are_retried() {
        let retried: Vec<u16> = (300..600)
            .filter(|status| failure(*status, &[]).again != Again::Never)
            .collect();
        assert_eq!(retried, [429, 502, 503, 504]);
        assert_eq!(failure(503, &[]).error_type, "503");
        assert_eq!(failure(599, &[]).error_type, "_OTHER");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (wish, expected) in [
            ("120", Again::After(Duration::from_secs(120))),
            ("0", Again::After(Duration::ZERO)),
            (
                "Sun, 06 Nov 1994 08:50:07 GMT",
                Again::After(Duration::from_secs(30)),
            ),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Again::After(Duration::ZERO)),
            ("soon", Again::AfterPause),
            ("-5", Again::AfterPause),
        ] {
            let failure = failure(429, &[(DATE, date), (RETRY_AFTER, wish)]);
            assert_eq!(failure.again, expected, "{wish}");
        }
        let without_date = failure(503, &[(RETRY_AFTER, date)]);
        assert_eq!(without_date.again, Again::After(Duration::ZERO));
        // Only where a retry is due.
        assert_eq!(failure(400, &[(RETRY_AFTER, "1")]).again, Again::Never);
    }

    #[tokio::test]
    async fn an_error_does_not_tell_the_url() {
        let otlp = Otlp {
            protocol: Protocol::HttpProtobuf,
            // A port that nobody can listen at.
            endpoint: "http://127.0.0.1:0/in?key=s3cret".to_owned(),
            headers: HeaderMap::new(),
            timeout: Duration::from_secs(1),
            compression: Compression::None,
            certificate: None,
            client: None,
        };
        let http = Http::new(&otlp, &mut Vec::new()).unwrap();
        let failure = http.attempt(Bytes::new()).await.unwrap_err();
        assert_eq!(
            (failure.error_type, failure.again),
            ("connection_error", Again::AfterPause)
        );
        let text = failure.message;
        assert!(!text.contains("s3cret") && !text.contains("/in"), "{text}");
    }
}
