//! The JSON encoding of OTLP (<https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>): names in
//! lowerCamelCase, ids in hexadecimal, 64-bit integers as strings, enums as numbers, infinities and NaN by
//! name, and no fields at their defaults. The serde implementation of `opentelemetry-proto` writes nulls and
//! cannot write infinities, so the protobuf form is translated field by field.

mod schema;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use self::schema::{Field, Kind};
use crate::destination::Request;
use crate::encode::varint_at;
use crate::signal::Signal;

/// Returns `request` in the JSON encoding of OTLP.
#[must_use]
pub(crate) fn json_body(request: &Request) -> Vec<u8> {
    let fields = match request.signal() {
        Signal::Traces => &schema::TRACES,
        Signal::Metrics => &schema::METRICS,
        Signal::Logs => &schema::LOGS,
    };
    let message = object(request.protobuf(), fields);
    Value::Object(message).to_string().into_bytes()
}

/// Translates an encoded message. Unknown fields are left out.
fn object(mut message: &[u8], fields: &[Field]) -> Map<String, Value> {
    let mut object = Map::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let mut number = 0;
        let mut content = &[][..];
        match tag & 7 {
            0 => number = varint(&mut message),
            1 => number = fixed64(&mut message),
            5 => number = u32::from_le_bytes(chunk(&mut message)).into(),
            _ => {
                let length = varint(&mut message);
                content = message.split_off(..length as usize).expect(ENCODED);
            }
        }
        let Some((_, name, kind)) = fields.iter().find(|(field, ..)| u64::from(*field) == tag >> 3) else {
            continue;
        };
        let value = value(*kind, number, content);
        if matches!(kind, Kind::Messages(_) | Kind::Texts) {
            let list = object.entry(*name).or_insert_with(|| json!([]));
            list.as_array_mut().expect("lists are arrays").push(value);
        } else {
            object.insert((*name).to_owned(), value);
        }
    }
    object
}

/// Translates a value, or one element of a list: `number` or, if length-delimited, `content`.
fn value(kind: Kind, number: u64, mut content: &[u8]) -> Value {
    match kind {
        Kind::Bool => json!(number != 0),
        Kind::Int => json!(number.cast_signed()),
        Kind::ZigZag => json!((number >> 1).cast_signed() ^ -(number & 1).cast_signed()),
        Kind::Long => json!(number.cast_signed().to_string()),
        Kind::UnsignedLong => json!(number.to_string()),
        Kind::Double => double(f64::from_bits(number)),
        Kind::Text | Kind::Texts => json!(String::from_utf8_lossy(content)),
        Kind::Id => content
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
            .into(),
        Kind::Bytes => json!(STANDARD.encode(content)),
        Kind::Message(fields) | Kind::Messages(fields) => Value::Object(object(content, fields)),
        Kind::FixedList(element) | Kind::VarintList(element) => {
            let is_fixed = matches!(kind, Kind::FixedList(_));
            let read: fn(&mut &[u8]) -> u64 = if is_fixed { fixed64 } else { varint };
            let mut values = Vec::new();
            while !content.is_empty() {
                values.push(value(*element, read(&mut content), &[]));
            }
            Value::Array(values)
        }
    }
}

fn double(number: f64) -> Value {
    if number.is_finite() {
        return json!(number);
    }
    if number.is_nan() {
        return json!("NaN");
    }
    json!(if number > 0.0 { "Infinity" } else { "-Infinity" })
}

const ENCODED: &str = "the request was encoded by this crate";

fn varint(message: &mut &[u8]) -> u64 {
    let (number, end) = varint_at(message, 0).expect(ENCODED);
    *message = &message[end..];
    number
}

fn fixed64(message: &mut &[u8]) -> u64 {
    u64::from_le_bytes(chunk(message))
}

fn chunk<const N: usize>(message: &mut &[u8]) -> [u8; N] {
    let (chunk, rest) = message.split_first_chunk().expect(ENCODED);
    *message = rest;
    *chunk
}

#[cfg(test)]
mod tests;
