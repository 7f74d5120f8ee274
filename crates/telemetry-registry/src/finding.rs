//! What was received and is not as declared.

use std::fmt::{self, Display};

use crate::value::ValueType;

/// One difference between what was received and what is declared.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Finding {
    /// What was received, as `span article.create`.
    pub place: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// The ways to be wrong.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Problem {
    /// Nobody declares the span, metric or event.
    Undeclared,
    /// Upstream has the metric or event, but the registry does not import it.
    NotImported,
    /// Upstream advises against the metric or event.
    Deprecated,
    /// Nobody declares this attribute.
    UndeclaredAttribute(String),
    /// Upstream advises against this attribute.
    DeprecatedAttribute(String),
    /// The attribute is declared, but not for what has it here.
    NotOfThis(String),
    /// The attribute is required and absent.
    Missing(String),
    /// The attribute is there more than once.
    Repeated(String),
    /// The attribute has another type.
    Type {
        /// The attribute.
        attribute: String,
        /// Its type.
        declared: ValueType,
        /// The value's type.
        received: ValueType,
    },
    /// The attribute has a value that is none of its members.
    Value {
        /// The attribute.
        attribute: String,
        /// The value.
        received: String,
    },
    /// The span's kind is another.
    Kind {
        /// As declared.
        declared: String,
        /// As received.
        received: String,
    },
    /// The metric's instrument is another.
    Instrument {
        /// As declared.
        declared: String,
        /// As received.
        received: String,
    },
    /// The metric's unit is another.
    Unit {
        /// As declared.
        declared: String,
        /// As received.
        received: String,
    },
}

impl Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        match &self.problem {
            Problem::Undeclared => f.write_str("is not declared"),
            Problem::NotImported => f.write_str("is upstream's and not imported"),
            Problem::Deprecated => f.write_str("is deprecated"),
            Problem::UndeclaredAttribute(name) => write!(f, "the attribute {name} is not declared"),
            Problem::DeprecatedAttribute(name) => write!(f, "the attribute {name} is deprecated"),
            Problem::NotOfThis(name) => write!(f, "the attribute {name} is not declared for it"),
            Problem::Missing(name) => write!(f, "the attribute {name} is required and not there"),
            Problem::Repeated(name) => write!(f, "the attribute {name} is there more than once"),
            Problem::Type {
                attribute,
                declared,
                received,
            } => write!(
                f,
                "the attribute {attribute} is declared as {declared} and is {received}"
            ),
            Problem::Value { attribute, received } => {
                write!(f, "the attribute {attribute} has no member {received:?}")
            }
            Problem::Kind { declared, received } => write!(f, "its kind is {received} and not {declared}"),
            Problem::Instrument { declared, received } => {
                write!(f, "its instrument is {received} and not {declared}")
            }
            Problem::Unit { declared, received } => {
                write!(f, "its unit is {received:?} and not {declared:?}")
            }
        }
    }
}
