//! The fields of spans: encoding at their start, setting them later, and decoding them for log records.

use std::cell::Cell;
use std::error::Error;
use std::fmt::{Debug, Write as _};

use opentelemetry::logs::AnyValue;
use opentelemetry::trace::{SpanKind, SpanRef, Status};
use opentelemetry::{Key, KeyValue, Value};
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::trace::v1;
use prost::Message as _;
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata};

use super::debug_value::structure;
use crate::encode::Attributes;

/// Maximum memory in bytes that a thread keeps for formatting.
const MAX_KEPT_TEXT: usize = 4 * 1024;

/// Attribute of the fields `error` and `err`. The conventions use `error` as the namespace of `error.type`.
pub const EXCEPTION_MESSAGE: &str = "exception.message";

const NAME: &str = "otel.name";
const KIND: &str = "otel.kind";
const STATUS_CODE: &str = "otel.status_code";
const STATUS_MESSAGE: &str = "otel.status_message";
/// Older spelling of [`STATUS_MESSAGE`].
const STATUS_DESCRIPTION: &str = "otel.status_description";

thread_local! {
    static TEXT: Cell<String> = const { Cell::new(String::new()) };
}

/// The fields of one callsite that are not plain attributes, as sets of their indexes. Computed once per callsite, because
/// comparing names costs more than encoding values. Fields beyond the 64th are always attributes.
#[derive(Clone, Copy, Debug)]
pub(super) struct FieldSets {
    /// Fields that set properties of the span instead of attributes.
    special: u64,
    /// Errors under their usual names.
    errors: u64,
}

impl FieldSets {
    pub(super) fn of(metadata: &Metadata<'_>) -> Self {
        let set = |is_in_set: fn(&str) -> bool| {
            let fields = metadata.fields().iter().filter(|field| is_in_set(field.name()));
            let bits = fields.filter_map(|field| 1_u64.checked_shl(field.index().try_into().ok()?));
            bits.fold(0, |set, bit| set | bit)
        };
        Self {
            special: set(is_special),
            errors: set(is_error_field),
        }
    }

    pub(super) fn has_special(self) -> bool {
        self.special != 0
    }

    fn is_special(self, field: &Field) -> bool {
        contains(self.special, field)
    }

    fn is_error(self, field: &Field) -> bool {
        contains(self.errors, field)
    }

    /// Returns the key of the attribute of a field.
    fn key(self, field: &Field) -> &'static str {
        match self.is_error(field) {
            true => EXCEPTION_MESSAGE,
            false => field.name(),
        }
    }

    /// Whether a field is an attribute under its own name.
    fn is_plain(self, field: &Field) -> bool {
        !contains(self.special | self.errors, field)
    }
}

/// Whether a set of indexes contains a field.
fn contains(set: u64, field: &Field) -> bool {
    field.index() < 64 && set >> field.index() & 1 != 0
}

/// Whether a field with this name is an error, which is recorded as [`EXCEPTION_MESSAGE`].
#[must_use]
pub fn is_error_field(name: &str) -> bool {
    matches!(name, "error" | "err")
}

/// Whether a field sets a property of the span instead of an attribute.
fn is_special(name: &str) -> bool {
    matches!(
        name,
        NAME | KIND | STATUS_CODE | STATUS_MESSAGE | STATUS_DESCRIPTION
    )
}

/// Formats `value` into a buffer that the thread reuses, and passes the text to `then`.
fn with_text(value: &dyn Debug, then: impl FnOnce(&str)) {
    let mut text = TEXT.try_with(Cell::take).unwrap_or_default();
    text.clear();
    // Only a failing `Debug` implementation returns an error; its text so far is kept.
    let _ = write!(text, "{value:?}");
    then(&text);
    text.shrink_to(MAX_KEPT_TEXT);
    let _ = TEXT.try_with(|kept| kept.set(text));
}

/// Returns the message of `error` and of its sources, except those that it ends with itself.
#[must_use]
pub fn with_sources(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let message = error.to_string();
        if !text.ends_with(&message) {
            let _ = write!(text, ": {message}");
        }
        source = error.source();
    }
    text
}

/// Returns the array that `value` formats as `text`, if all items have the same type.
fn array(text: &str, value: &dyn Debug) -> Option<Value> {
    let AnyValue::ListAny(items) = structure(text, value)? else {
        return None;
    };
    macro_rules! all {
        ($($variant:ident)|+) => {
            $(if let Some(items) = items.iter().map(|item| match item {
                AnyValue::$variant(item) => Some(item.clone()),
                _ => None,
            }).collect::<Option<Vec<_>>>() {
                return Some(Value::Array(items.into()));
            })+
        };
    }
    all!(String | Int | Double | Boolean);
    None
}

/// Encodes fields as attributes.
pub(super) struct FieldWriter<'a> {
    into: &'a mut Attributes,
    sets: FieldSets,
}

impl<'a> FieldWriter<'a> {
    /// Returns a visitor that skips the special fields of `sets`.
    pub(super) fn new(into: &'a mut Attributes, sets: FieldSets) -> Self {
        Self { into, sets }
    }

    /// Sets an attribute. An error is text, whatever its type.
    fn set(&mut self, field: &Field, value: impl Into<Value>) {
        let value = value.into();
        if self.sets.is_error(field) {
            return self.into.text(EXCEPTION_MESSAGE, &value.as_str());
        }
        self.into.value(field.name(), &value);
    }

    fn integer(&mut self, field: &Field, value: impl TryInto<i64> + ToString + Copy) {
        match value.try_into() {
            Ok(small) if !self.sets.is_error(field) => self.into.number(field.name(), small),
            _ => self.into.text(self.sets.key(field), &value.to_string()),
        }
    }
}

impl Visit for FieldWriter<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if !self.sets.is_special(field) {
            with_text(value, |text| match array(text, value) {
                Some(array) => self.set(field, array),
                None => self.into.text(self.sets.key(field), text),
            });
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if self.sets.is_plain(field) {
            self.into.text(field.name(), value);
        } else if self.sets.is_error(field) {
            self.into.text(EXCEPTION_MESSAGE, value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.into.text(self.sets.key(field), &with_sources(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.integer(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.integer(field, value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.integer(field, value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.integer(field, value);
    }
}

/// The status set by fields.
#[derive(Debug, Default)]
pub(super) struct StatusFields {
    code: Option<String>,
    message: Option<String>,
}

impl StatusFields {
    fn set(&mut self, name: &str, text: &str) {
        match name {
            STATUS_CODE => self.code = Some(text.to_ascii_lowercase()),
            STATUS_MESSAGE | STATUS_DESCRIPTION => self.message = Some(text.to_owned()),
            _ => {}
        }
    }

    /// Returns the status, or `None` if no field sets one. A message without a code means an error.
    pub(super) fn status(self) -> Option<Status> {
        match (self.code.as_deref(), self.message) {
            (Some("ok"), _) => Some(Status::Ok),
            (Some("error"), message) => Some(Status::error(message.unwrap_or_default())),
            (None, Some(message)) => Some(Status::error(message)),
            _ => None,
        }
    }
}

/// The properties that fields set when a span starts.
#[derive(Debug)]
pub(super) struct SpecialFields {
    sets: FieldSets,
    pub(super) name: Option<String>,
    pub(super) kind: SpanKind,
    pub(super) status: StatusFields,
}

impl SpecialFields {
    /// Returns a visitor for the special fields of `sets`.
    pub(super) fn new(sets: FieldSets) -> Self {
        Self {
            sets,
            name: None,
            kind: SpanKind::Internal,
            status: StatusFields::default(),
        }
    }
}

impl SpecialFields {
    // Not inlined: most fields are not special.
    #[inline(never)]
    fn set(&mut self, name: &str, value: &str) {
        match name {
            NAME => self.name = Some(value.to_owned()),
            KIND => {
                self.kind = match value {
                    kind if kind.eq_ignore_ascii_case("server") => SpanKind::Server,
                    kind if kind.eq_ignore_ascii_case("client") => SpanKind::Client,
                    kind if kind.eq_ignore_ascii_case("producer") => SpanKind::Producer,
                    kind if kind.eq_ignore_ascii_case("consumer") => SpanKind::Consumer,
                    _ => SpanKind::Internal,
                }
            }
            name => self.status.set(name, value),
        }
    }
}

impl Visit for SpecialFields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if self.sets.is_special(field) {
            with_text(value, |text| self.set(field.name(), text));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if self.sets.is_special(field) {
            self.set(field.name(), value);
        }
    }
}

/// Fields that are set after the start of their span.
#[derive(Debug, Default)]
pub(super) struct RecordedFields {
    pub(super) attributes: Vec<KeyValue>,
    name: Option<String>,
    status: StatusFields,
    error: Option<String>,
}

impl RecordedFields {
    fn set(&mut self, field: &Field, value: impl Into<Value>) {
        let value = value.into();
        let attribute = if is_error_field(field.name()) {
            let text = value.as_str().into_owned();
            self.error = Some(text.clone());
            KeyValue::new(EXCEPTION_MESSAGE, text)
        } else {
            KeyValue::new(Key::from_static_str(field.name()), value)
        };
        self.attributes.push(attribute);
    }

    fn integer(&mut self, field: &Field, value: impl TryInto<i64> + ToString + Copy) {
        match value.try_into() {
            Ok(small) => self.set(field, small),
            Err(_) => self.set(field, value.to_string()),
        }
    }

    /// Sets the fields on `span`.
    pub(super) fn apply(self, span: &SpanRef<'_>) {
        if let Some(name) = self.name {
            span.update_name(name);
        }
        span.set_attributes(self.attributes);
        if let Some(status) = self.status.status().or(self.error.map(Status::error)) {
            span.set_status(status);
        }
    }
}

impl Visit for RecordedFields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        with_text(value, |text| match array(text, value) {
            Some(array) => self.set(field, array),
            None => self.record_str(field, text),
        });
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            NAME => self.name = Some(value.to_owned()),
            name if is_special(name) => self.status.set(name, value),
            _ => self.set(field, value.to_owned()),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.set(field, with_sources(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        match is_error_field(field.name()) {
            // Whether the span failed, as in OpenTracing.
            true => self.error = value.then(String::new),
            false => self.set(field, value),
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.integer(field, value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.integer(field, value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.integer(field, value);
    }
}

/// The error of an event, which `#[instrument(err)]` sets.
#[derive(Debug, Default)]
pub(super) struct EventError {
    /// The message; empty if the event has no error.
    pub(super) message: String,
    pub(super) error_type: Option<String>,
}

impl EventError {
    pub(super) fn of(event: &Event<'_>) -> Self {
        let mut error = Self::default();
        event.record(&mut error);
        error
    }
}

impl Visit for EventError {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "error.type" | "exception.type" => self.error_type = Some(format!("{value:?}")),
            name if is_error_field(name) || name == EXCEPTION_MESSAGE => self.message = format!("{value:?}"),
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.record_debug(field, &format_args!("{}", with_sources(value)));
    }
}

fn scalar(value: any_value::Value) -> Option<AnyValue> {
    Some(match value {
        any_value::Value::StringValue(text) => text.into(),
        any_value::Value::BoolValue(truth) => truth.into(),
        any_value::Value::IntValue(number) => number.into(),
        any_value::Value::DoubleValue(number) => number.into(),
        // Fields have no other types.
        _ => return None,
    })
}

/// Decodes the fields of a span; the last value of a field replaces earlier ones.
pub(super) fn decode(encoded: &[u8], metadata: &Metadata<'_>) -> Vec<(&'static str, AnyValue)> {
    let span = v1::Span::decode(encoded).unwrap_or_default();
    let mut fields: Vec<(&'static str, AnyValue)> = Vec::with_capacity(span.attributes.len());
    for attribute in span.attributes {
        let field = metadata.fields().field(&attribute.key);
        let name = match field {
            Some(field) => field.name(),
            None if attribute.key == EXCEPTION_MESSAGE => EXCEPTION_MESSAGE,
            None => continue,
        };
        let Some(value) = attribute.value.and_then(|value| value.value) else {
            continue;
        };
        let value = match value {
            any_value::Value::ArrayValue(array) => {
                let items = array.values.into_iter().filter_map(|item| scalar(item.value?));
                AnyValue::ListAny(Box::new(items.collect()))
            }
            value => match scalar(value) {
                Some(value) => value,
                None => continue,
            },
        };
        match fields.iter_mut().find(|(earlier, _)| *earlier == name) {
            Some((_, earlier)) => *earlier = value,
            None => fields.push((name, value)),
        }
    }
    fields
}
