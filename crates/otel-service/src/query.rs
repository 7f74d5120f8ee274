//! Redaction of query strings: replaces the values of parameters whose names suggest a secret.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Substrings of parameter names that mark a secret.
const SECRET_PARTS: [&str; 10] = [
    "token",
    "password",
    "passwd",
    "secret",
    "apikey",
    "accesskey",
    "signature",
    "authorization",
    "credential",
    "session",
];

/// Parameter names that mark a secret.
const SECRET_NAMES: [&str; 8] = ["pwd", "pass", "key", "sig", "code", "auth", "jwt", "sid"];

/// Returns the parts of `query`: names, values and separators. `REDACTED` replaces the values of secrets, as
/// the semantic conventions require for `url.query`.
pub(crate) fn redacted_parts(query: &str) -> impl Iterator<Item = &str> {
    query.split('&').enumerate().flat_map(|(index, pair)| {
        let (name, value) = match pair.split_once('=') {
            Some((name, _)) if is_secret(name) => (name, Some("REDACTED")),
            Some((name, value)) => (name, Some(value)),
            None => (pair, None),
        };
        let before = if index == 0 { "" } else { "&" };
        let equals = if value.is_some() { "=" } else { "" };
        [before, name, equals, value.unwrap_or_default()]
    })
}

fn is_secret(name: &str) -> bool {
    let name: String = percent_decode(name)
        .chars()
        .filter(|c| c.is_ascii_alphanumeric())
        .map(|c| c.to_ascii_lowercase())
        .collect();
    SECRET_NAMES.contains(&name.as_str()) || SECRET_PARTS.iter().any(|part| name.contains(part))
}

/// Decodes `%XX`; keeps invalid escapes unchanged.
pub(crate) fn percent_decode(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_secret_parameters_are_redacted() {
        for (query, expected) in [
            ("page=2&token=abc", "page=2&token=REDACTED"),
            ("access_token=abc&page=2", "access_token=REDACTED&page=2"),
            ("%74oken=abc", "%74oken=REDACTED"),
            ("API-Key=abc", "API-Key=REDACTED"),
            ("AWSAccessKeyId=abc", "AWSAccessKeyId=REDACTED"),
            ("user[password]=x", "user[password]=REDACTED"),
            ("code=1&state=2", "code=REDACTED&state=2"),
            ("author=ann&limit=5", "author=ann&limit=5"),
            ("token", "token"),
            ("", ""),
            ("&&a=&=b", "&&a=&=b"),
        ] {
            assert_eq!(redacted_parts(query).collect::<String>(), expected, "{query}");
        }
    }

    #[test]
    fn an_invalid_escape_is_kept() {
        assert_eq!(percent_decode("a%2Cb%zz%4"), "a,b%zz%4");
    }
}
