//! Trace ids, span ids and timestamps, with their text and JSON forms.

use std::{fmt, num::NonZeroU64};

use serde::{Serialize, Serializer};

/// Trace id; never zero.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct TraceId(u128);

impl TraceId {
    /// Converts the 16 bytes of OTLP; returns `None` for any other length or for zero.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let id = u128::from_be_bytes(bytes.try_into().ok()?);
        (id != 0).then_some(Self(id))
    }

    /// Parses 32 hexadecimal digits.
    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        parse_hex(text, 32).filter(|id| *id != 0).map(Self)
    }
}

/// Id of a span within its trace; never zero.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct SpanId(NonZeroU64);

impl SpanId {
    /// Converts the 8 bytes of OTLP; returns `None` for any other length or for zero.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let id = u64::from_be_bytes(bytes.try_into().ok()?);
        NonZeroU64::new(id).map(Self)
    }

    /// Parses 16 hexadecimal digits.
    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let id = u64::try_from(parse_hex(text, 16)?).ok()?;
        NonZeroU64::new(id).map(Self)
    }
}

/// Parses exactly `digits` hexadecimal digits; `from_str_radix` alone would accept a sign.
fn parse_hex(text: &str, digits: usize) -> Option<u128> {
    let is_hex = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u128::from_str_radix(text, 16).ok())?
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for TraceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for SpanId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Nanoseconds since 1970; a decimal string in JSON, because JavaScript numbers lose precision at this size.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct UnixNano(pub(crate) u64);

impl Serialize for UnixNano {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_right_length_and_are_not_zero() {
        assert!(TraceId::from_bytes(&[0; 16]).is_none());
        assert!(TraceId::from_bytes(&[1; 15]).is_none());
        assert!(SpanId::from_bytes(&[0; 8]).is_none());
        assert!(SpanId::from_bytes(&[1; 9]).is_none());
        assert!(SpanId::from_hex("+000000000000001").is_none());
        assert!(TraceId::from_hex("é0000000000000000000000000000").is_none());

        let id = TraceId::from_hex("0af7651916cd43dd8448eb211c80319c").expect("an id");
        assert_eq!(id.to_string(), "0af7651916cd43dd8448eb211c80319c");
        let id = SpanId::from_bytes(&[0, 0, 0, 0, 0, 0, 0, 0x0a]).expect("an id");
        assert_eq!(id.to_string(), "000000000000000a");
        assert_eq!(SpanId::from_hex("000000000000000a"), Some(id));
    }
}
