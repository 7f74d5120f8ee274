//! Deviations of received telemetry from the registry.

use std::fmt::{self, Display};

use crate::value::ValueType;

/// A difference between received telemetry and the registry.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Finding {
    /// Received item, such as `span article.create`.
    pub item: String,
    /// Difference from the declaration.
    pub problem: Problem,
}

/// Kind of difference.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Problem {
    /// The span, metric or event is not declared.
    Undeclared,
    /// The metric or event is defined upstream, but the registry does not import it.
    NotImported,
    /// The metric or event is deprecated upstream.
    Deprecated,
    /// The attribute is not declared.
    UndeclaredAttribute(String),
    /// The attribute is deprecated upstream.
    DeprecatedAttribute(String),
    /// The attribute is declared, but not for this item.
    NotAllowed(String),
    /// The attribute is required but missing.
    Missing(String),
    /// The attribute appears more than once.
    Repeated(String),
    /// The attribute has the wrong type.
    Type {
        /// Name of the attribute.
        attribute: String,
        /// Declared type.
        declared: ValueType,
        /// Type of the received value.
        received: ValueType,
    },
    /// The value of the attribute is not one of its members.
    Value {
        /// Name of the attribute.
        attribute: String,
        /// Received value.
        received: String,
    },
    /// The span has the wrong kind.
    Kind {
        /// Declared kind.
        declared: String,
        /// Received kind.
        received: String,
    },
    /// The metric has the wrong instrument.
    Instrument {
        /// Declared instrument.
        declared: String,
        /// Received instrument.
        received: String,
    },
    /// The metric has the wrong unit.
    Unit {
        /// Declared unit.
        declared: String,
        /// Received unit.
        received: String,
    },
}

impl Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.item)?;
        match &self.problem {
            Problem::Undeclared => f.write_str("is not declared"),
            Problem::NotImported => f.write_str("is defined upstream but not imported"),
            Problem::Deprecated => f.write_str("is deprecated"),
            Problem::UndeclaredAttribute(name) => write!(f, "the attribute {name} is not declared"),
            Problem::DeprecatedAttribute(name) => write!(f, "the attribute {name} is deprecated"),
            Problem::NotAllowed(name) => write!(f, "the attribute {name} is not declared for this item"),
            Problem::Missing(name) => write!(f, "the required attribute {name} is missing"),
            Problem::Repeated(name) => write!(f, "the attribute {name} appears more than once"),
            Problem::Type {
                attribute,
                declared,
                received,
            } => write!(
                f,
                "the attribute {attribute} is declared as {declared} but is {received}"
            ),
            Problem::Value { attribute, received } => {
                write!(f, "the attribute {attribute} has no member {received:?}")
            }
            Problem::Kind { declared, received } => {
                write!(f, "the kind is declared as {declared} but is {received}")
            }
            Problem::Instrument { declared, received } => {
                write!(f, "the instrument is declared as {declared} but is {received}")
            }
            Problem::Unit { declared, received } => {
                write!(f, "the unit is declared as {declared:?} but is {received:?}")
            }
        }
    }
}
