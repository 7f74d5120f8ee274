//! Cross-Origin Resource Sharing (WHATWG Fetch standard): lets pages of the configured origins read
//! responses. By default no origin is allowed.
//!
//! Callers authenticate with a bearer token, which browsers do not send on their own. Therefore
//! `Access-Control-Allow-Credentials` is never sent, and allowing `*` is safe. tower-http's layer is not used,
//! because it responds to every OPTIONS request itself, without `Allow`.

use std::{str::FromStr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use url::Url;

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE");
const REQUEST_FIELDS: HeaderValue = HeaderValue::from_static(
    "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, traceparent, tracestate, baggage",
);
/// Response fields that a page may read in addition to the CORS-safelisted ones.
const RESPONSE_FIELDS: HeaderValue = HeaderValue::from_static(
    "ETag, Location, Content-Location, Idempotency-Replayed, RateLimit, RateLimit-Policy, Retry-After, \
     traceresponse",
);
/// Time that a browser may cache the response to a preflight, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Origins whose pages may read responses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// Every origin, written `*`.
    Any,
    /// The listed origins, in the form of a browser's `Origin` field.
    Only(Vec<HeaderValue>),
}

/// Error for an entry of the list that is not an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an origin such as https://app.example.com; `*` must stand alone")]
pub struct InvalidOrigin(String);

impl Default for AllowedOrigins {
    fn default() -> Self {
        Self::Only(Vec::new())
    }
}

impl AllowedOrigins {
    /// Whether no origin is allowed.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the value of `Access-Control-Allow-Origin` for a request, if its origin is allowed.
    fn granted(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        match self {
            Self::Any => Some(HeaderValue::from_static("*")),
            Self::Only(origins) => origins.contains(origin).then(|| origin.clone()),
        }
    }
}

impl FromStr for AllowedOrigins {
    type Err = InvalidOrigin;

    /// Parses a comma-separated list of origins, or `*`. The error contains the first entry that cannot equal a
    /// browser's `Origin` field.
    fn from_str(list: &str) -> Result<Self, InvalidOrigin> {
        if list.trim() == "*" {
            return Ok(Self::Any);
        }
        let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let origins = entries.map(|entry| origin(entry).ok_or_else(|| InvalidOrigin(entry.to_owned())));
        origins.collect::<Result<_, _>>().map(Self::Only)
    }
}

impl std::fmt::Display for AllowedOrigins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Only(origins) => {
                let origins: Vec<_> = origins.iter().filter_map(|origin| origin.to_str().ok()).collect();
                f.write_str(&origins.join(","))
            }
        }
    }
}

fn origin(text: &str) -> Option<HeaderValue> {
    let url = Url::parse(text).ok()?;
    // The URL parser accepts `*` in a host, but patterns are not supported.
    let exact = matches!(url.scheme(), "http" | "https")
        && url.origin().ascii_serialization() == text
        && !text.contains('*');
    HeaderValue::try_from(text).ok().filter(|_| exact)
}

/// Responds to preflights from allowed origins, and adds the CORS fields to every response.
pub(super) async fn share(
    State(allowed): State<Arc<AllowedOrigins>>,
    request: Request,
    next: Next,
) -> Response {
    let granted = allowed.granted(request.headers());
    let requested_method = request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD);
    let preflight = request.method() == Method::OPTIONS && requested_method.is_some();
    let mut response = if preflight && granted.is_some() {
        let headers = [
            (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_FIELDS),
            (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            (
                header::X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
            ),
        ];
        (StatusCode::NO_CONTENT, headers).into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    if let Some(granted) = granted {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, granted);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_FIELDS);
    }
    if *allowed != AllowedOrigins::Any {
        // The response depends on the origin, so caches must store one response per origin.
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_must_have_the_form_that_browsers_send() {
        for list in [
            "",
            " ",
            "https://app.example.com",
            "http://localhost:3000,https://b.example",
        ] {
            assert_eq!(list.parse::<AllowedOrigins>().unwrap().to_string(), list.trim());
        }
        assert_eq!(" * ".parse(), Ok(AllowedOrigins::Any));
        for wrong in [
            "app.example.com",
            "https://app.example.com/",
            "https://app.example.com:443",
            "https://App.example.com",
            "https://app.example.com/path",
            "https://user@app.example.com",
            "https://*.example.com",
            "file:///x",
            "null",
            "*",
        ] {
            let list = format!("https://a.example, {wrong}");
            assert_eq!(
                list.parse::<AllowedOrigins>(),
                Err(InvalidOrigin(wrong.to_owned())),
                "{wrong}"
            );
        }
    }
}
