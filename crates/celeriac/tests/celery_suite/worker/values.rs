//! Python's operators on JSON values.

use celeriac::Exception;
use serde_json::{Number, Value};

/// Returns whether Python treats the value as true.
pub(crate) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}

/// Python's `x + y`.
pub(crate) fn plus(x: &Value, y: &Value) -> Result<Value, Exception> {
    match (x, y) {
        (Value::String(x), Value::String(y)) => Ok(format!("{x}{y}").into()),
        (Value::Array(x), Value::Array(y)) => Ok([x.as_slice(), y.as_slice()].concat().into()),
        _ => arithmetic("+", x, y, i64::checked_add, |x, y| x + y),
    }
}

/// Python's `x * y` of numbers.
pub(crate) fn times(x: &Value, y: &Value) -> Result<Value, Exception> {
    arithmetic("*", x, y, i64::checked_mul, |x, y| x * y)
}

/// Python's `sum`.
pub(crate) fn sum(numbers: &Value) -> Result<Value, Exception> {
    let Value::Array(numbers) = numbers else {
        let message = format!("'{}' object is not iterable", class(numbers));
        return Err(Exception::new("TypeError", message));
    };
    numbers
        .iter()
        .try_fold(Value::from(0), |sum, number| plus(&sum, number))
}

fn arithmetic(
    operator: &str,
    x: &Value,
    y: &Value,
    of_integers: fn(i64, i64) -> Option<i64>,
    of_floats: fn(f64, f64) -> f64,
) -> Result<Value, Exception> {
    if let (Some(x), Some(y)) = (x.as_i64(), y.as_i64())
        && let Some(result) = of_integers(x, y)
    {
        return Ok(result.into());
    }
    let floats = x.as_f64().zip(y.as_f64()).map(|(x, y)| of_floats(x, y));
    floats
        .and_then(Number::from_f64)
        .map(Value::Number)
        .ok_or_else(|| {
            let (x, y) = (class(x), class(y));
            let message = format!("unsupported operand type(s) for {operator}: '{x}' and '{y}'");
            Exception::new("TypeError", message)
        })
}

/// Returns the value's class in Python.
fn class(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}
