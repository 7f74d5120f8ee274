//! OTLP attributes and values as plain JSON. Integers that JavaScript cannot represent exactly and non-finite
//! numbers become strings.

use std::borrow::Borrow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use serde::{Serialize, Serializer, ser::SerializeMap as _};

use crate::store::Number;

/// Attributes as a JSON object in the given order; duplicate keys are kept.
pub(super) struct Attributes<T>(pub(super) T);

/// Value as JSON; `None` is null.
pub(super) struct Value<T>(pub(super) Option<T>);

impl<T: Borrow<AnyValue>> Value<T> {
    /// Returns the value as a label: a string unchanged, any other value as JSON.
    pub(super) fn to_text(&self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(text)) => text,
            Ok(other) => other.to_string(),
            Err(_) => String::new(),
        }
    }
}

impl<T: AsRef<[KeyValue]>> Serialize for Attributes<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for attribute in self.0.as_ref() {
            map.serialize_entry(&attribute.key, &Value(attribute.value.as_ref()))?;
        }
        map.end()
    }
}

impl<T: Borrow<AnyValue>> Serialize for Value<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use any_value::Value as Any;
        match self.0.as_ref().and_then(|value| value.borrow().value.as_ref()) {
            Some(Any::StringValue(text)) => serializer.serialize_str(text),
            Some(Any::BoolValue(value)) => serializer.serialize_bool(*value),
            Some(Any::IntValue(value)) => Number::Integer(*value).serialize(serializer),
            Some(Any::DoubleValue(value)) => Number::Double(*value).serialize(serializer),
            Some(Any::ArrayValue(array)) => {
                serializer.collect_seq(array.values.iter().map(|value| Value(Some(value))))
            }
            Some(Any::KvlistValue(list)) => Attributes(&list.values).serialize(serializer),
            Some(Any::BytesValue(bytes)) => serializer.serialize_str(&STANDARD.encode(bytes)),
            // An index into a string table, which exists only in profiles.
            Some(Any::StringValueStrindex(_)) | None => serializer.serialize_unit(),
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::{ArrayValue, KeyValueList};

    use super::*;

    fn serialized(value: any_value::Value) -> String {
        let value = AnyValue { value: Some(value) };
        serde_json::to_string(&Value(Some(&value))).expect("JSON")
    }

    #[test]
    fn values_are_plain_json_without_loss_of_digits() {
        use any_value::Value as Any;
        for (value, expected) in [
            (
                Any::StringValue("</script>\u{0}".to_owned()),
                r#""</script>\u0000""#,
            ),
            (Any::BoolValue(true), "true"),
            (Any::IntValue(-5), "-5"),
            (Any::IntValue((1 << 53) - 1), "9007199254740991"),
            (Any::IntValue(1 << 53), r#""9007199254740992""#),
            (Any::IntValue(i64::MIN), r#""-9223372036854775808""#),
            (Any::DoubleValue(0.5), "0.5"),
            (Any::DoubleValue(f64::NAN), r#""NaN""#),
            (Any::DoubleValue(f64::NEG_INFINITY), r#""-inf""#),
            (Any::BytesValue(vec![1, 2]), r#""AQI=""#),
            (
                Any::ArrayValue(ArrayValue {
                    values: vec![AnyValue { value: None }],
                }),
                "[null]",
            ),
            (Any::KvlistValue(KeyValueList { values: Vec::new() }), "{}"),
        ] {
            assert_eq!(serialized(value), expected);
        }
    }
}
