//! Secret text, masked when printed.

use std::fmt;

use url::{Position, Url};

/// A secret, or a URL that contains a secret. Printed as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    #[must_use]
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// Returns the secret in plain text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns the URL as [`masked_url`] does, or `***` if the text is not a URL.
    #[must_use]
    pub fn masked_url(&self) -> String {
        match Url::parse(&self.0) {
            Ok(url) => masked_url(&url),
            Err(_) => self.to_string(),
        }
    }
}

/// Returns the scheme, user, host and port of a URL. Everything else is masked: the password, and the path
/// and query, which may also contain keys. A user without a password may be a token, and is masked too.
#[must_use]
pub fn masked_url(url: &Url) -> String {
    let user = match (url.username(), url.password()) {
        ("", None) => String::new(),
        (_, None) => "***@".to_owned(),
        (user, Some(_)) => format!("{user}:***@"),
    };
    let address = &url[Position::BeforeHost..Position::AfterPort];
    let rest = match &url[Position::BeforePath..] {
        rest @ ("" | "/") => rest,
        _ => "/***",
    };
    format!("{}://{user}{address}{rest}", url.scheme())
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_url_shows_no_password_token_path_or_query() {
        for (url, shown) in [
            (
                "https://u:p@hooks.partner.example/p/s3cretI?k=1",
                "https://u:***@hooks.partner.example/***",
            ),
            ("https://hooks.example/#s3cret", "https://hooks.example/***"),
            ("https://hooks.example?s3cret", "https://hooks.example/***"),
            ("https://hooks.example:8443/", "https://hooks.example:8443/"),
            ("https://s3cret@hooks.example/", "https://***@hooks.example/"),
            (
                "postgresql://app:s3cret@db:6432/press",
                "postgresql://app:***@db:6432/***",
            ),
            ("postgresql://db", "postgresql://db"),
            (
                "postgresql:///press?host=/run&password=s3cret",
                "postgresql:///***",
            ),
            ("redis://:s3cret@[::1]:6379/0", "redis://:***@[::1]:6379/***"),
            ("unix:///run/redis.sock?pass=s3cret", "unix:///***"),
            ("smtps://a%40b:s3cret@mail", "smtps://a%40b:***@mail"),
            (
                "sentinel://:s3cret@one:26379/0;sentinel://:s3cret@two:26379/0?master=news",
                "sentinel://:***@one:26379/***",
            ),
            (
                "sentinel://:s3cret@one:26379;sentinel://:s3cret@two:26379/0",
                "***",
            ),
            ("postgresql://app:s3cret@a:5432,b:5432/press", "***"),
            ("s3cret", "***"),
            ("mailto:s3cret", "mailto:///***"),
        ] {
            assert_eq!(Secret::new(url).masked_url(), shown, "{url}");
        }
    }
}
