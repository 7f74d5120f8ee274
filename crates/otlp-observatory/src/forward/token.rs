//! Access tokens for the backend, by OAuth2 client credentials (RFC 6749, section 4.4).
//!
//! A token is requested when a batch is sent, and cached until shortly before it expires. There is one request at a time,
//! and a back-off after each failure.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use reqwest::{Client, RequestBuilder};
use serde::{Deserialize, de::IgnoredAny};
use tokio::{sync::Mutex, time::Instant};
use url::form_urlencoded;

use super::{
    back_off::BackOff,
    client::{RequestError, client, read_body, send},
    config::{Credentials, StartError},
    timing::Timing,
};

/// Name of the server in errors.
const SERVER: &str = "the token endpoint";

/// Lifetime of a token if the response has no `expires_in`.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(300);

const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Time before its expiry at which a token is renewed; short-lived tokens are renewed after half of their lifetime.
const RENEWAL_MARGIN: Duration = Duration::from_secs(60);

/// Codes of RFC 6749, section 5.2.
const ERROR_CODES: [&str; 6] = [
    "invalid_client",
    "invalid_grant",
    "invalid_request",
    "invalid_scope",
    "unauthorized_client",
    "unsupported_grant_type",
];

/// Successful response, RFC 6749, section 5.1.
#[derive(Deserialize)]
struct TokenResponse {
    access_token: String,
    #[serde(rename = "token_type")]
    _token_type: IgnoredAny,
    expires_in: Option<u64>,
}

/// Error response, RFC 6749, section 5.2.
#[derive(Deserialize)]
struct ErrorResponse {
    error: String,
}

/// Part of a request that contains the secret.
#[derive(Clone, Copy, Debug)]
enum SecretIn {
    Header,
    Body,
}

/// Requests and caches tokens.
#[derive(Debug)]
pub(super) struct Tokens {
    http: Client,
    credentials: Credentials,
    cache: Mutex<TokenCache>,
}

#[derive(Debug)]
struct TokenCache {
    token: Option<Token>,
    /// Part of the request in which the endpoint accepts the secret; `None` until a request has succeeded.
    secret_in: Option<SecretIn>,
    /// Last failure, and the time of the next request.
    failure: Option<(RequestError, Instant)>,
    /// Whether a failed renewal of a valid token has been logged.
    renewal_failure_logged: bool,
    back_off: BackOff,
}

#[derive(Debug)]
struct Token {
    /// Value of the `Authorization` header.
    authorization: HeaderValue,
    renew_at: Instant,
    expires_at: Instant,
}

impl Tokens {
    pub(super) fn new(credentials: &Credentials, timing: &Timing) -> Result<Self, StartError> {
        let url = &credentials.token_url;
        Ok(Self {
            http: client(url, "token URL", HeaderMap::new(), timing.token_timeout)?,
            credentials: credentials.clone(),
            cache: Mutex::new(TokenCache {
                token: None,
                secret_in: None,
                failure: None,
                renewal_failure_logged: false,
                back_off: timing.back_off(),
            }),
        })
    }

    /// Returns the value of the `Authorization` header. Concurrent callers wait for the same request.
    ///
    /// # Errors
    /// Returns an error if there is no valid token, with the time until the next request for a token.
    pub(super) async fn authorization(&self) -> Result<HeaderValue, (RequestError, Duration)> {
        let mut cache = self.cache.lock().await;
        if let Some(token) = &cache.token
            && Instant::now() < token.renew_at
        {
            return Ok(token.authorization.clone());
        }
        let failure = cache.failure.clone();
        let (error, retry_at) = match failure.filter(|(_, retry_at)| Instant::now() < *retry_at) {
            Some(failure) => failure,
            None => match self.request(&mut cache.secret_in).await {
                Ok(token) => {
                    cache.back_off.reset();
                    if std::mem::take(&mut cache.renewal_failure_logged) {
                        telemetry::info!("the access token was renewed");
                    }
                    return Ok(cache.token.insert(token).authorization.clone());
                }
                Err(error) => {
                    let retry_at = Instant::now() + cache.back_off.next_delay();
                    cache.failure.insert((error, retry_at)).clone()
                }
            },
        };
        // A token that could not be renewed is used until it expires.
        let now = Instant::now();
        let Some(token) = cache.token.as_ref().filter(|token| now < token.expires_at) else {
            return Err((error, retry_at.saturating_duration_since(now)));
        };
        let authorization = token.authorization.clone();
        let expires_in_s = (token.expires_at - now).as_secs_f64();
        if !std::mem::replace(&mut cache.renewal_failure_logged, true) {
            telemetry::warn!(
                %error,
                token.expires_in = expires_in_s,
                "the access token was not renewed; retrying until it expires"
            );
        }
        Ok(authorization)
    }

    /// Discards the token that the backend rejected, unless it has been replaced in the meantime.
    pub(super) async fn discard(&self, authorization: &HeaderValue) {
        let mut cache = self.cache.lock().await;
        cache.token.take_if(|token| token.authorization == *authorization);
    }

    /// Requests a token with the secret in the header, as RFC 6749 prefers, and then with the secret in the
    /// body, because some endpoints accept it only there. Stores the successful variant in `known`.
    async fn request(&self, known: &mut Option<SecretIn>) -> Result<Token, RequestError> {
        if let Some(secret_in) = *known {
            return self.request_with(secret_in).await;
        }
        let mut secret_in = SecretIn::Header;
        let mut result = self.request_with(secret_in).await;
        if result.as_ref().is_err_and(concerns_request) {
            secret_in = SecretIn::Body;
            result = self.request_with(secret_in).await;
        }
        let token = result?;
        *known = Some(secret_in);
        Ok(token)
    }

    /// Builds a token request, RFC 6749, section 4.4.2.
    fn token_request(&self, secret_in: SecretIn) -> RequestBuilder {
        let Credentials {
            client_id,
            client_secret,
            ..
        } = &self.credentials;
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if let Some(audience) = &self.credentials.audience {
            form.append_pair("audience", audience);
        }
        let mut request = self
            .http
            .post(self.credentials.token_url.clone())
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        match secret_in {
            SecretIn::Header => {
                request = request.basic_auth(encoded(client_id), Some(encoded(client_secret.reveal())));
            }
            SecretIn::Body => {
                form.append_pair("client_id", client_id)
                    .append_pair("client_secret", client_secret.reveal());
            }
        }
        request.body(form.finish())
    }

    async fn request_with(&self, secret_in: SecretIn) -> Result<Token, RequestError> {
        let requested_at = Instant::now();
        let response = send(self.token_request(secret_in))
            .await
            .map_err(|error| RequestError::new(SERVER, error))?;
        let status = response.status();
        let rejected = RequestError::Status(SERVER, status.as_u16());
        if !status.is_success() && !concerns_request(&rejected) {
            return Err(rejected);
        }
        let body = read_body(response).await.ok_or(RequestError::NoToken(SERVER))?;
        if status.is_success() {
            let response = serde_json::from_slice(&body).map_err(|_| RequestError::NoToken(SERVER))?;
            return token(&response, requested_at);
        }
        let Ok(ErrorResponse { error }) = serde_json::from_slice(&body) else {
            return Err(rejected);
        };
        let known = ERROR_CODES.contains(&error.as_str());
        let code = if known {
            &error
        } else {
            "an error that RFC 6749 does not define"
        };
        Err(RequestError::Rejected(SERVER, code.to_owned()))
    }
}

/// Encodes a part of the credentials in the `Authorization` header, RFC 6749, section 2.3.1.
fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Whether the request itself was rejected; a different request may be accepted.
fn concerns_request(error: &RequestError) -> bool {
    match error {
        RequestError::Rejected(..) | RequestError::NoToken(_) => true,
        RequestError::Status(_, status) => (400..500).contains(status) && *status != 429,
        RequestError::Connection(..) | RequestError::Timeout(_) => false,
    }
}

fn token(response: &TokenResponse, requested_at: Instant) -> Result<Token, RequestError> {
    let text = format!("Bearer {}", response.access_token);
    let mut authorization = HeaderValue::try_from(text).map_err(|_| RequestError::NoToken(SERVER))?;
    authorization.set_sensitive(true);
    let lifetime = response
        .expires_in
        .map_or(DEFAULT_LIFETIME, Duration::from_secs)
        .min(MAX_LIFETIME);
    Ok(Token {
        authorization,
        renew_at: requested_at + (lifetime - RENEWAL_MARGIN.min(lifetime / 2)),
        expires_at: requested_at + lifetime,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_before_it_expires() {
        for (expires_in, renew, expires) in [
            (r#","expires_in":3600"#, 3540, 3600),
            (r#","expires_in":100"#, 50, 100),
            (r#","expires_in":0"#, 0, 0),
            (r#","expires_in":18446744073709551615"#, 86_340, 86_400),
            ("", 240, 300),
        ] {
            let response = format!(r#"{{"access_token":"a","token_type":"bearer"{expires_in}}}"#);
            let response = serde_json::from_str(&response).unwrap();
            let requested_at = Instant::now();
            let token = token(&response, requested_at).unwrap();
            assert_eq!(
                token.renew_at - requested_at,
                Duration::from_secs(renew),
                "{expires_in}"
            );
            assert_eq!(
                token.expires_at - requested_at,
                Duration::from_secs(expires),
                "{expires_in}"
            );
        }
    }
}
