//! Redaction of query strings: replaces the values of parameters whose names suggest a secret.

use std::borrow::Cow;

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

/// Replaces the values of secrets in `query` with `REDACTED`, as the semantic conventions require for
/// `url.query`.
pub(crate) fn redact(query: &str) -> Cow<'_, str> {
    if !query.split('&').any(is_secret) {
        return Cow::Borrowed(query);
    }
    let mut out = String::with_capacity(query.len());
    for (index, pair) in query.split('&').enumerate() {
        if index > 0 {
            out.push('&');
        }
        match pair.split_once('=') {
            Some((name, _)) if is_secret(pair) => {
                out.push_str(name);
                out.push_str("=REDACTED");
            }
            _ => out.push_str(pair),
        }
    }
    Cow::Owned(out)
}

fn is_secret(pair: &str) -> bool {
    let Some((name, _)) = pair.split_once('=') else {
        return false;
    };
    let name: String = percent_decode(name)
        .chars()
        .filter(|c| c.is_ascii_alphanumeric())
        .map(|c| c.to_ascii_lowercase())
        .collect();
    SECRET_NAMES.contains(&name.as_str()) || SECRET_PARTS.iter().any(|part| name.contains(part))
}

/// Decodes `%XX`; keeps invalid escapes unchanged.
pub(crate) fn percent_decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let decoded = (bytes[index] == b'%')
            .then(|| text.get(index + 1..index + 3))
            .flatten()
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match decoded {
            Some(byte) => {
                out.push(byte);
                index += 3;
            }
            None => {
                out.push(bytes[index]);
                index += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
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
        ] {
            assert_eq!(redact(query), expected, "{query}");
        }
    }

    #[test]
    fn an_invalid_escape_is_kept() {
        assert_eq!(percent_decode("a%2Cb%zz%4"), "a,b%zz%4");
    }
}
