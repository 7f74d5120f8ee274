//! JSON in and out: answers are written, bodies are read and their faults collected.
//!
//! A body is read whole before its handler runs but judged only when the handler asks, because
//! authentication, existence and ownership are answered first. What counts as a fault, and its
//! wording, is the reference's (marshmallow's).

use std::{
    collections::{BTreeMap, btree_map::Entry},
    convert::Infallible,
};

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
    error::{ApiError, Faults},
    limits::Limits,
};
use crate::accounts::{Email, InvalidEmail};

/// An answer as JSON.
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
                telemetry::error!(%error, "answer not serialised");
                ApiError::internal().into_response()
            }
        }
    }
}

/// A request body, read within the limit and not yet judged.
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
    /// The fields of the body.
    ///
    /// # Errors
    /// 415 when it is not said to be JSON, 413 when it is too large, 400 when it is no JSON object.
    pub fn into_form(self) -> Result<Form, ApiError> {
        let value: Value = serde_json::from_slice(&self.0?).map_err(|_| ApiError::bad_request())?;
        // The reference takes every empty value for an empty object.
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
                let faults = Faults::from([("_schema".to_owned(), vec!["Invalid input type.".to_owned()])]);
                return Err(ApiError::validation(faults));
            }
        };
        Ok(Form {
            fields,
            faults: BTreeMap::new(),
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

/// How long a text may be, in characters.
#[derive(Debug, Clone, Copy)]
pub enum Length {
    AtLeast(usize),
    AtMost(usize),
    Between(usize, usize),
}

impl Length {
    fn fault(self, text: &str) -> Option<String> {
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

/// The fields of a body, taken one by one; what is wrong with them is kept until the end.
#[derive(Debug)]
pub struct Form {
    fields: Map<String, Value>,
    faults: Faults,
}

impl Form {
    /// A text that must be there; empty when it is at fault.
    pub fn required(&mut self, name: &str, length: Length) -> String {
        self.demand(name);
        self.optional(name, length).unwrap_or_default()
    }

    /// A text that may be left out.
    pub fn optional(&mut self, name: &str, length: Length) -> Option<String> {
        let text = self.text(name, "Not a valid string.")?;
        if text.contains('\0') {
            self.fault(name, "Null characters are not allowed.");
            return None;
        }
        match length.fault(&text) {
            Some(fault) => {
                self.fault(name, &fault);
                None
            }
            None => Some(text),
        }
    }

    /// A text that must be there and is taken as it is, to be compared and never kept.
    pub fn required_secret(&mut self, name: &str) -> String {
        self.demand(name);
        self.text(name, "Not a valid string.").unwrap_or_default()
    }

    /// A new secret that may be left out: at least so many characters, at most so many bytes.
    pub fn optional_new_secret(&mut self, name: &str, min_chars: usize, max_bytes: usize) -> Option<String> {
        let text = self.text(name, "Not a valid string.")?;
        if let Some(fault) = Length::AtLeast(min_chars).fault(&text) {
            self.fault(name, &fault);
        } else if text.len() > max_bytes {
            self.fault(name, &format!("Longer than maximum length {max_bytes}."));
        }
        Some(text)
    }

    /// A new secret that must be there.
    pub fn required_new_secret(&mut self, name: &str, min_chars: usize, max_bytes: usize) -> String {
        self.demand(name);
        self.optional_new_secret(name, min_chars, max_bytes)
            .unwrap_or_default()
    }

    /// An e-mail address that must be there.
    pub fn required_email(&mut self, name: &str) -> Option<Email> {
        self.demand(name);
        self.optional_email(name)
    }

    /// An e-mail address that may be left out.
    pub fn optional_email(&mut self, name: &str) -> Option<Email> {
        const MALFORMED: &str = "Not a valid email address.";
        let text = self.text(name, MALFORMED)?;
        match Email::parse(&text) {
            Ok(email) => return Some(email),
            Err(InvalidEmail::Malformed) => self.fault(name, MALFORMED),
            Err(InvalidEmail::TooLong) => {
                self.fault(name, &format!("Longer than maximum length {}.", Email::MAX_CHARS));
            }
        }
        None
    }

    /// Ends the reading: what was not asked for is a fault too.
    ///
    /// # Errors
    /// 400 with every fault of every field.
    pub fn finish(mut self) -> Result<(), ApiError> {
        for name in std::mem::take(&mut self.fields).keys() {
            self.fault(name, "Unknown field.");
        }
        if self.faults.is_empty() {
            Ok(())
        } else {
            Err(ApiError::validation(self.faults))
        }
    }

    fn demand(&mut self, name: &str) {
        if !self.fields.contains_key(name) {
            self.fault(name, "Missing data for required field.");
        }
    }

    fn text(&mut self, name: &str, wrong_type: &str) -> Option<String> {
        match self.fields.remove(name)? {
            Value::String(text) => return Some(text),
            Value::Null => self.fault(name, "Field may not be null."),
            _ => self.fault(name, wrong_type),
        }
        None
    }

    fn fault(&mut self, name: &str, fault: &str) {
        match self.faults.entry(name.to_owned()) {
            Entry::Vacant(entry) => {
                entry.insert(vec![fault.to_owned()]);
            }
            Entry::Occupied(mut entry) => entry.get_mut().push(fault.to_owned()),
        }
    }
}
