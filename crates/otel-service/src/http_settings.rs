//! Settings of the HTTP instrumentation from `OTEL_INSTRUMENTATION_HTTP_*` or the configuration file, for servers and
//! clients.

use std::sync::OnceLock;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method};
use opentelemetry::{Array, KeyValue, StringValue, Value};

use crate::query::{is_secret, redacted_parts};

/// Maximum number of headers of a message that become attributes, because the attributes of a span are limited.
const MAX_CAPTURED: usize = 32;

/// Value of `http.request.method` for a method that is not known.
pub(crate) const OTHER_METHOD: &str = "_OTHER";

/// The methods of the conventions, the most frequent ones first.
const KNOWN_METHODS: [&str; 10] = [
    "GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "QUERY", "CONNECT", "TRACE",
];

static SETTINGS: OnceLock<HttpSettings> = OnceLock::new();

static DEFAULT: HttpSettings = HttpSettings {
    server: SideSettings::DEFAULT,
    client: SideSettings::DEFAULT,
    excluded_paths: Vec::new(),
};

#[derive(Debug, Default)]
pub(crate) struct HttpSettings {
    pub(crate) server: SideSettings,
    pub(crate) client: SideSettings,
    /// Paths whose requests have no server span.
    pub(crate) excluded_paths: Vec<Pattern>,
}

/// Settings of servers or of clients.
#[derive(Debug, Default)]
pub(crate) struct SideSettings {
    /// Methods that are recorded by name; `None` for those of the conventions.
    pub(crate) known_methods: Option<Vec<String>>,
    /// Names of request headers that become attributes of spans, in lower case.
    pub(crate) request_headers: Vec<Pattern>,
    /// Names of response headers that become attributes of spans, in lower case.
    pub(crate) response_headers: Vec<Pattern>,
}

/// Sets the settings of the process. Later calls have no effect.
pub(crate) fn install(settings: HttpSettings) {
    SETTINGS.get_or_init(|| settings);
}

/// Returns the settings of the process.
pub(crate) fn settings() -> &'static HttpSettings {
    SETTINGS.get().unwrap_or(&DEFAULT)
}

impl HttpSettings {
    pub(crate) fn excludes(&self, path: &str) -> bool {
        self.excluded_paths.iter().any(|pattern| pattern.matches(path))
    }
}

impl SideSettings {
    const DEFAULT: Self = Self {
        known_methods: None,
        request_headers: Vec::new(),
        response_headers: Vec::new(),
    };

    /// Returns the name of a known method, or `_OTHER`, which bounds the number of values a client can produce.
    pub(crate) fn method(&'static self, method: &Method) -> &'static str {
        let name = method.as_str();
        let known = match &self.known_methods {
            Some(methods) => methods.iter().map(String::as_str).find(|known| *known == name),
            None => KNOWN_METHODS.into_iter().find(|known| *known == name),
        };
        known.unwrap_or(OTHER_METHOD)
    }

    /// Returns the attributes for the headers of a request.
    pub(crate) fn of_request(&self, headers: &HeaderMap) -> impl Iterator<Item = KeyValue> {
        captured(&self.request_headers, "http.request.header.", headers)
    }

    /// Returns the attributes for the headers of a response.
    pub(crate) fn of_response(&self, headers: &HeaderMap) -> impl Iterator<Item = KeyValue> {
        captured(&self.response_headers, "http.response.header.", headers)
    }
}

fn captured(patterns: &[Pattern], prefix: &str, headers: &HeaderMap) -> impl Iterator<Item = KeyValue> {
    let mut names: Vec<&HeaderName> = Vec::new();
    if !patterns.is_empty() {
        let is_captured = |name: &&HeaderName| patterns.iter().any(|pattern| pattern.matches(name.as_str()));
        names = headers.keys().filter(is_captured).take(MAX_CAPTURED).collect();
    }
    names.into_iter().map(move |name| {
        let is_secret = is_secret_header(name.as_str());
        let lines = headers.get_all(name).iter();
        let lines: Vec<_> = lines.map(|line| shown(line, is_secret)).collect();
        KeyValue::new(format!("{prefix}{name}"), Value::Array(Array::String(lines)))
    })
}

/// Whether a header is a secret, by its name or by a part of it, as in `X-Auth-Key`.
fn is_secret_header(name: &str) -> bool {
    name.contains("cookie") || is_secret(name) || name.split(['-', '_']).any(is_secret)
}

/// Returns the value of a header without secrets, including those in the query or the fragment of a URL.
fn shown(line: &HeaderValue, is_secret: bool) -> StringValue {
    if is_secret || line.is_sensitive() {
        return "REDACTED".into();
    }
    let mut text = String::from_utf8_lossy(line.as_bytes()).into_owned();
    if let Some(at) = text.find(['?', '#']) {
        let parameters = text.split_off(at + 1);
        text.extend(redacted_parts(&parameters));
    }
    text.into()
}

/// A text in which `*` stands for any characters. `.*`, as in the lists of other languages, means the same.
#[derive(Debug)]
pub(crate) struct Pattern(Vec<String>);

impl Pattern {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.replace(".*", "*").split('*').map(str::to_owned).collect())
    }

    fn matches(&self, text: &str) -> bool {
        let Some((first, others)) = self.0.split_first() else {
            return false;
        };
        let Some(mut text) = text.strip_prefix(first.as_str()) else {
            return false;
        };
        let Some((last, inner)) = others.split_last() else {
            return text.is_empty();
        };
        for piece in inner {
            let Some((_, rest)) = text.split_once(piece.as_str()) else {
                return false;
            };
            text = rest;
        }
        text.ends_with(last.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, text, expected) in [
            ("/health", "/health", true),
            ("/health", "/health/live", false),
            ("/health*", "/health/live", true),
            ("*/health", "/api/health", true),
            ("*", "", true),
            ("", "", true),
            ("a*a", "a", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("x-.*", "x-request-id", true),
            ("accept.*", "accept", true),
        ] {
            assert_eq!(Pattern::new(pattern).matches(text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn captured_headers_have_all_lines_and_no_secrets() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("accept", "text/html"),
            ("accept", "*/*"),
            ("authorization", "Bearer s3cret"),
            ("proxy-authorization", "s3cret"),
            ("cookie", "sid=s3cret"),
            ("set-cookie", "sid=s3cret"),
            ("x-api-key", "s3cret"),
            ("x-auth-key", "s3cret"),
            ("x-csrf-token", "s3cret"),
            ("x-otp", "s3cret"),
            ("x-hub-signature-256", "s3cret"),
            ("referer", "https://shop.test/a?token=s3cret&page=2"),
            ("location", "/done#access_token=s3cret&x=1"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        let mut sensitive = HeaderValue::from_static("s3cret");
        sensitive.set_sensitive(true);
        headers.insert("x-plain", sensitive);
        let all = [Pattern::new("*")];
        let attributes: Vec<_> = captured(&all, "", &headers).collect();
        assert_eq!(attributes.len(), headers.keys_len());
        assert!(!format!("{attributes:?}").contains("s3cret"), "{attributes:?}");
        let find = |key| {
            let found = attributes.iter().find(|attribute| attribute.key.as_str() == key);
            found.unwrap().value.to_string()
        };
        assert_eq!(find("accept"), r#"["text/html","*/*"]"#);
        assert_eq!(
            find("referer"),
            r#"["https://shop.test/a?token=REDACTED&page=2"]"#
        );
        assert_eq!(find("location"), r#"["/done#access_token=REDACTED&x=1"]"#);
        assert_eq!(captured(&[], "", &headers).count(), 0);
        for index in 0..100 {
            let name = HeaderName::from_bytes(format!("x-{index}").as_bytes()).unwrap();
            headers.insert(name, index.into());
        }
        assert_eq!(captured(&all, "", &headers).count(), MAX_CAPTURED);
    }
}
