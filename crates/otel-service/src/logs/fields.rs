//! The fields of one event, collected once for standard output and OTLP.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::Debug;

use opentelemetry::logs::AnyValue;
use otlp_recorder::{EXCEPTION_MESSAGE, field_value, is_error_field, with_sources};
use tracing::Event;
use tracing::field::{Field, Visit};

/// A function that masks text.
type Masker = fn(&str) -> Cow<'_, str>;

/// The message of an event and its other fields.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) message: Option<String>,
    pub(super) others: Vec<(&'static str, AnyValue)>,
}

impl Fields {
    pub(super) fn of(event: &Event<'_>) -> Self {
        let mut fields = Self::default();
        event.record(&mut fields);
        fields
    }

    /// Removes the fields in which `tracing-log` stores the metadata of a record of the `log` crate.
    pub(super) fn remove_metadata(&mut self) {
        let names = ["log.target", "log.module_path", "log.file", "log.line"];
        self.others.retain(|(name, _)| !names.contains(name));
    }

    pub(super) fn mask(&mut self, masker: Masker) {
        if let Some(message) = &mut self.message
            && let Cow::Owned(masked) = masker(message)
        {
            *message = masked;
        }
        for (_, value) in &mut self.others {
            mask_value(value, masker);
        }
    }

    /// Adds the fields whose names are not in use yet.
    pub(super) fn add_missing(&mut self, fields: Vec<(&'static str, AnyValue)>) {
        for (name, value) in fields {
            if self.others.iter().all(|(other, _)| *other != name) {
                self.others.push((name, value));
            }
        }
    }

    /// Removes a field and returns its value.
    pub(super) fn take(&mut self, name: &str) -> Option<AnyValue> {
        let index = self.others.iter().position(|(other, _)| *other == name)?;
        Some(self.others.remove(index).1)
    }

    fn text(&mut self, field: &Field, text: String) {
        if field.name() == "message" {
            self.message = Some(text);
        } else {
            self.add(field, text);
        }
    }

    /// Adds an integer, as text if it exceeds 64 bits.
    fn integer(&mut self, field: &Field, value: impl TryInto<i64> + ToString + Copy) {
        match value.try_into() {
            Ok(small) => self.add(field, small),
            Err(_) => self.add(field, value.to_string()),
        }
    }

    fn add(&mut self, field: &Field, value: impl Into<AnyValue>) {
        let value = value.into();
        self.others.push(if is_error_field(field.name()) {
            let text = match value {
                AnyValue::String(text) => text,
                AnyValue::Int(number) => number.to_string().into(),
                AnyValue::Boolean(truth) => truth.to_string().into(),
                AnyValue::Double(number) => number.to_string().into(),
                other => format!("{other:?}").into(),
            };
            (EXCEPTION_MESSAGE, AnyValue::String(text))
        } else {
            (field.name(), value)
        });
    }
}

fn mask_value(value: &mut AnyValue, masker: Masker) {
    match value {
        AnyValue::String(text) => {
            if let Cow::Owned(masked) = masker(text.as_str()) {
                *text = masked.into();
            }
        }
        AnyValue::ListAny(items) => items.iter_mut().for_each(|item| mask_value(item, masker)),
        AnyValue::Map(entries) => {
            for (key, mut value) in std::mem::take(&mut **entries) {
                mask_value(&mut value, masker);
                entries.insert(masker(key.as_str()).into_owned().into(), value);
            }
        }
        _ => {}
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" || is_error_field(field.name()) {
            self.text(field, format!("{value:?}"));
        } else {
            self.add(field, field_value(value));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.text(field, with_sources(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
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
