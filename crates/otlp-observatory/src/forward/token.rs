//! Tokens by OAuth2 client credentials (RFC 6749, section 4.4): asked for when something is to be sent, kept until
//! shortly before they expire, one request at a time. A token endpoint that fails is left alone for a while.

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
    Credentials,
    client::{body, described},
    pace::{BackOff, Pace},
};

const LONGEST_ANSWER: usize = 64 * 1024;

/// How long a token is used whose endpoint does not say how long it lives; and how long one at most.
const LIFE_UNSAID: Duration = Duration::from_secs(300);
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);

/// A token is renewed this long before it expires, or after half of its life when that is later.
const MARGIN: Duration = Duration::from_secs(60);

type OAuth2 = BasicClient<EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

/// Why there is no token. What the endpoint says in words is left out: it may repeat the secret.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error("the token endpoint cannot be reached: {0}")]
    Connection(String),
    #[error("the token endpoint did not answer in time")]
    Timeout,
    #[error("the token endpoint answered HTTP {0}")]
    Status(u16),
    #[error("the token endpoint refused: {0}")]
    Refused(&'static str),
    #[error("the token endpoint's answer is not a token")]
    Unreadable,
}

impl TokenError {
    /// Whether another request may be answered differently.
    fn is_about_request(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Unreadable => true,
            Self::Status(status) => is_about_request(*status),
            Self::Connection(_) | Self::Timeout => false,
        }
    }
}

/// No token now; not worth asking for one before this time has passed.
#[derive(Debug)]
pub(super) struct NoToken {
    pub(super) error: TokenError,
    pub(super) wait: Duration,
}

#[derive(Debug)]
pub(super) struct Tokens {
    http: Client,
    oauth2: OAuth2,
    audience: Option<String>,
    timeout: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    token: Option<Token>,
    /// How the endpoint takes the secret, once that is known.
    auth_type: Option<AuthType>,
    failure: Option<(TokenError, Instant)>,
    back_off: BackOff,
}

#[derive(Debug)]
struct Token {
    authorization: HeaderValue,
    renew: Instant,
    expires: Instant,
}

impl Tokens {
    pub(super) fn new(credentials: &Credentials, http: Client, pace: &Pace) -> Self {
        let oauth2 = BasicClient::new(ClientId::new(credentials.client_id.clone()))
            .set_client_secret(ClientSecret::new(credentials.client_secret.reveal().to_owned()))
            .set_token_uri(TokenUrl::from_url(credentials.token_url.clone()));
        Self {
            http,
            oauth2,
            audience: credentials.audience.clone(),
            timeout: pace.token_timeout,
            state: Mutex::new(State {
                token: None,
                auth_type: None,
                failure: None,
                back_off: BackOff::new(pace),
            }),
        }
    }

    /// The value of `Authorization`. Whoever comes while a token is asked for waits for that one.
    pub(super) async fn authorization(&self) -> Result<HeaderValue, NoToken> {
        let mut state = self.state.lock().await;
        if let Some(token) = &state.token
            && Instant::now() < token.renew
        {
            return Ok(token.authorization.clone());
        }
        let is_due = state
            .failure
            .as_ref()
            .is_none_or(|(_, again)| *again <= Instant::now());
        if is_due {
            match self.request(&mut state.auth_type).await {
                Ok(token) => {
                    let authorization = token.authorization.clone();
                    state.token = Some(token);
                    state.failure = None;
                    state.back_off.reset();
                    return Ok(authorization);
                }
                Err(error) => {
                    let again = Instant::now() + state.back_off.pause();
                    state.failure = Some((error, again));
                }
            }
        }
        let now = Instant::now();
        match (&state.token, &state.failure) {
            // It could not be renewed yet, but is still good.
            (Some(token), _) if now < token.expires => Ok(token.authorization.clone()),
            (_, Some((error, again))) => Err(NoToken {
                error: error.clone(),
                wait: again.saturating_duration_since(now),
            }),
            (_, None) => Err(NoToken {
                error: TokenError::Unreadable,
                wait: state.back_off.pause(),
            }),
        }
    }

    /// Throws the token away that the backend did not take, unless it is another by now.
    pub(super) async fn discard(&self, authorization: &HeaderValue) {
        let mut state = self.state.lock().await;
        if state
            .token
            .as_ref()
            .is_some_and(|token| token.authorization == authorization)
        {
            state.token = None;
        }
    }

    /// Asks with the secret in the header, as RFC 6749 prefers, and once more with it in the body where the endpoint
    /// takes it only there; what worked is remembered.
    async fn request(&self, auth_type: &mut Option<AuthType>) -> Result<Token, TokenError> {
        let known = auth_type.clone();
        let first = known.clone().unwrap_or(AuthType::BasicAuth);
        match self.request_as(first.clone()).await {
            Ok(token) => {
                *auth_type = Some(first);
                Ok(token)
            }
            Err(error) if known.is_none() && error.is_about_request() => {
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
        let asked = Instant::now();
        let answer = request.request_async(self).await.map_err(token_error)?;
        token(&answer, asked)
    }

    async fn fetch(&self, request: HttpRequest) -> Result<HttpResponse, TokenError> {
        let connection = |error: reqwest::Error| match error.is_timeout() {
            true => TokenError::Timeout,
            false => TokenError::Connection(described(error)),
        };
        let mut request = reqwest::Request::try_from(request).map_err(connection)?;
        *request.timeout_mut() = Some(self.timeout);
        let response = self.http.execute(request).await.map_err(connection)?;
        let status = response.status();
        let refused = TokenError::Status(status.as_u16());
        if !status.is_success() && !is_about_request(status.as_u16()) {
            return Err(refused);
        }
        let headers = response.headers().clone();
        let body = body(response, LONGEST_ANSWER)
            .await
            .ok_or(TokenError::Unreadable)?;
        if !status.is_success() && serde_json::from_slice::<BasicErrorResponse>(&body).is_err() {
            return Err(refused);
        }
        let mut answer = HttpResponse::new(body);
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        Ok(answer)
    }
}

impl<'a> AsyncHttpClient<'a> for Tokens {
    type Error = TokenError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, TokenError>> + Send + 'a>>;

    fn call(&'a self, request: HttpRequest) -> Self::Future {
        Box::pin(self.fetch(request))
    }
}

fn is_about_request(status: u16) -> bool {
    (400..500).contains(&status) && status != 429
}

fn token(answer: &BasicTokenResponse, asked: Instant) -> Result<Token, TokenError> {
    let text = format!("Bearer {}", answer.access_token().secret());
    let mut authorization = HeaderValue::try_from(text).map_err(|_| TokenError::Unreadable)?;
    authorization.set_sensitive(true);
    let life = answer.expires_in().unwrap_or(LIFE_UNSAID).min(LONGEST_LIFE);
    Ok(Token {
        authorization,
        renew: asked + (life - MARGIN.min(life / 2)),
        expires: asked + life,
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
            BasicErrorResponseType::Extension(_) => "an error of its own",
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
            let answer = format!(r#"{{"access_token":"a","token_type":"bearer"{expires_in}}}"#);
            let answer = serde_json::from_str(&answer).unwrap();
            let asked = Instant::now();
            let token = token(&answer, asked).unwrap();
            assert_eq!(token.renew - asked, Duration::from_secs(renew), "{expires_in}");
            assert_eq!(
                token.expires - asked,
                Duration::from_secs(expires),
                "{expires_in}"
            );
        }
    }
}
