//! JSON responses, and request bodies with validation.
//!
//! A body is read before its handler runs but validated only when the handler asks for it, because
//! authentication, existence and ownership are checked first. The rules and the wording of validation
//! errors are those of the reference implementation, which uses marshmallow.

use std::{collections::BTreeMap, convert::Infallible};

use axum::{
    body::Bytes,
    extract::{FromRef, FromRequest, Request},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    error::{ApiError, FieldErrors},
    limits::Limits,
};
use crate::domain::{Email, InvalidEmail};

/// A JSON response.
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => {
                let json = HeaderValue::from_static("application/json");
                ([(header::CONTENT_TYPE, json)], body).into_response()
            }
            Err(error) => {
                telemetry::error!(%error, "cannot serialise a response");
                ApiError::internal().into_response()
            }
        }
    }
}

/// A request body, read up to the size limit and not yet parsed.
#[derive(Debug)]
pub struct JsonBody(Result<Bytes, ApiError>);

impl<S> FromRequest<S> for JsonBody
where
    Limits: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Infallible;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let limits = Limits::from_ref(state);
        if !is_json(request.headers()) {
            return Ok(Self(Err(ApiError::unsupported_media_type())));
        }
        let body = Limited::new(request.into_body(), limits.body).collect().await;
        Ok(Self(match body {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(ApiError::body_too_large()),
            Err(_) => Err(ApiError::bad_request()),
        }))
    }
}

impl JsonBody {
    /// Parses the body as a JSON object and returns its fields.
    ///
    /// # Errors
    /// 415 when the content type is not JSON, 413 when the body is too large, 400 when the body is not a
    /// JSON object.
    pub fn into_form(self) -> Result<Form, ApiError> {
        let value: Value = serde_json::from_slice(&self.0?).map_err(|_| ApiError::bad_request())?;
        // The reference implementation treats every empty value as an empty object.
        let empty = match &value {
            Value::Null | Value::Bool(false) => true,
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Bool(true) | Value::Object(_) => false,
        };
        let fields = match value {
            Value::Object(fields) => fields,
            _ if empty => Map::new(),
            _ => {
                let message = "Invalid input type.".to_owned();
                let errors = FieldErrors::from([("_schema".to_owned(), vec![message])]);
                return Err(ApiError::validation(errors));
            }
        };
        Ok(Form {
            fields,
            errors: BTreeMap::new(),
        })
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(content_type) = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
    else {
        return false;
    };
    let essence = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// Allowed length of a text, in characters.
#[derive(Debug, Clone, Copy)]
pub enum Length {
    AtLeast(usize),
    AtMost(usize),
    Between(usize, usize),
}

impl Length {
    fn error(self, text: &str) -> Option<String> {
        let length = text.chars().count();
        match self {
            Self::AtLeast(min) if length < min => Some(format!("Shorter than minimum length {min}.")),
            Self::AtMost(max) if length > max => Some(format!("Longer than maximum length {max}.")),
            Self::Between(min, max) if !(min..=max).contains(&length) => {
                Some(format!("Length must be between {min} and {max}."))
            }
            _ => None,
        }
    }
}

/// The fields of a request body. Handlers take them one by one; the form collects validation errors
/// until [`Form::finish`].
#[derive(Debug)]
pub struct Form {
    fields: Map<String, Value>,
    errors: FieldErrors,
}

impl Form {
    /// Takes a required text; returns an empty text when the field is missing or invalid.
    pub fn required(&mut self, name: &str, length: Length) -> String {
        self.require(name);
        self.optional(name, length).unwrap_or_default()
    }

    /// Takes an optional text.
    pub fn optional(&mut self, name: &str, length: Length) -> Option<String> {
        let text = self.text(name, "Not a valid string.")?;
        if text.contains('\0') {
            self.add_error(name, "Null characters are not allowed.");
            return None;
        }
        match length.error(&text) {
            Some(error) => {
                self.add_error(name, &error);
                None
            }
            None => Some(text),
        }
    }

    /// Takes a required secret that is compared but never stored, so its content is not validated.
    pub fn required_secret(&mut self, name: &str) -> String {
        self.require(name);
        self.text(name, "Not a valid string.").unwrap_or_default()
    }

    /// Takes an optional new secret of at least `min_chars` characters and at most `max_bytes` bytes.
    pub fn optional_new_secret(&mut self, name: &str, min_chars: usize, max_bytes: usize) -> Option<String> {
        let text = self.text(name, "Not a valid string.")?;
        if let Some(error) = Length::AtLeast(min_chars).error(&text) {
            self.add_error(name, &error);
        } else if text.len() > max_bytes {
            self.add_error(name, &format!("Longer than maximum length {max_bytes}."));
        }
        Some(text)
    }

    /// Takes a required new secret; see [`Form::optional_new_secret`].
    pub fn required_new_secret(&mut self, name: &str, min_chars: usize, max_bytes: usize) -> String {
        self.require(name);
        self.optional_new_secret(name, min_chars, max_bytes)
            .unwrap_or_default()
    }

    /// Takes a required e-mail address.
    pub fn required_email(&mut self, name: &str) -> Option<Email> {
        self.require(name);
        self.optional_email(name)
    }

    /// Takes an optional e-mail address.
    pub fn optional_email(&mut self, name: &str) -> Option<Email> {
        const MALFORMED: &str = "Not a valid email address.";
        let text = self.text(name, MALFORMED)?;
        match Email::parse(&text) {
            Ok(email) => return Some(email),
            Err(InvalidEmail::Malformed) => self.add_error(name, MALFORMED),
            Err(InvalidEmail::TooLong) => {
                self.add_error(name, &format!("Longer than maximum length {}.", Email::MAX_CHARS));
            }
        }
        None
    }

    /// Finishes validation; fields that were not taken are errors too.
    ///
    /// # Errors
    /// 400 with all validation errors of all fields.
    pub fn finish(mut self) -> Result<(), ApiError> {
        for name in std::mem::take(&mut self.fields).keys() {
            self.add_error(name, "Unknown field.");
        }
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(ApiError::validation(self.errors))
        }
    }

    fn require(&mut self, name: &str) {
        if !self.fields.contains_key(name) {
            self.add_error(name, "Missing data for required field.");
        }
    }

    fn text(&mut self, name: &str, wrong_type: &str) -> Option<String> {
        match self.fields.remove(name)? {
            Value::String(text) => return Some(text),
            Value::Null => self.add_error(name, "Field may not be null."),
            _ => self.add_error(name, wrong_type),
        }
        None
    }

    fn add_error(&mut self, name: &str, message: &str) {
        self.errors
            .entry(name.to_owned())
            .or_default()
            .push(message.to_owned());
    }
}
