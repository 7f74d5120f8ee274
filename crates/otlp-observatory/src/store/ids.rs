//! Trace ids, span ids and timestamps, with their text and JSON forms.

use std::fmt;

use serde::{Serialize, Serializer};

/// Id of a trace.
pub(crate) type TraceId = Id<16>;

/// Id of a span within its trace.
pub(crate) type SpanId = Id<8>;

/// Id of `N` bytes; never zero.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Id<const N: usize>([u8; N]);

impl<const N: usize> Id<N> {
    /// Converts the bytes of OTLP; returns `None` for any other length or for zero.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let id = bytes.try_into().ok()?;
        (id != [0; N]).then_some(Self(id))
    }

    /// Returns the bytes, as OTLP has them.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Parses hexadecimal digits, two for each byte.
    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        // `from_str_radix` alone would accept a sign.
        let is_hex = text.len() == 2 * N && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = is_hex.then(|| u128::from_str_radix(text, 16).ok())??;
        Self::from_bytes(&id.to_be_bytes()[16 - N..])
    }
}

impl<const N: usize> fmt::Display for Id<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl<const N: usize> Serialize for Id<N> {
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
