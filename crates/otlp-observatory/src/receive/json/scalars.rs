//! Scalar values of OTLP/JSON. Error messages name the expected form and never contain the value.

use std::{fmt, marker::PhantomData};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};

/// String.
#[derive(Deserialize)]
pub(super) struct Text(pub(super) String);

/// Array of strings.
#[derive(Deserialize)]
pub(super) struct Texts(pub(super) Vec<String>);

/// Boolean.
#[derive(Deserialize)]
pub(super) struct Flag(pub(super) bool);

/// Integer, as a number or a string.
pub(super) struct Integer<T>(pub(super) T);

/// Array of integers.
pub(super) struct Integers<T>(pub(super) Vec<T>);

/// Floating-point number, as a number or a string; strings may also be `NaN`, `Infinity` and `-Infinity`.
pub(super) struct Double(pub(super) f64);

/// Array of floating-point numbers.
pub(super) struct Doubles(pub(super) Vec<f64>);

/// Enumeration value: its number, or its name in the protobuf definition.
pub(super) struct Enumeration<E>(pub(super) i32, PhantomData<E>);

/// Bytes in hexadecimal of either case, used for ids.
pub(super) struct Hex(pub(super) Vec<u8>);

/// Bytes in base64 with the standard or the URL alphabet, with or without padding.
pub(super) struct Base64(pub(super) Vec<u8>);

/// Enumerations with named values.
pub(super) trait Names {
    /// Returns the number of the value `name`.
    fn number(name: &str) -> Option<i32>;
}

/// Values that are read from a number or a string.
trait Scalar: Sized {
    const EXPECTED: &str;

    fn from_integer(integer: i128) -> Option<Self>;
    fn from_double(double: f64) -> Option<Self>;
    fn from_text(text: &str) -> Option<Self>;
}

impl<T: TryFrom<i128>> Scalar for Integer<T> {
    const EXPECTED: &str = "an integer of the field's size";

    fn from_integer(integer: i128) -> Option<Self> {
        T::try_from(integer).ok().map(Self)
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

impl Scalar for Double {
    const EXPECTED: &str = "a number";

    fn from_integer(integer: i128) -> Option<Self> {
        Some(Self(integer as f64))
    }

    fn from_double(double: f64) -> Option<Self> {
        Some(Self(double))
    }

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "NaN" => Some(Self(f64::NAN)),
            "Infinity" => Some(Self(f64::INFINITY)),
            "-Infinity" => Some(Self(f64::NEG_INFINITY)),
            // `parse` also accepts Rust's names of non-finite numbers, which are invalid in JSON.
            _ => text
                .parse()
                .ok()
                .filter(|double: &f64| double.is_finite())
                .map(Self),
        }
    }
}

impl<E: Names> Scalar for Enumeration<E> {
    const EXPECTED: &str = "the number or name of an enumeration value";

    fn from_integer(integer: i128) -> Option<Self> {
        let number = i32::try_from(integer).ok()?;
        Some(Self(number, PhantomData))
    }

    fn from_double(double: f64) -> Option<Self> {
        let integer = Integer::<i32>::from_double(double)?;
        Some(Self(integer.0, PhantomData))
    }

    fn from_text(text: &str) -> Option<Self> {
        let number = E::number(text)?;
        Some(Self(number, PhantomData))
    }
}

struct ScalarVisitor<T>(PhantomData<T>);

impl<T: Scalar> Visitor<'_> for ScalarVisitor<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(T::EXPECTED)
    }

    fn visit_i64<E: Error>(self, integer: i64) -> Result<T, E> {
        T::from_integer(integer.into()).ok_or_else(|| expected::<T, E>())
    }

    fn visit_u64<E: Error>(self, integer: u64) -> Result<T, E> {
        T::from_integer(integer.into()).ok_or_else(|| expected::<T, E>())
    }

    fn visit_f64<E: Error>(self, double: f64) -> Result<T, E> {
        T::from_double(double).ok_or_else(|| expected::<T, E>())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text).ok_or_else(|| expected::<T, E>())
    }
}

fn expected<T: Scalar, E: Error>() -> E {
    E::custom(format_args!("expected {}", T::EXPECTED))
}

fn scalar<'de, T: Scalar, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_any(ScalarVisitor(PhantomData))
}

impl<'de, T: TryFrom<i128>> Deserialize<'de> for Integer<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        scalar(deserializer)
    }
}

impl<'de> Deserialize<'de> for Double {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        scalar(deserializer)
    }
}

impl<'de, E: Names> Deserialize<'de> for Enumeration<E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        scalar(deserializer)
    }
}

impl<'de, T: TryFrom<i128>> Deserialize<'de> for Integers<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let visitor = EachVisitor(|integer: Integer<T>| integer.0, PhantomData);
        deserializer.deserialize_seq(visitor).map(Self)
    }
}

impl<'de> Deserialize<'de> for Doubles {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let visitor = EachVisitor(|double: Double| double.0, PhantomData);
        deserializer.deserialize_seq(visitor).map(Self)
    }
}

struct EachVisitor<T, U>(fn(T) -> U, PhantomData<T>);

impl<'de, T: Deserialize<'de>, U> Visitor<'de> for EachVisitor<T, U> {
    type Value = Vec<U>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<U>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push((self.0)(item));
        }
        Ok(list)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let visitor = BytesVisitor("hexadecimal digits", from_hex);
        deserializer.deserialize_str(visitor).map(Self)
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let visitor = BytesVisitor("base64", from_base64);
        deserializer.deserialize_str(visitor).map(Self)
    }
}

struct BytesVisitor(&'static str, fn(&str) -> Option<Vec<u8>>);

impl Visitor<'_> for BytesVisitor {
    type Value = Vec<u8>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<u8>, E> {
        self.1(text).ok_or_else(|| E::custom(format_args!("expected {}", self.0)))
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

fn from_base64(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
    STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}
