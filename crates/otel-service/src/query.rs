//! Redaction of query strings: replaces the values of parameters whose names suggest a secret.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Substrings of parameter names that mark a secret.
const SECRET_PARTS: [&str; 17] = [
    "token",
    "password",
    "passwd",
    "secret",
    "apikey",
    "accesskey",
    "privatekey",
    "passphrase",
    "passcode",
    "assertion",
    "samlresponse",
    "codeverifier",
    "sessid",
    "signature",
    "authorization",
    "credential",
    "session",
];

/// Parameter names that mark a secret.
const SECRET_NAMES: [&str; 9] = ["pwd", "pass", "key", "sig", "code", "auth", "jwt", "sid", "otp"];

/// Returns the parts of `query`: names, values and separators. `REDACTED` replaces the values of secrets, as
/// the semantic conventions require for `url.query`.
pub(crate) fn redacted_parts(query: &str) -> impl Iterator<Item = &str> {
    query.split_inclusive(['&', ';']).flat_map(|part| {
        let pair = part.trim_end_matches(['&', ';']);
        let separator = &part[pair.len()..];
        let (name, value) = match pair.split_once('=') {
            Some((name, _)) if is_secret(name) => (name, Some("REDACTED")),
            Some((name, value)) => (name, Some(value)),
            None => (pair, None),
        };
        let equals = if value.is_some() { "=" } else { "" };
        [name, equals, value.unwrap_or_default(), separator]
    })
}

/// Whether the name of a parameter or of a header marks a secret.
pub(crate) fn is_secret(name: &str) -> bool {
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
            ("page=2;token=abc;x=1", "page=2;token=REDACTED;x=1"),
            ("client_assertion=abc", "client_assertion=REDACTED"),
            (
                "SAMLResponse=abc&RelayState=x",
                "SAMLResponse=REDACTED&RelayState=x",
            ),
            ("PHPSESSID=abc", "PHPSESSID=REDACTED"),
            ("private_key=abc&key_id=1", "private_key=REDACTED&key_id=1"),
            ("author=ann&limit=5", "author=ann&limit=5"),
            ("token", "token"),
            ("", ""),
            ("&&a=&=b", "&&a=&=b"),
            ("a=1&;", "a=1&;"),
        ] {
            assert_eq!(redacted_parts(query).collect::<String>(), expected, "{query}");
        }
    }

    #[test]
    fn an_invalid_escape_is_kept() {
        assert_eq!(percent_decode("a%2Cb%zz%4"), "a,b%zz%4");
    }
}
