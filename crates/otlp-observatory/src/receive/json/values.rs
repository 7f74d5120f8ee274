//! Reads JSON values in the form that OTLP/JSON defines for the type of each field. Error messages name the
//! expected form.

use std::{borrow::Cow, fmt, marker::PhantomData};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};

/// Values that are read from OTLP/JSON.
pub(super) trait FromJson: Sized {
    fn from_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

/// Value read by [`FromJson`].
pub(super) struct Json<T>(pub(super) T);

impl<'de, T: FromJson> Deserialize<'de> for Json<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::from_json(deserializer).map(Self)
    }
}

/// Messages whose fields are read from a JSON object.
pub(super) trait Fields: Default {
    /// Reads the value of `key` into its field; returns `false` without reading if the message has no such
    /// field.
    fn read<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error>;
}

/// Whether `key` is the lower camel case form of `name`, a field or variant.
pub(super) fn is_key_of(key: &str, name: &str) -> bool {
    let mut key = key.bytes();
    let mut expected = name.trim_start_matches("r#").bytes();
    let mut matches = |byte| key.next() == Some(byte);
    expected
        .next()
        .is_some_and(|first| matches(first.to_ascii_lowercase()))
        && std::iter::from_fn(|| match expected.next()? {
            b'_' => expected.next().map(|byte| byte.to_ascii_uppercase()),
            byte => Some(byte),
        })
        .all(matches)
        && key.next().is_none()
}

/// Reads an object; keys without a field are ignored.
pub(super) fn read_object<'de, T: Fields, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_map(ObjectVisitor(PhantomData))
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Fields> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut message = T::default();
        while let Some(Key(key)) = map.next_key()? {
            if !message.read(&key, &mut map)? {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(message)
    }
}

/// Key of an object, borrowed from the body unless it contains escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<T: FromJson> FromJson for Option<T> {
    fn from_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::from_json(deserializer).map(Some)
    }
}

impl<T: FromJson> FromJson for Vec<T> {
    fn from_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items = Vec::<Json<T>>::deserialize(deserializer)?;
        Ok(items.into_iter().map(|Json(item)| item).collect())
    }
}

/// Values that are read from a boolean, a number or a string.
trait Scalar: Sized {
    const EXPECTED: &str;

    fn from_bool(_: bool) -> Option<Self> {
        None
    }

    fn from_integer(_: i128) -> Option<Self> {
        None
    }

    /// Accepts integers written as floating-point numbers, like `1e3`.
    fn from_double(double: f64) -> Option<Self> {
        (double.fract() == 0.0)
            .then_some(double as i128)
            .and_then(Self::from_integer)
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok().and_then(Self::from_integer)
    }
}

impl Scalar for bool {
    const EXPECTED: &str = "a boolean";

    fn from_bool(value: bool) -> Option<Self> {
        Some(value)
    }
}

impl Scalar for String {
    const EXPECTED: &str = "a string";

    fn from_text(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Scalar for $type {
            const EXPECTED: &str = "an integer of the field's size";

            fn from_integer(integer: i128) -> Option<Self> {
                integer.try_into().ok()
            }
        }
    )*};
}

integers!(i32, u32, i64, u64);

/// Doubles are also read from the strings `NaN`, `Infinity` and `-Infinity`.
impl Scalar for f64 {
    const EXPECTED: &str = "a number";

    fn from_integer(integer: i128) -> Option<Self> {
        Some(integer as Self)
    }

    fn from_double(double: f64) -> Option<Self> {
        Some(double)
    }

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "NaN" => Some(Self::NAN),
            "Infinity" => Some(Self::INFINITY),
            "-Infinity" => Some(Self::NEG_INFINITY),
            // `parse` also accepts Rust's names of non-finite numbers, which OTLP/JSON does not allow.
            _ => text.parse().ok().filter(|double: &Self| double.is_finite()),
        }
    }
}

/// Enumerations with named values.
pub(super) trait Names {
    /// Returns the number of the value `name`.
    fn number(name: &str) -> Option<i32>;
}

/// Enumeration value, read from its number or its name in the protobuf definition.
pub(super) struct Enumeration<E>(pub(super) i32, PhantomData<E>);

impl<E: Names> Scalar for Enumeration<E> {
    const EXPECTED: &str = "the number or name of an enumeration value";

    fn from_integer(integer: i128) -> Option<Self> {
        Some(Self(integer.try_into().ok()?, PhantomData))
    }

    fn from_text(text: &str) -> Option<Self> {
        Some(Self(E::number(text)?, PhantomData))
    }
}

/// Id, read from hexadecimal digits of either case.
pub(super) struct Hex(pub(super) Vec<u8>);

impl Scalar for Hex {
    const EXPECTED: &str = "pairs of hexadecimal digits";

    fn from_text(text: &str) -> Option<Self> {
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
            return None;
        };
        let bytes = pairs
            .iter()
            .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
        bytes.collect::<Option<_>>().map(Self)
    }
}

/// Bytes, read from base64 with the standard or the URL alphabet, with or without padding.
pub(super) struct Base64(pub(super) Vec<u8>);

impl Scalar for Base64 {
    const EXPECTED: &str = "base64";

    fn from_text(text: &str) -> Option<Self> {
        const LENIENT: GeneralPurposeConfig =
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
        const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
        let decoded = STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text));
        decoded.ok().map(Self)
    }
}

impl<T: Scalar> FromJson for T {
    fn from_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor(PhantomData))
    }
}

struct ScalarVisitor<T>(PhantomData<T>);

impl<T: Scalar> Visitor<'_> for ScalarVisitor<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(T::EXPECTED)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<T, E> {
        T::from_bool(value).ok_or_else(unexpected::<T, E>)
    }

    fn visit_i64<E: Error>(self, integer: i64) -> Result<T, E> {
        T::from_integer(integer.into()).ok_or_else(unexpected::<T, E>)
    }

    fn visit_u64<E: Error>(self, integer: u64) -> Result<T, E> {
        T::from_integer(integer.into()).ok_or_else(unexpected::<T, E>)
    }

    fn visit_f64<E: Error>(self, double: f64) -> Result<T, E> {
        T::from_double(double).ok_or_else(unexpected::<T, E>)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text).ok_or_else(unexpected::<T, E>)
    }
}

/// Returns an error whose message omits the value, which may be confidential.
fn unexpected<T: Scalar, E: Error>() -> E {
    E::custom(format_args!("expected {}", T::EXPECTED))
}
