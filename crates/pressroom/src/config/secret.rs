//! Text that is never printed.

use std::fmt;

use url::Url;

/// A secret, or a URL that holds one. Prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    #[must_use]
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself, for whom it is meant.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// A URL with its password and its query masked, which may hold one too.
    #[must_use]
    pub fn masked_url(&self) -> String {
        let Ok(mut url) = Url::parse(&self.0) else {
            return self.to_string();
        };
        // Of a list of URLs, as Celery's of sentinels, all but the first are a path.
        if url.path().contains('@') {
            return self.to_string();
        }
        if url.password().is_some() && url.set_password(Some("***")).is_err() {
            return self.to_string();
        }
        if url.query().is_some() {
            url.set_query(Some("***"));
        }
        url.into()
    }
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
