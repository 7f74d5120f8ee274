//! Secret text, masked when printed.

use std::fmt;

use url::Url;

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

    /// Returns the URL with its password and query masked, or `***` if they cannot be located reliably.
    #[must_use]
    pub fn masked_url(&self) -> String {
        let Ok(mut url) = Url::parse(&self.0) else {
            return self.to_string();
        };
        // Celery joins the URLs of several sentinels in one string; `Url` parses all but the first as a path.
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
