//! The outermost JSON object of a message, read in one pass. A member of the wrong type counts as absent, the
//! last of duplicate keys wins as it does in Python, and unknown members are ignored.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

/// Members of the envelope that this crate uses.
#[derive(Default)]
pub(super) struct Envelope<'a> {
    pub body: Option<Cow<'a, str>>,
    pub content_encoding: Option<Cow<'a, str>>,
    pub content_type: Option<Cow<'a, str>>,
    pub headers: Option<Members<'a>>,
    pub properties: Option<Members<'a>>,
}

impl<'de> Deserialize<'de> for Envelope<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EnvelopeVisitor)
    }
}

struct EnvelopeVisitor;

impl<'de> Visitor<'de> for EnvelopeVisitor {
    type Value = Envelope<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut envelope = Envelope::default();
        while let Some(key) = map.next_key_seed(Tolerant::TEXT)? {
            match key.text().as_deref() {
                Some("body") => envelope.body = map.next_value_seed(Tolerant::TEXT)?.text(),
                Some("content-encoding") => {
                    envelope.content_encoding = map.next_value_seed(Tolerant::TEXT)?.text();
                }
                Some("content-type") => envelope.content_type = map.next_value_seed(Tolerant::TEXT)?.text(),
                Some("headers") => envelope.headers = map.next_value_seed(Tolerant::HEADERS)?.object(),
                Some("properties") => {
                    envelope.properties = map.next_value_seed(Tolerant::PROPERTIES)?.object();
                }
                // Parsed rather than skipped, because `mark_redelivered` must accept the same messages.
                _ => drop(map.next_value::<Value>()?),
            }
        }
        Ok(envelope)
    }
}

/// Members of an object in order. Cheaper to build than a map, and read only once.
pub(super) struct Members<'a>(Vec<(Cow<'a, str>, Value)>);

impl<'a> Members<'a> {
    /// Returns the text under this key, or `None` if the key is absent or its value is not text.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    fn get(&self, key: &str) -> Option<&Value> {
        let found = self.0.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value)
    }
}

impl<'a> IntoIterator for Members<'a> {
    type Item = (Cow<'a, str>, Value);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Any JSON value; only text and objects are kept.
enum Part<'a> {
    Text(Cow<'a, str>),
    Object(Members<'a>),
    Other,
}

impl<'a> Part<'a> {
    fn text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(text),
            Self::Object(_) | Self::Other => None,
        }
    }

    fn object(self) -> Option<Members<'a>> {
        match self {
            Self::Object(members) => Some(members),
            Self::Text(_) | Self::Other => None,
        }
    }
}

/// Reads any JSON value as a [`Part`].
struct Tolerant {
    /// Usual number of members, if the value is an object.
    members: usize,
}

impl Tolerant {
    const TEXT: Self = Self { members: 0 };
    const HEADERS: Self = Self { members: 22 };
    const PROPERTIES: Self = Self { members: 8 };
}

impl<'de> DeserializeSeed<'de> for Tolerant {
    type Value = Part<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tolerant {
    type Value = Part<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Part::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Part::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members: Vec<(Cow<'de, str>, Value)> = Vec::with_capacity(self.members);
        while let Some(key) = map.next_key_seed(Self::TEXT)? {
            let (key, value) = (key.text().unwrap_or_default(), map.next_value()?);
            match members.iter_mut().find(|(name, _)| *name == key) {
                Some((_, last)) => *last = value,
                None => members.push((key, value)),
            }
        }
        Ok(Part::Object(Members(members)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<Value>()?.is_some() {}
        Ok(Part::Other)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Part::Other)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Part::Other)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Part::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Part::Other)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Part::Other)
    }
}
