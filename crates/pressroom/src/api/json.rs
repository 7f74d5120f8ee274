//! JSON responses, and request bodies with validation.
//!
//! A body is received before its handler runs, but the handler validates the body only after it has checked
//! authentication, existence and ownership. The rules and messages of validation are those of the reference
//! implementation, which uses marshmallow.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use axum::{
    body::{Body, HttpBody as _},
    extract::{FromRequest, Request},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use http_body_util::BodyExt as _;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{
    app::App,
    error::{ApiError, FieldErrors, json_response},
    memory::{LARGE_RESPONSE, Reception, Reserved},
};
use crate::{
    accounts::Password,
    domain::{Email, InvalidEmail},
};

/// UTF-8 encoding of the byte order mark.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A JSON response.
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        to_json(&self.0, 0).map(json_response).into_response()
    }
}

/// Serialises the body of a response that contains `text_bytes` bytes of text.
///
/// The buffer is allocated for this size, because a large buffer that grows by doubling occupies several times as much.
pub(super) fn to_json(body: &impl Serialize, text_bytes: usize) -> Result<Vec<u8>, ApiError> {
    // With room for escapes, names and other values.
    let mut json = Vec::with_capacity(text_bytes + text_bytes / 16 + 512);
    serde_json::to_writer(&mut json, body).map_err(|error| {
        telemetry::error!(%error, "cannot serialise a response");
        ApiError::internal_error()
    })?;
    if json.len() as u64 > LARGE_RESPONSE {
        json.shrink_to_fit();
    }
    Ok(json)
}

/// Serialises a time as RFC 3339 in UTC, always with microseconds, so that all times have the same length.
pub(super) fn timestamp<S: serde::Serializer>(
    time: &jiff::Timestamp,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.6}"))
}

/// A request body within the size limit, not yet parsed.
#[derive(Debug)]
pub struct JsonBody(Result<Vec<u8>, ApiError>);

impl FromRequest<Arc<App>> for JsonBody {
    type Rejection = Infallible;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Self::Rejection> {
        if !is_json(request.headers()) {
            return Ok(Self(Err(ApiError::unsupported_media_type())));
        }
        let BodyProgress(progress) = request.extensions().get().cloned().unwrap_or_default();
        progress.is_awaited.store(true, Relaxed);
        let received = receive(request.into_body(), app, &progress.reserved).await;
        progress.is_awaited.store(false, Relaxed);
        Ok(Self(received))
    }
}

/// Request extension for the state of the body; the middleware drops it when the handler has finished.
#[derive(Debug, Clone, Default)]
pub(super) struct BodyProgress(Arc<Progress>);

#[derive(Debug, Default)]
struct Progress {
    /// Whether the handler waits for the rest of the body.
    is_awaited: AtomicBool,
    /// Reservation for a large body, which the handler may hold in a parsed form while it waits for the database.
    reserved: OnceLock<Reserved>,
}

impl BodyProgress {
    pub(super) fn is_awaited(&self) -> bool {
        self.0.is_awaited.load(Relaxed)
    }
}

/// Receives a body within the size limit. Reserves memory for a large body before receiving the rest of it.
async fn receive(mut body: Body, app: &App, reserved: &OnceLock<Reserved>) -> Result<Vec<u8>, ApiError> {
    let expected = body.size_hint().exact().unwrap_or(app.limits.body as u64);
    let unavailable = || ApiError::service_unavailable().caused_by("overloaded", "too many large requests");
    let mut reception: Option<Reception> = None;
    let mut bytes = Vec::new();
    loop {
        let frame = match &reception {
            None => body.frame().await,
            Some(reception) => tokio::select! {
                biased;
                frame = body.frame() => frame,
                () = reception.evicted() => return Err(unavailable()),
            },
        };
        let Some(frame) = frame else {
            return Ok(bytes);
        };
        let frame = frame.map_err(|_| ApiError::bad_request())?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        let length = bytes.len() + data.len();
        if length > app.limits.body {
            return Err(ApiError::body_too_large());
        }
        let memory = &app.memory.requests;
        if reserved.get().is_none() && memory.is_large(length as u64) {
            let permit = memory.reserve(expected).await.ok_or_else(unavailable)?;
            reception = Some(memory.receive(&permit));
            let _unset = reserved.set(permit);
            let expected = usize::try_from(expected).unwrap_or_default();
            bytes.reserve_exact(expected.saturating_sub(bytes.len()));
        }
        bytes.extend_from_slice(data);
    }
}

impl JsonBody {
    /// Parses the body as a JSON object with fields of these names.
    ///
    /// # Errors
    /// 415 when the content type is not JSON, 413 when the body is too large, 400 when the body is not a
    /// JSON object.
    pub fn into_form(self, names: &'static [&'static str]) -> Result<Form, ApiError> {
        let bytes = self.0?;
        // The reference implementation ignores a byte order mark, which PowerShell and .NET write.
        let text = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes);
        let mut json = serde_json::Deserializer::from_slice(text);
        let fields = Fields::new(names).deserialize(&mut json);
        let fields = fields.and_then(|fields| json.end().map(|()| fields));
        match fields.map_err(|_| ApiError::bad_request())? {
            Some(fields) => Ok(Form {
                fields,
                errors: FieldErrors::new(),
                error_bytes: 0,
            }),
            None => Err(ApiError::invalid_field("_schema", "Invalid input type.")),
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE);
    let content_type = content_type
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let (essence, _) = content_type.split_once(';').unwrap_or((content_type, ""));
    let essence = essence.trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// Declares a type for a request body, with a method that parses the body and a description for the OpenAPI
/// document.
///
/// A field has a type, a type in the document, `required`, `optional` or `confirming` (required with a new e-mail
/// address or password, and declared before them), the name of the [`Form`] method that takes the field, and
/// properties for the document. Parsing enforces `min_length` and `max_length`.
macro_rules! request_body {
    (
        $(#[$meta:meta])*
        $name:ident {
            $(
                $(#[$about:meta])*
                $field:ident: $type:ty as $described:ty = $need:ident $take:ident {
                    $($key:ident = $value:tt),*
                },
            )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, utoipa::ToSchema)]
        pub struct $name {
            $($(#[$about])* #[schema(value_type = $described, $($key = $value),*)] $field: $type,)*
        }

        impl $name {
            /// Reads the body.
            ///
            /// # Errors
            /// See [`JsonBody::into_form`], and 400 with all validation errors of all fields.
            fn read(body: $crate::api::json::JsonBody) -> Result<Self, $crate::api::error::ApiError> {
                let mut form = body.into_form(&[$(stringify!($field)),*])?;
                $(
                    let length = $crate::api::json::Length::default();
                    $(let length = $crate::api::json::request_body!(@length length $key $value);)*
                    let $field = $crate::api::json::request_body!(@$need form $field $take length);
                )*
                form.finish()?;
                // `finish` has returned an error if a field is invalid, so no field is `None`.
                Ok(Self {
                    $($field: $field.ok_or_else($crate::api::error::ApiError::bad_request)?,)*
                })
            }
        }
    };
    (@length $length:ident min_length $value:tt) => {
        $crate::api::json::Length { min: Some($value), ..$length }
    };
    (@length $length:ident max_length $value:tt) => {
        $crate::api::json::Length { max: Some($value), ..$length }
    };
    (@length $length:ident $other:ident $value:tt) => { $length };
    (@required $form:ident $field:ident $take:ident $length:ident) => {{
        $form.require(stringify!($field));
        $form.$take(stringify!($field), $length)
    }};
    (@confirming $form:ident $field:ident $take:ident $length:ident) => {{
        $form.require_with(stringify!($field), &["email", "password"]);
        Some($form.$take(stringify!($field), $length))
    }};
    (@optional $form:ident $field:ident $take:ident $length:ident) => {
        Some($form.$take(stringify!($field), $length))
    };
}
pub(super) use request_body;

/// Minimum and maximum length of a field.
#[derive(Debug, Clone, Copy, Default)]
pub struct Length {
    pub(super) min: Option<usize>,
    pub(super) max: Option<usize>,
}

impl Length {
    fn error(self, length: usize) -> Option<String> {
        let short = self.min.is_some_and(|min| length < min);
        let long = self.max.is_some_and(|max| length > max);
        match (self.min, self.max) {
            (Some(min), Some(max)) if short || long => {
                Some(format!("Length must be between {min} and {max}."))
            }
            (Some(min), _) if short => Some(format!("Shorter than minimum length {min}.")),
            (_, Some(max)) if long => Some(format!("Longer than maximum length {max}.")),
            _ => None,
        }
    }
}

/// Fields of a request body. Each method takes a field and collects its validation errors, which
/// [`Form::finish`] returns.
#[derive(Debug)]
pub struct Form {
    fields: Fields,
    errors: FieldErrors,
    /// Size of the errors in the response, at most [`MAX_ERROR_BYTES`].
    error_bytes: usize,
}

/// Maximum size of all validation errors in a response, in bytes. Further errors are omitted, because a client
/// chooses the names of unknown fields, and thereby the size of the response.
const MAX_ERROR_BYTES: usize = 32 * 1024;
const OMITTED: &str = "Further errors are omitted.";

impl Form {
    /// Takes text; `length` is in characters.
    pub(super) fn text(&mut self, name: &str, length: Length) -> Option<String> {
        let text = self.string(name, "Not a valid string.")?;
        if text.contains('\0') {
            self.add_error(name, "Null characters are not allowed.");
            return None;
        }
        if let Some(error) = length.error(text.chars().count()) {
            self.add_error(name, &error);
            return None;
        }
        Some(text)
    }

    /// Takes a password that is compared but never stored, so its content is not validated.
    pub(super) fn password(&mut self, name: &str, _: Length) -> Option<Password> {
        self.string(name, "Not a valid string.").map(Password)
    }

    /// Takes a password to store; its minimum length is in characters, its maximum length in bytes.
    pub(super) fn new_password(&mut self, name: &str, Length { min, max }: Length) -> Option<Password> {
        let text = self.string(name, "Not a valid string.")?;
        let short = Length { min, max: None }.error(text.chars().count());
        let long = Length { min: None, max }.error(text.len());
        if let Some(error) = short.or(long) {
            self.add_error(name, &error);
        }
        Some(Password(text))
    }

    /// Takes an e-mail address; the type [`Email`] limits its length.
    pub(super) fn email(&mut self, name: &str, _: Length) -> Option<Email> {
        const MALFORMED: &str = "Not a valid email address.";
        let text = self.string(name, MALFORMED)?;
        match Email::parse(&text) {
            Ok(email) => return Some(email),
            Err(InvalidEmail::Malformed) => self.add_error(name, MALFORMED),
            Err(InvalidEmail::TooLong) => {
                self.add_error(name, &format!("Longer than maximum length {}.", Email::MAX_CHARS));
            }
        }
        None
    }

    /// Finishes validation; the remaining fields are errors.
    ///
    /// # Errors
    /// 400 with all validation errors of all fields.
    pub(super) fn finish(mut self) -> Result<(), ApiError> {
        for name in std::mem::take(&mut self.fields.unknown) {
            self.add_error(&name, "Unknown field.");
        }
        if self.fields.has_more {
            self.add_omission();
        }
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(ApiError::validation(self.errors))
        }
    }

    /// Adds an error if the field is missing.
    pub(super) fn require(&mut self, name: &str) {
        if !self.fields.known.contains_key(name) {
            self.add_error(name, "Missing data for required field.");
        }
    }

    /// Adds an error if the field is missing although one of `others` is present.
    pub(super) fn require_with(&mut self, name: &str, others: &[&str]) {
        if others.iter().any(|other| self.fields.known.contains_key(other)) {
            self.require(name);
        }
    }

    fn string(&mut self, name: &str, wrong_type: &str) -> Option<String> {
        match self.fields.known.remove(name)? {
            FieldValue::Text(text) => return Some(text),
            FieldValue::Null => self.add_error(name, "Field may not be null."),
            FieldValue::Other => self.add_error(name, wrong_type),
        }
        None
    }

    fn add_error(&mut self, name: &str, message: &str) {
        let escaped = serde_json::to_string(name).map_or(usize::MAX, |name| name.len());
        let bytes = escaped.saturating_add(message.len() + r#":[""],"#.len());
        if self.error_bytes.saturating_add(bytes) > MAX_ERROR_BYTES {
            self.add_omission();
            return;
        }
        self.error_bytes += bytes;
        let errors = self.errors.entry(name.to_owned()).or_default();
        errors.push(message.to_owned());
    }

    fn add_omission(&mut self) {
        let errors = self.errors.entry("_schema".to_owned()).or_default();
        if !errors.iter().any(|error| error == OMITTED) {
            errors.push(OMITTED.to_owned());
        }
    }
}

/// Fields of an object in a request.
///
/// Parsing keeps the values of known fields, and as many names of unknown fields as a response can list. The rest is
/// only scanned, because a client chooses its size.
#[derive(Debug)]
struct Fields {
    names: &'static [&'static str],
    known: BTreeMap<&'static str, FieldValue>,
    unknown: BTreeSet<String>,
    /// Size of the errors about `unknown`, at most [`MAX_ERROR_BYTES`].
    unknown_bytes: usize,
    /// Whether there are further unknown fields.
    has_more: bool,
}

/// Value of a field. Only text has relevant content.
#[derive(Debug)]
enum FieldValue {
    Text(String),
    Null,
    Other,
}

impl Fields {
    fn new(names: &'static [&'static str]) -> Self {
        Self {
            names,
            known: BTreeMap::new(),
            unknown: BTreeSet::new(),
            unknown_bytes: 0,
            has_more: false,
        }
    }

    fn add_unknown(&mut self, name: Cow<'_, str>) {
        if self.unknown.contains(&*name) {
            return;
        }
        let bytes = self.unknown_bytes + name.len() + r#"":["Unknown field."],"#.len();
        if bytes > MAX_ERROR_BYTES {
            self.has_more = true;
            return;
        }
        self.unknown_bytes = bytes;
        self.unknown.insert(name.into_owned());
    }
}

/// Reads the fields; `None` stands for a value of another type. The reference implementation treats every value that
/// is false in Python as an empty object.
impl<'de> DeserializeSeed<'de> for Fields {
    type Value = Option<Self>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Fields {
    type Value = Option<Self>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
        while let Some(Name(name)) = map.next_key()? {
            if let Some(known) = self.names.iter().find(|known| **known == name) {
                self.known.insert(known, map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
                self.add_unknown(name);
            }
        }
        Ok(Some(self))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Some(self))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok((!value).then_some(self))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok((number == 0).then_some(self))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok((number == 0).then_some(self))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok((number == 0.0).then_some(self))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(text.is_empty().then_some(self))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        Ok(skip(&mut items)?.then_some(self))
    }
}

/// Name of a field, borrowed from the body unless it has escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for FieldValue {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = FieldValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<FieldValue, E> {
        Ok(FieldValue::Text(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<FieldValue, E> {
        Ok(FieldValue::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<FieldValue, E> {
        Ok(FieldValue::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<FieldValue, E> {
        Ok(FieldValue::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<FieldValue, E> {
        Ok(FieldValue::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<FieldValue, E> {
        Ok(FieldValue::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<FieldValue, A::Error> {
        skip(&mut items)?;
        Ok(FieldValue::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FieldValue, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(FieldValue::Other)
    }
}

/// Skips the items of an array, and returns whether there were none.
fn skip<'de, A: SeqAccess<'de>>(items: &mut A) -> Result<bool, A::Error> {
    let mut is_empty = true;
    while items.next_element::<IgnoredAny>()?.is_some() {
        is_empty = false;
    }
    Ok(is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Option<Fields>, serde_json::Error> {
        let mut json = serde_json::Deserializer::from_str(json);
        let fields = Fields::new(&["a", "b"]).deserialize(&mut json)?;
        json.end().map(|()| fields)
    }

    #[test]
    fn values_of_known_fields_and_names_of_unknown_fields_are_kept() {
        let fields = parse(r#"{"a": "x", "c": {"a": [1]}, "\u0062": null, "c": 2, "a": "y", "d": []}"#);
        let fields = fields.unwrap().unwrap();
        assert!(matches!(&fields.known["a"], FieldValue::Text(text) if text == "y"));
        assert!(matches!(fields.known["b"], FieldValue::Null));
        assert_eq!(fields.known.len(), 2);
        assert_eq!(fields.unknown.into_iter().collect::<Vec<_>>(), ["c", "d"]);
        for other in ["true", "1", "-1", "1.5", "[]", "{}", "[[{}], 2]"] {
            let fields = parse(&format!(r#"{{"a": {other}}}"#)).unwrap().unwrap();
            assert!(matches!(fields.known["a"], FieldValue::Other), "{other}");
        }
    }

    #[test]
    fn values_that_are_false_in_python_are_empty_objects() {
        for empty in ["{}", "null", "false", "0", "-0", "0.0", "\"\"", "[]"] {
            let fields = parse(empty).unwrap();
            assert!(fields.is_some_and(|fields| fields.known.is_empty()), "{empty}");
        }
        for other in ["true", "1", "-1", "0.1", "\"a\"", "[{}]"] {
            assert!(parse(other).unwrap().is_none(), "{other}");
        }
        for malformed in [
            "",
            "{",
            "[1",
            "[1}",
            "{\"a\": 1} 2",
            "{\"a\" 1}",
            "{1: 2}",
            "{\"\\ud800\": 1}",
        ] {
            assert!(parse(malformed).is_err(), "{malformed}");
        }
    }

    /// Otherwise, a body within the size limit costs much more memory and time than its size.
    #[test]
    fn no_more_unknown_fields_are_kept_than_a_response_lists() {
        let many: String = (0..90_000).map(|number| format!("\"f{number}\":[1],")).collect();
        let long = "x".repeat(1 << 20);
        for (unknown, kept) in [(many, 2000), (format!("\"{long}\":1,"), 0)] {
            let fields = parse(&format!("{{{unknown}\"a\":\"last\"}}")).unwrap().unwrap();
            assert!(fields.unknown.len() <= kept, "{}", fields.unknown.len());
            assert!(fields.unknown_bytes <= MAX_ERROR_BYTES);
            assert!(fields.has_more);
            assert!(matches!(&fields.known["a"], FieldValue::Text(text) if text == "last"));
        }
    }
}
