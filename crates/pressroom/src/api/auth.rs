//! Authentication of a request by its bearer token (RFC 6750).

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    http::{HeaderMap, header, request::Parts},
};
use telemetry::KeyValue;

use super::{app::App, error::ApiError, rate_limit::RequestQuota};
use crate::{
    accounts::{AccountError, Claims},
    domain::User,
};

/// A caller with a valid token.
#[derive(Debug)]
pub struct Caller {
    pub user: User,
    pub claims: Claims,
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Self::Rejection> {
        let caller = authenticated(parts, app).await?;
        caller.ok_or_else(ApiError::missing_token)
    }
}

impl OptionalFromRequestParts<Arc<App>> for Caller {
    type Rejection = ApiError;

    /// Treats an invalid token as no token; an unavailable database remains an error.
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Option<Self>, Self::Rejection> {
        match authenticated(parts, app).await {
            Err(AccountError::InvalidToken(_) | AccountError::UserNotFound) => Ok(None),
            caller => Ok(caller?),
        }
    }
}

/// A caller with a valid token who is within the write limit. Extracting it counts one write.
#[derive(Debug)]
pub struct Writer(pub Caller);

impl FromRequestParts<Arc<App>> for Writer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Self::Rejection> {
        let caller = <Caller as FromRequestParts<Arc<App>>>::from_request_parts(parts, app).await?;
        if let Some(quota) = app.accounts.admit_write(caller.user.id)?
            && let Some(response) = parts.extensions.get::<RequestQuota>()
        {
            response.set(quota);
        }
        Ok(Self(caller))
    }
}

/// Returns the caller that the token of the request identifies; `None` without a token.
async fn authenticated(parts: &Parts, app: &App) -> Result<Option<Caller>, AccountError> {
    let Some(token) = bearer_token(&parts.headers) else {
        return Ok(None);
    };
    let (user, claims) = app.accounts.authenticate(&token).await?;
    telemetry::set_server_attribute(KeyValue::new("user.id", user.id.0.to_string()));
    Ok(Some(Caller { user, claims }))
}

/// Returns the token after `Bearer`, which may be in any letter case and followed by several spaces.
///
/// Repeated `Authorization` fields are joined into a list, which is never a valid token.
fn bearer_token(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(header::AUTHORIZATION).iter();
    let values: Result<Vec<&str>, _> = values.map(|value| value.to_str()).collect();
    let value = values.ok()?.join(",");
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}
