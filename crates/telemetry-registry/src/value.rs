//! The types of attributes and of values received over OTLP, in the spelling of the definition language.

use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};

/// Types of attributes. An enumeration has the type of its values; types that are not listed are `any`.
const TYPES: [&str; 9] = [
    ANY,
    STRING,
    "string[]",
    "int",
    "int[]",
    "double",
    "double[]",
    "boolean",
    "boolean[]",
];

pub(crate) const ANY: &str = "any";
pub(crate) const STRING: &str = "string";

/// Returns the type that `text` names; templates are not types.
pub(crate) fn parse(text: &str) -> Option<&'static str> {
    let text = text.replace("enum", STRING);
    TYPES.into_iter().find(|known| *known == text)
}

/// Returns the type of `value`.
pub(crate) fn type_of(value: Option<&AnyValue>) -> &'static str {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(_)) => STRING,
        Some(Value::IntValue(_)) => "int",
        Some(Value::DoubleValue(_)) => "double",
        Some(Value::BoolValue(_)) => "boolean",
        Some(Value::ArrayValue(list)) => {
            let mut types = list.values.iter().map(|value| type_of(Some(value)));
            let first = types.next().unwrap_or(ANY);
            let list = TYPES
                .into_iter()
                .find(|known| known.strip_suffix("[]") == Some(first));
            list.filter(|_| types.all(|other| other == first)).unwrap_or(ANY)
        }
        _ => ANY,
    }
}

/// Whether an attribute of the type `declared` may have the value.
pub(crate) fn admits(declared: &str, value: Option<&AnyValue>) -> bool {
    let is_empty_list = matches!(
        value.and_then(|value| value.value.as_ref()),
        Some(Value::ArrayValue(list)) if list.values.is_empty()
    );
    declared == ANY || declared == type_of(value) || (declared.ends_with("[]") && is_empty_list)
}

/// Returns the text of a string value.
pub(crate) fn text(value: Option<&AnyValue>) -> Option<&str> {
    match value?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}
