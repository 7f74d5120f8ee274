//! The types of attributes and of values received over OTLP.

use std::fmt::{self, Display};

use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};

/// Type of an attribute. An enumeration has the type of its values.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum ValueType {
    /// Any type.
    Any,
    /// A single value.
    One(Scalar),
    /// A list of values of one type.
    List(Scalar),
}

/// Type of a single value.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Scalar {
    /// A string.
    String,
    /// A 64-bit signed integer.
    Int,
    /// A 64-bit floating-point number.
    Double,
    /// A boolean.
    Boolean,
}

impl Scalar {
    fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Int => "int",
            Self::Double => "double",
            Self::Boolean => "boolean",
        }
    }

    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::StringValue(_) => Some(Self::String),
            Value::IntValue(_) => Some(Self::Int),
            Value::DoubleValue(_) => Some(Self::Double),
            Value::BoolValue(_) => Some(Self::Boolean),
            _ => None,
        }
    }
}

impl Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::One(scalar) => f.write_str(scalar.as_str()),
            Self::List(scalar) => write!(f, "{}[]", scalar.as_str()),
        }
    }
}

impl ValueType {
    /// Parses a type in the spelling of the definition language, except templates.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (name, list) = match text.strip_suffix("[]") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let scalar = match name {
            "any" if !list => return Some(Self::Any),
            "string" | "enum" => Scalar::String,
            "int" => Scalar::Int,
            "double" => Scalar::Double,
            "boolean" => Scalar::Boolean,
            _ => return None,
        };
        Some(if list {
            Self::List(scalar)
        } else {
            Self::One(scalar)
        })
    }

    /// Returns the type of `value`, or [`ValueType::Any`] if the definition language has no such type.
    pub(crate) fn of(value: Option<&AnyValue>) -> Self {
        match value.and_then(|value| value.value.as_ref()) {
            Some(Value::ArrayValue(list)) => {
                let mut scalars = list
                    .values
                    .iter()
                    .map(|value| value.value.as_ref().and_then(Scalar::of));
                let first = scalars.next().flatten();
                match first.filter(|first| scalars.all(|scalar| scalar == Some(*first))) {
                    Some(scalar) => Self::List(scalar),
                    None => Self::Any,
                }
            }
            Some(value) => Scalar::of(value).map_or(Self::Any, Self::One),
            None => Self::Any,
        }
    }

    /// Whether an attribute of this type may have the value.
    pub(crate) fn admits(self, value: Option<&AnyValue>) -> bool {
        self == Self::Any
            || self == Self::of(value)
            || (matches!(self, Self::List(_)) && is_empty_list(value))
    }
}

fn is_empty_list(value: Option<&AnyValue>) -> bool {
    matches!(
        value.and_then(|value| value.value.as_ref()),
        Some(Value::ArrayValue(list)) if list.values.is_empty()
    )
}

/// Returns the text of a string value.
pub(crate) fn text(value: Option<&AnyValue>) -> Option<&str> {
    match value?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}
