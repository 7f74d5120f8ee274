//! `OTEL_EXPORTER_OTLP_HEADERS`: `name=value` pairs, comma separated, the values percent-encoded. Values are secrets: no
//! warning names them, and printing them shows nothing.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use super::variables::Variables;
use crate::query::percent_decode;

/// What the transports say about a body themselves; a variable that says otherwise would break every request.
const OF_THE_TRANSPORT: [&str; 8] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// The headers that `variable` names. An entry that is no header is left out with a warning.
pub(super) fn headers(variable: &str, variables: &mut Variables<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let text = variables.text(variable).unwrap_or_default();
    let mut left_out = 0;
    for entry in text.split(',').filter(|entry| !entry.trim().is_empty()) {
        match header(entry) {
            Some((name, value)) => {
                headers.insert(name, value);
            }
            None => left_out += 1,
        }
    }
    if left_out > 0 {
        variables.warn(format!(
            "{variable}: {left_out} of its entries cannot be sent as name=value and are left out"
        ));
    }
    headers
}

fn header(entry: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = entry.split_once('=')?;
    let name: HeaderName = percent_decode(name.trim()).parse().ok()?;
    let value = sensitive(&percent_decode(value.trim()))?;
    (!OF_THE_TRANSPORT.contains(&name.as_str())).then_some((name, value))
}

/// Adds an endpoint's user info as basic authentication, unless the headers have an authorization.
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
    fn values_are_decoded_and_may_hold_anything() {
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
    fn what_is_no_header_is_left_out_and_not_shown() {
        let (pairs, warnings) = read("s3cret,bad name=s3cret,x=%0As3cret,content-length=3,ok=1");
        assert_eq!(pairs, [pair("ok", "1")]);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].starts_with("H: 4 of its entries"), "{warnings:?}");
        assert!(!warnings[0].contains("s3cret"), "{warnings:?}");
    }

    #[test]
    fn user_info_is_basic_authentication() {
        let mut headers = HeaderMap::new();
        authorize(&mut headers, "Aladdin:open%20sesame");
        assert_eq!(headers[AUTHORIZATION], "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        authorize(&mut headers, "someone:else");
        assert_eq!(headers[AUTHORIZATION], "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(!format!("{headers:?}").contains("QWxhZGRpbj"));
    }
}
