//! Extraction of the `Idempotency-Key` field, the client-chosen key that makes a request safe to retry.

use axum::{
    extract::FromRequestParts,
    http::{HeaderName, request::Parts},
};

use super::error::ApiError;
use crate::domain::IdempotencyKey;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The idempotency key of a request, if it has one.
#[derive(Debug)]
pub struct Keyed(pub Option<IdempotencyKey>);

impl<S: Send + Sync> FromRequestParts<S> for Keyed {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let mut keys = parts.headers.get_all(&IDEMPOTENCY_KEY).iter();
        let Some(key) = keys.next() else {
            return Ok(Self(None));
        };
        let key = IdempotencyKey::parse(key.as_bytes()).filter(|_| keys.next().is_none());
        Ok(Self(Some(key.ok_or_else(ApiError::invalid_idempotency_key)?)))
    }
}
