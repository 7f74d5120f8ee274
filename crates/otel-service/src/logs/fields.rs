//! The fields of one event, collected once for standard output and OTLP.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::Debug;

use opentelemetry::logs::AnyValue;
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

    pub(super) fn mask(&mut self, masker: Masker) {
        if let Some(message) = &mut self.message
            && let Cow::Owned(masked) = masker(message)
        {
            *message = masked;
        }
        for (_, value) in &mut self.others {
            if let AnyValue::String(text) = value
                && let Cow::Owned(masked) = masker(text.as_str())
            {
                *text = masked.into();
            }
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
        // `tracing-log` stores the metadata of a `log` record in these fields, which duplicate the normalised
        // metadata.
        if !field.name().starts_with("log.") {
            self.others.push((field.name(), value.into()));
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.text(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.text(field, value.to_string());
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
