//! Tokens by OAuth2 client credentials (RFC 6749, section 4.4): requested when something is to be sent, one
//! request at a time, and cached until shortly before they expire. After a failure, no token is requested
//! during a back-off.

use std::{pin::Pin, time::Duration};

use http::HeaderValue;
use oauth2::{
    AsyncHttpClient, AuthType, ClientId, ClientSecret, EndpointNotSet, EndpointSet, HttpRequest,
    HttpResponse, RequestTokenError, TokenResponse as _, TokenUrl,
    basic::{BasicClient, BasicErrorResponse, BasicErrorResponseType, BasicTokenResponse},
};
use reqwest::Client;
use tokio::{sync::Mutex, time::Instant};

use super::{
    back_off::BackOff,
    client::{body, client, describe},
    config::{Credentials, StartError},
    timing::Timing,
};

const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// Lifetime of a token whose response has no `expires_in`.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(300);

const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Time before its expiry at which a token is renewed; a token of a shorter lifetime is renewed after half of
/// it.
const RENEWAL_MARGIN: Duration = Duration::from_secs(60);

type OAuth2 = BasicClient<EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

/// Reason there is no token. The endpoint's own description is left out, as it may repeat the secret.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error("cannot reach the token endpoint: {0}")]
    Connection(String),
    #[error("the token endpoint did not respond in time")]
    Timeout,
    #[error("the token endpoint responded with HTTP {0}")]
    Status(u16),
    #[error("the token endpoint refused the request: {0}")]
    Refused(&'static str),
    #[error("the token endpoint's response contains no valid token")]
    Unreadable,
}

impl TokenError {
    /// Whether the request itself was refused, so that a different one may be accepted.
    fn concerns_request(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Unreadable => true,
            Self::Status(status) => concerns_request(*status),
            Self::Connection(_) | Self::Timeout => false,
        }
    }
}

/// Requests and caches tokens.
#[derive(Debug)]
pub(super) struct Tokens {
    http: Client,
    oauth2: OAuth2,
    audience: Option<String>,
    timeout: Duration,
    cache: Mutex<TokenCache>,
}

#[derive(Debug)]
struct TokenCache {
    token: Option<Token>,
    /// Part of the request in which the endpoint accepts the secret; `None` until a request succeeded.
    auth_type: Option<AuthType>,
    /// Last failure, and the time of the next request.
    failure: Option<(TokenError, Instant)>,
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
        let http = client(&credentials.token_url, "token URL")?;
        let oauth2 = BasicClient::new(ClientId::new(credentials.client_id.clone()))
            .set_client_secret(ClientSecret::new(credentials.client_secret.reveal().to_owned()))
            .set_token_uri(TokenUrl::from_url(credentials.token_url.clone()));
        Ok(Self {
            http,
            oauth2,
            audience: credentials.audience.clone(),
            timeout: timing.token_timeout,
            cache: Mutex::new(TokenCache {
                token: None,
                auth_type: None,
                failure: None,
                back_off: timing.back_off(),
            }),
        })
    }

    /// Returns the value of the `Authorization` header. Concurrent callers wait for the same request.
    ///
    /// # Errors
    /// There is no token, and the endpoint is not asked again before the duration has passed.
    pub(super) async fn authorization(&self) -> Result<HeaderValue, (TokenError, Duration)> {
        let mut cache = self.cache.lock().await;
        if let Some(token) = &cache.token
            && Instant::now() < token.renew_at
        {
            return Ok(token.authorization.clone());
        }
        if let Some((error, retry_at)) = &cache.failure
            && Instant::now() < *retry_at
        {
            return cache.until_renewed(error.clone(), *retry_at);
        }
        match self.request(&mut cache.auth_type).await {
            Ok(token) => {
                let authorization = token.authorization.clone();
                cache.token = Some(token);
                cache.failure = None;
                cache.back_off.reset();
                Ok(authorization)
            }
            Err(error) => {
                let retry_at = Instant::now() + cache.back_off.next_delay();
                cache.failure = Some((error.clone(), retry_at));
                cache.until_renewed(error, retry_at)
            }
        }
    }

    /// Discards the token that the backend refused, unless it has been replaced meanwhile.
    pub(super) async fn discard(&self, authorization: &HeaderValue) {
        let mut cache = self.cache.lock().await;
        if cache
            .token
            .as_ref()
            .is_some_and(|token| token.authorization == authorization)
        {
            cache.token = None;
        }
    }

    /// Requests a token with the secret in the header, as RFC 6749 prefers, and then with the secret in the
    /// body, for endpoints that accept it only there. Remembers which of them succeeded.
    async fn request(&self, auth_type: &mut Option<AuthType>) -> Result<Token, TokenError> {
        let known = auth_type.clone();
        let first = known.clone().unwrap_or(AuthType::BasicAuth);
        match self.request_as(first.clone()).await {
            Ok(token) => {
                *auth_type = Some(first);
                Ok(token)
            }
            Err(error) if known.is_none() && error.concerns_request() => {
                let token = self.request_as(AuthType::RequestBody).await?;
                *auth_type = Some(AuthType::RequestBody);
                Ok(token)
            }
            Err(error) => Err(error),
        }
    }

    async fn request_as(&self, auth_type: AuthType) -> Result<Token, TokenError> {
        let client = self.oauth2.clone().set_auth_type(auth_type);
        let mut request = client.exchange_client_credentials();
        if let Some(audience) = &self.audience {
            request = request.add_extra_param("audience", audience);
        }
        let requested_at = Instant::now();
        let response = request.request_async(self).await.map_err(token_error)?;
        token(&response, requested_at)
    }
}

impl TokenCache {
    /// Returns the token that could not be renewed, while it has not expired.
    fn until_renewed(
        &self,
        error: TokenError,
        retry_at: Instant,
    ) -> Result<HeaderValue, (TokenError, Duration)> {
        let now = Instant::now();
        match &self.token {
            Some(token) if now < token.expires_at => Ok(token.authorization.clone()),
            _ => Err((error, retry_at.saturating_duration_since(now))),
        }
    }
}

impl<'a> AsyncHttpClient<'a> for Tokens {
    type Error = TokenError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, TokenError>> + Send + 'a>>;

    fn call(&'a self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let connection = |error: reqwest::Error| match error.is_timeout() {
                true => TokenError::Timeout,
                false => TokenError::Connection(describe(error)),
            };
            let mut request = reqwest::Request::try_from(request).map_err(connection)?;
            *request.timeout_mut() = Some(self.timeout);
            let response = self.http.execute(request).await.map_err(connection)?;
            let status = response.status();
            let refused = TokenError::Status(status.as_u16());
            if !status.is_success() && !concerns_request(status.as_u16()) {
                return Err(refused);
            }
            let headers = response.headers().clone();
            let body = body(response, MAX_RESPONSE_BYTES)
                .await
                .ok_or(TokenError::Unreadable)?;
            if !status.is_success() && serde_json::from_slice::<BasicErrorResponse>(&body).is_err() {
                return Err(refused);
            }
            let mut response = HttpResponse::new(body.into());
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            Ok(response)
        })
    }
}

fn concerns_request(status: u16) -> bool {
    (400..500).contains(&status) && status != 429
}

fn token(response: &BasicTokenResponse, requested_at: Instant) -> Result<Token, TokenError> {
    let text = format!("Bearer {}", response.access_token().secret());
    let mut authorization = HeaderValue::try_from(text).map_err(|_| TokenError::Unreadable)?;
    authorization.set_sensitive(true);
    let lifetime = response
        .expires_in()
        .unwrap_or(DEFAULT_LIFETIME)
        .min(MAX_LIFETIME);
    Ok(Token {
        authorization,
        renew_at: requested_at + (lifetime - RENEWAL_MARGIN.min(lifetime / 2)),
        expires_at: requested_at + lifetime,
    })
}

fn token_error(error: RequestTokenError<TokenError, BasicErrorResponse>) -> TokenError {
    match error {
        RequestTokenError::Request(error) => error,
        RequestTokenError::ServerResponse(response) => TokenError::Refused(match response.error() {
            BasicErrorResponseType::InvalidClient => "invalid_client",
            BasicErrorResponseType::InvalidGrant => "invalid_grant",
            BasicErrorResponseType::InvalidRequest => "invalid_request",
            BasicErrorResponseType::InvalidScope => "invalid_scope",
            BasicErrorResponseType::UnauthorizedClient => "unauthorized_client",
            BasicErrorResponseType::UnsupportedGrantType => "unsupported_grant_type",
            BasicErrorResponseType::Extension(_) => "an error that RFC 6749 does not define",
        }),
        RequestTokenError::Parse(..) | RequestTokenError::Other(_) => TokenError::Unreadable,
    }
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
