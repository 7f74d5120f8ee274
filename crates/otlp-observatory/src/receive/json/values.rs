//! Reads JSON values into the fields of messages: [`message!`] lists the key of each field, and [`FromJson`] reads a
//! value in the form that OTLP/JSON defines for the field's type. Error messages name the expected form and never
//! contain the value.

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

/// Messages with fields that are read by their JSON keys.
pub(super) trait Fields: Default {
    /// Reads the value of `key` into its field; returns `false` without reading if there is no such field.
    fn read<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error>;
}

/// Implements [`FromJson`] for a message.
///
/// `"key" => field` declares a field that keeps its default if absent, `"key" => field as Form` one that is read as a
/// `Form`, a wrapper of its value, and `"key" => field = Variant` an alternative of a `oneof`. `null` is treated as
/// absent.
macro_rules! message {
    ($type:ty { $($key:literal => $field:ident $(as $form:ty)? $(= $variant:path)?),* $(,)? }) => {
        impl $crate::receive::json::values::Fields for $type {
            fn read<'de, A: serde::de::MapAccess<'de>>(
                &mut self,
                key: &str,
                map: &mut A,
            ) -> Result<bool, A::Error> {
                match key {
                    $($key => if let Some($crate::receive::json::values::Json(value)) = map.next_value()? {
                        $crate::receive::json::values::message!(@set self, value, $field $(as $form)? $(= $variant)?);
                    },)*
                    _ => return Ok(false),
                }
                Ok(true)
            }
        }

        impl $crate::receive::json::values::FromJson for $type {
            fn from_json<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_map($crate::receive::json::values::ObjectVisitor(std::marker::PhantomData))
            }
        }
    };
    (@set $self:ident, $value:ident, $field:ident) => { $self.$field = $value };
    (@set $self:ident, $value:ident, $field:ident as $form:ty) => {{
        let wrapped: $form = $value;
        $self.$field = wrapped.0;
    }};
    (@set $self:ident, $value:ident, $field:ident = $variant:path) => { $self.$field = Some($variant($value)) };
}

pub(super) use message;

pub(super) struct ObjectVisitor<T>(pub(super) PhantomData<T>);

impl<'de, T: Fields> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut message = T::default();
        while let Some(Text(key)) = map.next_key()? {
            if !message.read(&key, &mut map)? {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(message)
    }
}

/// String, borrowed from the body unless it has escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<T: FromJson> FromJson for Option<T> {
    fn from_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::from_json(deserializer).map(Some)
    }
}

impl<T: FromJson> FromJson for Vec<T> {
    fn from_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items = Vec::<Json<T>>::deserialize(deserializer)?;
        Ok(items.into_iter().map(|item| item.0).collect())
    }
}

impl FromJson for String {
    fn from_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer)
    }
}

impl FromJson for bool {
    fn from_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer)
    }
}

/// Values that are read from a number or a string.
trait Scalar: Sized {
    const EXPECTED: &str;

    fn from_integer(integer: i128) -> Option<Self>;

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

/// Strings may also be `NaN`, `Infinity` and `-Infinity`.
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
            // `parse` also accepts Rust's names of non-finite numbers, which are invalid in JSON.
            _ => text.parse().ok().filter(|double: &Self| double.is_finite()),
        }
    }
}

/// Enumerations with named values.
pub(super) trait Names {
    /// Returns the number of the value `name`.
    fn number(name: &str) -> Option<i32>;
}

/// Enumeration value: its number, or its name in the protobuf definition.
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

    fn visit_i64<E: Error>(self, integer: i64) -> Result<T, E> {
        T::from_integer(integer.into()).ok_or_else(|| expected(T::EXPECTED))
    }

    fn visit_u64<E: Error>(self, integer: u64) -> Result<T, E> {
        T::from_integer(integer.into()).ok_or_else(|| expected(T::EXPECTED))
    }

    fn visit_f64<E: Error>(self, double: f64) -> Result<T, E> {
        T::from_double(double).ok_or_else(|| expected(T::EXPECTED))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text).ok_or_else(|| expected(T::EXPECTED))
    }
}

fn expected<E: Error>(form: &str) -> E {
    E::custom(format_args!("expected {form}"))
}

/// Bytes in hexadecimal of either case, used for ids.
pub(super) struct Hex(pub(super) Vec<u8>);

impl FromJson for Hex {
    fn from_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?.0;
        from_hex(&text)
            .map(Self)
            .ok_or_else(|| expected("hexadecimal digits"))
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect()
}

/// Bytes in base64 with the standard or the URL alphabet, with or without padding.
pub(super) struct Base64(pub(super) Vec<u8>);

impl FromJson for Base64 {
    fn from_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const LENIENT: GeneralPurposeConfig =
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
        const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
        let text = &*Text::deserialize(deserializer)?.0;
        let decoded = STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text));
        decoded.map(Self).map_err(|_| expected("base64"))
    }
}
