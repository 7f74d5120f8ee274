//! Which other sites' pages may read our answers in a browser (Cross-Origin Resource Sharing, in the
//! WHATWG's Fetch standard). None unless they are named.
//!
//! Callers show themselves by a bearer token, which a page has to have and to send on purpose: a
//! browser adds nothing by itself, so `Access-Control-Allow-Credentials` is never given, and `*` is
//! safe for whoever wants it. Our own rather than tower-http's layer, which answers every OPTIONS
//! request itself, so that none would tell `Allow`.

use std::sync::Arc;

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
/// What a page may read beside a few simple fields.
const ANSWER_FIELDS: HeaderValue =
    HeaderValue::from_static("ETag, Location, Content-Location, Retry-After, traceresponse");
/// How long a browser may remember the answer to a preflight, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// The origins whose pages may read answers; by default none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigins {
    Any,
    /// Exactly these, each as a browser writes it.
    Only(Vec<HeaderValue>),
}

/// A part of the list that is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an origin as https://app.example.com, nor * alone")]
pub struct InvalidOrigin(String);

impl Default for AllowedOrigins {
    fn default() -> Self {
        Self::Only(Vec::new())
    }
}

impl AllowedOrigins {
    /// Reads origins separated by commas, or `*`.
    ///
    /// # Errors
    /// [`InvalidOrigin`] names the first part that is none: it would never equal what a browser sends.
    pub fn parse(list: &str) -> Result<Self, InvalidOrigin> {
        if list.trim() == "*" {
            return Ok(Self::Any);
        }
        list.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| origin(part).ok_or_else(|| InvalidOrigin(part.to_owned())))
            .collect::<Result<_, _>>()
            .map(Self::Only)
    }

    /// Whether nobody is allowed anything.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// `Access-Control-Allow-Origin` for a request.
    fn granted(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        match self {
            Self::Any => Some(HeaderValue::from_static("*")),
            Self::Only(origins) => origins.contains(origin).then(|| origin.clone()),
        }
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
    // A star is a valid character of a host, and no host's name has one: a pattern was meant.
    let exact = matches!(url.scheme(), "http" | "https")
        && url.origin().ascii_serialization() == text
        && !text.contains('*');
    HeaderValue::try_from(text).ok().filter(|_| exact)
}

/// Answers preflights of allowed origins, and tells browsers who may read the other answers.
pub(super) async fn share(
    State(allowed): State<Arc<AllowedOrigins>>,
    request: Request,
    next: Next,
) -> Response {
    let granted = allowed.granted(request.headers());
    let preflight = request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if preflight && granted.is_some() {
        let headers = [
            (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_FIELDS),
            (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE),
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
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, ANSWER_FIELDS);
    }
    if *allowed != AllowedOrigins::Any {
        // Another origin's answer, or one to no origin, would not do for this one.
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_exactly_what_a_browser_sends() {
        for list in [
            "",
            " ",
            "https://app.example.com",
            "http://localhost:3000,https://b.example",
        ] {
            assert_eq!(AllowedOrigins::parse(list).unwrap().to_string(), list.trim());
        }
        assert_eq!(AllowedOrigins::parse(" * "), Ok(AllowedOrigins::Any));
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
                AllowedOrigins::parse(&list),
                Err(InvalidOrigin(wrong.to_owned())),
                "{wrong}"
            );
        }
    }
}
