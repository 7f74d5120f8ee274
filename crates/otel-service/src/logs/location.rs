//! The source location of an event: `code.file.path`, `code.line.number`, `code.function.name`. File and line
//! come from `tracing`; the function is a field that [`crate::info!`] and the other log macros add. Fields
//! that the event itself sets under these names take precedence.

use opentelemetry::logs::AnyValue;
use otlp_recorder::within_crates;
use tracing::Metadata;

use super::fields::Fields;

pub(super) const FILE: &str = "code.file.path";
pub(super) const LINE: &str = "code.line.number";
pub(super) const FUNCTION: &str = "code.function.name";

/// Source location of an event; unknown parts are `None`.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct CodeLocation {
    pub(super) file: Option<String>,
    pub(super) line: Option<i64>,
    pub(super) function: Option<String>,
}

impl CodeLocation {
    pub(super) const UNKNOWN: Self = Self {
        file: None,
        line: None,
        function: None,
    };

    /// Returns the location of an event and removes the fields that specify it.
    pub(super) fn of(metadata: &Metadata<'_>, fields: &mut Fields) -> Self {
        let text = |value| match value {
            AnyValue::String(text) => Some(String::from(text)),
            _ => None,
        };
        let file = fields.take(FILE).and_then(text);
        let file = file.or_else(|| metadata.file().map(str::to_owned));
        let line = match fields.take(LINE) {
            Some(AnyValue::Int(line)) => Some(line),
            _ => metadata.line().map(i64::from),
        };
        Self {
            file: file.map(|file| within_crates(&file).to_owned()),
            line,
            function: fields.take(FUNCTION).and_then(text),
        }
    }
}
