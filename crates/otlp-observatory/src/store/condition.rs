//! Conditions on the values of fields and attributes, with the operators of the query language.

use std::{borrow::Borrow, cmp::Ordering};

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};

#[cfg(feature = "keep")]
use super::grams;
use super::{aliases::Key, filter::Text};

/// Operator of a comparison.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    Contains,
    NotContains,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

impl Operator {
    /// Symbols, the longer ones first.
    const SYMBOLS: [(&'static str, Self); 8] = [
        ("!=", Self::NotEqual),
        ("!~", Self::NotContains),
        ("<=", Self::AtMost),
        (">=", Self::AtLeast),
        ("=", Self::Equal),
        ("~", Self::Contains),
        ("<", Self::Less),
        (">", Self::Greater),
    ];

    /// Returns the operator at the start of `text`.
    pub(crate) fn at_start_of(text: &str) -> Option<Self> {
        let mut symbols = Self::SYMBOLS.into_iter();
        let (_, operator) = symbols.find(|(symbol, _)| text.starts_with(symbol))?;
        Some(operator)
    }

    pub(crate) fn symbol(self) -> &'static str {
        let mut symbols = Self::SYMBOLS.into_iter();
        symbols
            .find(|(_, operator)| *operator == self)
            .map_or("", |(symbol, _)| symbol)
    }

    /// Whether the operator accepts the order of the actual value relative to the given one.
    pub(crate) fn accepts(self, order: Ordering) -> bool {
        match self {
            Self::Equal | Self::Contains => order.is_eq(),
            Self::NotEqual | Self::NotContains => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::AtLeast => order.is_ge(),
        }
    }
}

/// Number that compares integers exactly.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Number {
    Integer(i64),
    Float(f64),
}

impl Number {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let float = || text.parse().ok().filter(|float: &f64| float.is_finite());
        let integer = text.parse().ok().map(Self::Integer);
        integer.or_else(|| float().map(Self::Float))
    }

    /// Whether `text` is no number, or the only form of a number. Other forms equal values with another text.
    #[cfg(feature = "keep")]
    fn is_canonical(text: &str) -> bool {
        // Zero equals `-0`.
        text != "-0" && text.parse().map_or(true, |float: f64| float.to_string() == text)
    }

    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::IntValue(value) => Some(Self::Integer(*value)),
            Value::DoubleValue(value) => Some(Self::Float(*value)),
            Value::StringValue(text) => Self::parse(text),
            _ => None,
        }
    }

    fn compare(self, other: Self) -> Option<Ordering> {
        let float = |number| match number {
            Self::Integer(value) => value as f64,
            Self::Float(value) => value,
        };
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => Some(a.cmp(&b)),
            (a, b) => float(a).partial_cmp(&float(b)),
        }
    }
}

/// Condition on the values of a field or an attribute.
#[derive(Clone, Debug)]
pub(crate) enum Condition {
    /// Requires a value.
    Exists,
    Equal(String),
    /// Requires a value, none of which is equal.
    NotEqual(String),
    Contains(Text),
    /// Requires a value, none of which contains the text.
    NotContains(Text),
    /// Requires a number in the given order relative to another.
    Ordered(Operator, Number),
}

impl Condition {
    /// # Errors
    /// Returns the problem if `operator` needs a number and `value` is none.
    pub(crate) fn new(operator: Operator, value: &str) -> Result<Self, &'static str> {
        Ok(match operator {
            Operator::Equal => Self::Equal(value.to_owned()),
            Operator::NotEqual => Self::NotEqual(value.to_owned()),
            Operator::Contains => Self::Contains(Text::new(value)),
            Operator::NotContains => Self::NotContains(Text::new(value)),
            ordered => Self::Ordered(ordered, Number::parse(value).ok_or("needs a number")?),
        })
    }

    /// Whether the values of an attribute satisfy the condition.
    pub(crate) fn accepts(&self, values: impl IntoIterator<Item = impl Borrow<AnyValue>>) -> bool {
        self.combine(values, |value| self.accepts_value(value.borrow()))
    }

    /// Whether texts satisfy the condition.
    pub(crate) fn accepts_texts<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> bool {
        self.combine(texts, |text| self.accepts_text(text))
    }

    /// Requires that all values are accepted if the condition excludes a value, or else one.
    fn combine<T>(&self, values: impl IntoIterator<Item = T>, accepts: impl Fn(T) -> bool) -> bool {
        let mut values = values.into_iter().peekable();
        if self.is_negative() {
            values.peek().is_some() && values.all(accepts)
        } else {
            values.any(accepts)
        }
    }

    /// Whether the condition excludes a value.
    pub(crate) fn is_negative(&self) -> bool {
        matches!(self, Self::NotEqual(_) | Self::NotContains(_))
    }

    /// Visits the grams that a text or value contains which satisfies the condition. With `is_part`, it is part of a text.
    #[cfg(feature = "keep")]
    pub(crate) fn grams(&self, is_part: bool, visit: impl FnMut(u32)) {
        match self {
            Self::Equal(wanted) if Number::is_canonical(wanted) => {
                if is_part {
                    grams::of_part(wanted.as_bytes(), visit);
                } else {
                    grams::of_whole(wanted.as_bytes(), visit);
                }
            }
            Self::Contains(text) => text.grams(visit),
            _ => {}
        }
    }

    fn accepts_value(&self, value: &AnyValue) -> bool {
        match self {
            Self::Exists => true,
            Self::Equal(wanted) => has_text_form(value, wanted),
            Self::NotEqual(unwanted) => !has_text_form(value, unwanted),
            Self::Contains(text) => contains(value, text),
            Self::NotContains(text) => !contains(value, text),
            Self::Ordered(operator, number) => is_ordered(value, *operator, *number),
        }
    }

    pub(crate) fn accepts_text(&self, text: &str) -> bool {
        match self {
            Self::Exists => true,
            Self::Equal(wanted) => wanted == text,
            Self::NotEqual(unwanted) => unwanted != text,
            Self::Contains(wanted) => wanted.is_in(text.as_bytes()),
            Self::NotContains(unwanted) => !unwanted.is_in(text.as_bytes()),
            Self::Ordered(operator, number) => Number::parse(text)
                .and_then(|text| text.compare(*number))
                .is_some_and(|order| operator.accepts(order)),
        }
    }
}

/// Whether `wanted` is the text form of `value` or, for an array, of one of its elements.
fn has_text_form(value: &AnyValue, wanted: &str) -> bool {
    match &value.value {
        Some(Value::StringValue(text)) => text == wanted,
        Some(Value::BoolValue(value)) => wanted.parse() == Ok(*value),
        Some(Value::IntValue(value)) => wanted.parse() == Ok(*value),
        Some(Value::DoubleValue(value)) => wanted.parse() == Ok(*value),
        Some(Value::ArrayValue(array)) => array.values.iter().any(|value| has_text_form(value, wanted)),
        _ => false,
    }
}

/// Whether the text form of `value` contains `text`, at any depth.
fn contains(value: &AnyValue, text: &Text) -> bool {
    let is_in = |form: String| text.is_in(form.as_bytes());
    match &value.value {
        Some(Value::BoolValue(value)) => is_in(value.to_string()),
        Some(Value::IntValue(value)) => is_in(value.to_string()),
        Some(Value::DoubleValue(value)) => is_in(value.to_string()),
        _ => text.is_in_value(value),
    }
}

fn is_ordered(value: &AnyValue, operator: Operator, number: Number) -> bool {
    match &value.value {
        Some(Value::ArrayValue(array)) => {
            let mut values = array.values.iter();
            values.any(|value| is_ordered(value, operator, number))
        }
        Some(value) => {
            let order = Number::of(value).and_then(|value| value.compare(number));
            order.is_some_and(|order| operator.accepts(order))
        }
        None => false,
    }
}

/// Filter by an attribute and, optionally, by its value.
#[derive(Clone, Debug)]
pub(crate) struct Attribute {
    key: Key,
    condition: Condition,
}

impl Attribute {
    pub(crate) fn new(key: &str, condition: Condition) -> Self {
        Self {
            key: Key::new(key),
            condition,
        }
    }

    /// Parses `key`, or a comparison such as `key=value` or `key>5`. A key that contains an operator is quoted.
    ///
    /// # Errors
    /// Returns the problem of a comparison by order with a value that is no number.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let quoted = text.strip_prefix('"').and_then(|rest| rest.split_once('"'));
        let (key, rest) = quoted.unwrap_or_else(|| {
            let mut starts = text.char_indices().map(|(start, _)| start);
            let start = starts.find(|start| Operator::at_start_of(&text[*start..]).is_some());
            text.split_at(start.unwrap_or(text.len()))
        });
        let condition = match Operator::at_start_of(rest) {
            Some(operator) => Condition::new(operator, &rest[operator.symbol().len()..])
                .map_err(|_| "must have a number after `<`, `<=`, `>` or `>=`")?,
            None if rest.is_empty() => Condition::Exists,
            None => return Err("must have an operator after the quoted key"),
        };
        if key.is_empty() {
            return Err("must have a key before the operator");
        }
        Ok(Self::new(key, condition))
    }

    /// Visits the grams that entries with the attribute contain.
    #[cfg(feature = "keep")]
    pub(crate) fn grams(&self, mut visit: impl FnMut(u32)) {
        if let Some(name) = self.key.only_name() {
            grams::of_whole(name, &mut visit);
        }
        self.condition.grams(self.key.has_parts(), visit);
    }

    /// Whether an encoded entry contains the key and may therefore have the attribute.
    pub(crate) fn may_be_in(&self, encoded: &[u8]) -> bool {
        self.key.may_be_in(encoded)
    }

    /// Whether `attributes` contains the attribute, with a value that satisfies the condition.
    pub(crate) fn is_in(&self, attributes: &[KeyValue]) -> bool {
        self.condition.accepts(self.key.values(attributes))
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::ArrayValue;

    use super::*;
    use crate::store::fixture::attribute;

    #[test]
    fn attributes_are_compared_by_number_and_text() {
        let array = ArrayValue {
            values: vec![attribute("", Value::IntValue(7)).value.expect("a value")],
        };
        let attributes = [
            attribute("http.response.status_code", Value::IntValue(500)),
            attribute("ok", Value::BoolValue(true)),
            attribute("ratio", Value::DoubleValue(0.5)),
            attribute("query", Value::StringValue("a=b".to_owned())),
            attribute("many", Value::ArrayValue(array)),
            attribute("big", Value::IntValue(i64::MAX)),
            attribute("size", Value::StringValue("12".to_owned())),
            attribute("a=b", Value::StringValue("c".to_owned())),
        ];
        for (filter, matches) in [
            ("http.response.status_code=500", true),
            ("http.response.status_code=50", false),
            ("http.response.status_code", true),
            ("http.status_code>=500", true),
            ("http.response.status_code>499", true),
            ("http.response.status_code<500", false),
            ("http.response.status_code<=500", true),
            ("http.response.status_code!=200", true),
            ("http.response.status_code!=500", false),
            ("http.response.status_code~50", true),
            ("http.response.status_code!~50", false),
            ("absent!=1", false),
            ("absent!~1", false),
            ("http.response", false),
            ("ok=true", true),
            ("ok=false", false),
            ("ok>0", false),
            ("ratio=0.50", true),
            ("ratio<0.6", true),
            ("query=a=b", true),
            ("query~A=", true),
            ("many=7", true),
            ("many=8", false),
            ("many>6", true),
            ("big>9223372036854775806", true),
            ("big<9223372036854775807", false),
            ("size>9", true),
            ("\"a=b\"=c", true),
            ("\"a=b\"", true),
        ] {
            let wanted = Attribute::parse(filter).expect(filter);
            assert_eq!(wanted.is_in(&attributes), matches, "{filter}");
        }
        for wrong in ["status>high", "=1", "\"a\"b", "!=1", "x<=", "x>1ms"] {
            assert!(Attribute::parse(wrong).is_err(), "{wrong}");
        }
    }
}
