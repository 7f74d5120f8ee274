//! `OTEL_EXPORTER_OTLP_HEADERS`: comma-separated `name=value` pairs with percent-encoded values. Values are
//! secrets; neither warnings nor `Debug` output contain them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use super::variables::Variables;
use crate::query::percent_decode;

/// Headers that the transports set; overriding them would break every request.
const TRANSPORT_HEADERS: [&str; 8] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Reads the headers in `variable`, ignoring invalid entries with a warning.
pub(super) fn headers(variable: &str, variables: &mut Variables<'_>) -> HeaderMap {
    let (headers, invalid) = header_list(&variables.text(variable).unwrap_or_default());
    if invalid > 0 {
        variables.warn(format!(
            "{variable} has entries that are not valid name=value headers ({invalid}); they are ignored"
        ));
    }
    headers
}

/// Parses a list of percent-encoded `name=value` pairs. Also returns the number of invalid ones, which are left out.
pub(super) fn header_list(list: &str) -> (HeaderMap, usize) {
    let mut headers = HeaderMap::new();
    let mut invalid = 0;
    for entry in list.split(',').filter(|entry| !entry.trim().is_empty()) {
        let pair = entry.split_once('=');
        match pair
            .and_then(|(name, value)| header(&percent_decode(name.trim()), &percent_decode(value.trim())))
        {
            Some((name, value)) => {
                headers.insert(name, value);
            }
            None => invalid += 1,
        }
    }
    (headers, invalid)
}

/// Returns a header, or `None` if it is invalid or set by the transport.
pub(super) fn header(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    let name: HeaderName = name.parse().ok()?;
    let value = sensitive(value)?;
    (!TRANSPORT_HEADERS.contains(&name.as_str())).then_some((name, value))
}

/// Adds the user info of an endpoint as basic authentication, unless an `authorization` header is set.
pub(super) fn authorize(headers: &mut HeaderMap, user_info: &str) {
    let credentials = format!("Basic {}", STANDARD.encode(&*percent_decode(user_info)));
    if let Some(value) = sensitive(&credentials) {
        headers.entry(AUTHORIZATION).or_insert(value);
    }
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<(String, String)>, Vec<String>) {
        let lookup = |name: &str| (name == "H").then(|| text.to_owned());
        let mut variables = Variables::new(&lookup);
        let headers = headers("H", &mut variables);
        assert!(headers.values().all(HeaderValue::is_sensitive));
        let mut pairs: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        pairs.sort();
        (pairs, variables.warnings)
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn values_are_percent_decoded() {
        let (pairs, warnings) = read("Authorization=Bearer%20a%2Cb=, x-scope = team , ,x-empty=");
        assert_eq!(
            pairs,
            [
                pair("authorization", "Bearer a,b="),
                pair("x-empty", ""),
                pair("x-scope", "team")
            ]
        );
        assert_eq!(warnings, Vec::<String>::new());
    }

    #[test]
    fn an_invalid_header_is_ignored_and_not_shown() {
        let (pairs, warnings) = read("s3cret,bad name=s3cret,x=%0As3cret,content-length=3,ok=1");
        assert_eq!(pairs, [pair("ok", "1")]);
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0].starts_with("H has entries that are not valid name=value headers (4)"),
            "{warnings:?}"
        );
        assert!(!warnings[0].contains("s3cret"), "{warnings:?}");
    }

    #[test]
    fn user_info_becomes_basic_authentication() {
        let mut headers = HeaderMap::new();
        authorize(&mut headers, "Aladdin:open%20sesame");
        assert_eq!(headers[AUTHORIZATION], "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        authorize(&mut headers, "someone:else");
        assert_eq!(headers[AUTHORIZATION], "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(!format!("{headers:?}").contains("QWxhZGRpbj"));
    }
}
