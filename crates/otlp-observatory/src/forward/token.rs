//! Access tokens for the backend, by OAuth2 client credentials (RFC 6749, section 4.4).
//!
//! A token is requested when a batch is sent, and cached until shortly before it expires. There is one request at a time,
//! and a back-off after each failure.

use std::{pin::Pin, time::Duration};

use http::{HeaderMap, HeaderValue, Response};
use oauth2::{
    AsyncHttpClient, AuthType, ClientId, ClientSecret, EndpointNotSet, EndpointSet, HttpRequest,
    HttpResponse, RequestTokenError, TokenResponse as _, TokenUrl,
    basic::{BasicClient, BasicErrorResponse, BasicErrorResponseType, BasicTokenResponse},
};
use reqwest::{Client, Request, RequestBuilder};
use tokio::{sync::Mutex, time::Instant};

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

type OAuth2 = BasicClient<EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

/// Requests and caches tokens.
#[derive(Debug)]
pub(super) struct Tokens {
    http: Client,
    oauth2: OAuth2,
    audience: Option<String>,
    cache: Mutex<TokenCache>,
}

#[derive(Debug)]
struct TokenCache {
    token: Option<Token>,
    /// Part of the request in which the endpoint accepts the secret; `None` until a request has succeeded.
    auth_type: Option<AuthType>,
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
        let oauth2 = BasicClient::new(ClientId::new(credentials.client_id.clone()))
            .set_client_secret(ClientSecret::new(credentials.client_secret.reveal().to_owned()))
            .set_token_uri(TokenUrl::from_url(url.clone()));
        Ok(Self {
            http: client(url, "token URL", HeaderMap::new(), timing.token_timeout)?,
            oauth2,
            audience: credentials.audience.clone(),
            cache: Mutex::new(TokenCache {
                token: None,
                auth_type: None,
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
            None => match self.request(&mut cache.auth_type).await {
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
    async fn request(&self, known: &mut Option<AuthType>) -> Result<Token, RequestError> {
        if let Some(auth_type) = known {
            return self.request_as(auth_type.clone()).await;
        }
        let mut auth_type = AuthType::BasicAuth;
        let mut result = self.request_as(auth_type.clone()).await;
        if result.as_ref().is_err_and(concerns_request) {
            auth_type = AuthType::RequestBody;
            result = self.request_as(auth_type.clone()).await;
        }
        let token = result?;
        *known = Some(auth_type);
        Ok(token)
    }

    async fn request_as(&self, auth_type: AuthType) -> Result<Token, RequestError> {
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

impl<'a> AsyncHttpClient<'a> for Tokens {
    type Error = RequestError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, RequestError>> + Send + 'a>>;

    fn call(&'a self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let failed = |error| RequestError::new(SERVER, error);
            let request = Request::try_from(request).map_err(failed)?;
            let response = send(RequestBuilder::from_parts(self.http.clone(), request))
                .await
                .map_err(failed)?;
            let (head, body) = Response::from(response).into_parts();
            let rejected = RequestError::Status(SERVER, head.status.as_u16());
            if !head.status.is_success() && !concerns_request(&rejected) {
                return Err(rejected);
            }
            let body = read_body(body).await.ok_or(RequestError::NoToken(SERVER))?;
            if !head.status.is_success() && serde_json::from_slice::<BasicErrorResponse>(&body).is_err() {
                return Err(rejected);
            }
            Ok(HttpResponse::from_parts(head, body.into()))
        })
    }
}

/// Whether the request itself was rejected; a different request may be accepted.
fn concerns_request(error: &RequestError) -> bool {
    match error {
        RequestError::Rejected(..) | RequestError::NoToken(_) => true,
        RequestError::Status(_, status) => (400..500).contains(status) && *status != 429,
        RequestError::Connection(..) | RequestError::Timeout(_) => false,
    }
}

fn token(response: &BasicTokenResponse, requested_at: Instant) -> Result<Token, RequestError> {
    let text = format!("Bearer {}", response.access_token().secret());
    let mut authorization = HeaderValue::try_from(text).map_err(|_| RequestError::NoToken(SERVER))?;
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

fn token_error(error: RequestTokenError<RequestError, BasicErrorResponse>) -> RequestError {
    match error {
        RequestTokenError::Request(error) => error,
        RequestTokenError::ServerResponse(response) => {
            let code = match response.error() {
                BasicErrorResponseType::Extension(_) => "an error that RFC 6749 does not define",
                code => code.as_ref(),
            };
            RequestError::Rejected(SERVER, code.to_owned())
        }
        RequestTokenError::Parse(..) | RequestTokenError::Other(_) => RequestError::NoToken(SERVER),
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
