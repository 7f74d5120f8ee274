//! Python types that JSON lacks, which kombu writes as `{"__type__": ..., "__value__": ...}`.

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::{
    Timestamp,
    civil::{Date, Time},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::time;

/// Value of a Python type that JSON lacks, for arguments and results.
///
/// | `T` | Python |
/// | --- | --- |
/// | [`Timestamp`] | `datetime`; UTC if it has no time zone |
/// | `jiff::civil::Date`, `jiff::civil::Time` | `date`, `time` |
/// | [`Uuid`] | `UUID` |
/// | [`Decimal`] | `Decimal` |
/// | `Vec<u8>` | `bytes` |
///
/// Plain strings, which Rust clients may send, are accepted too, except for `bytes`.
///
/// ```
/// use celeriac::{Signature, TaskContext, TaskError, Timestamp, Typed, Uuid};
///
/// async fn remind(_: TaskContext, (user, at): (Typed<Uuid>, Typed<Timestamp>)) -> Result<Typed<Timestamp>, TaskError> {
///     println!("{} at {}", user.0, at.0);
///     Ok(at)
/// }
///
/// let remind = Signature::new("remind").arg(Typed(Uuid::nil())).arg(Typed(Timestamp::UNIX_EPOCH));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Typed<T>(pub T);

/// Python's `Decimal` as text, such as `1.10`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Decimal(pub String);

/// Type that [`Typed`] supports. Sealed.
pub trait PythonType: Sized + sealed::Sealed {
    /// Name of the type in error messages.
    #[doc(hidden)]
    const NAME: &'static str;

    /// Returns kombu's name for the type, and the value.
    #[doc(hidden)]
    fn write(&self) -> (&'static str, Value);

    /// Reads a value of kombu's type `kind`; `None` stands for a plain value.
    #[doc(hidden)]
    fn read(kind: Option<&str>, value: &Value) -> Option<Self>;
}

mod sealed {
    pub trait Sealed {}
}

/// Returns the text of a value of this type, or of a plain string.
fn text<'a>(expected: &str, kind: Option<&str>, value: &'a Value) -> Option<&'a str> {
    value
        .as_str()
        .filter(|_| kind.is_none_or(|kind| kind == expected))
}

macro_rules! as_text {
    ($($type:ty, $name:literal, $write:expr, $read:expr;)*) => {$(
        impl sealed::Sealed for $type {}

        impl PythonType for $type {
            const NAME: &'static str = $name;

            fn write(&self) -> (&'static str, Value) {
                ($name, Value::String($write(self)))
            }

            fn read(kind: Option<&str>, value: &Value) -> Option<Self> {
                text($name, kind, value).and_then($read)
            }
        }
    )*};
}

as_text! {
    Timestamp, "datetime", |at: &Self| time::format(*at), time::parse;
    Date, "date", ToString::to_string, |text: &str| text.parse().ok();
    Time, "time", ToString::to_string, |text: &str| text.parse().ok();
    Decimal, "decimal", |decimal: &Self| decimal.0.clone(), |text: &str| Some(Self(text.to_owned()));
}

impl sealed::Sealed for Uuid {}

impl PythonType for Uuid {
    const NAME: &'static str = "uuid";

    fn write(&self) -> (&'static str, Value) {
        (Self::NAME, json!({"hex": self.simple().to_string()}))
    }

    fn read(kind: Option<&str>, value: &Value) -> Option<Self> {
        let value = if kind.is_some() { &value["hex"] } else { value };
        text(Self::NAME, kind, value)?.parse().ok()
    }
}

impl sealed::Sealed for Vec<u8> {}

impl PythonType for Vec<u8> {
    const NAME: &'static str = "bytes";

    fn write(&self) -> (&'static str, Value) {
        match str::from_utf8(self) {
            Ok(text) => (Self::NAME, text.into()),
            Err(_) => ("base64", STANDARD.encode(self).into()),
        }
    }

    fn read(kind: Option<&str>, value: &Value) -> Option<Self> {
        match kind? {
            "bytes" => Some(value.as_str()?.as_bytes().to_vec()),
            "base64" => STANDARD.decode(value.as_str()?).ok(),
            _ => None,
        }
    }
}

impl<T: PythonType> Serialize for Typed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (kind, value) = self.0.write();
        json!({"__type__": kind, "__value__": value}).serialize(serializer)
    }
}

impl<'de, T: PythonType> Deserialize<'de> for Typed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let read = match (
            value.get("__type__").and_then(Value::as_str),
            value.get("__value__"),
        ) {
            (Some(kind), Some(inner)) => T::read(Some(kind), inner),
            _ => T::read(None, &value),
        };
        read.map(Self)
            .ok_or_else(|| D::Error::custom(format_args!("expected a value of kombu's type `{}`", T::NAME)))
    }
}

impl<T: PythonType> From<Typed<T>> for Value {
    fn from(typed: Typed<T>) -> Self {
        json!(typed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<T: PythonType + PartialEq + std::fmt::Debug>(value: T, kind: &str, inner: Value) {
        let json = json!({"__type__": kind, "__value__": inner});
        assert_eq!(json!(Typed(&value).0.write().0), kind);
        let read: Typed<T> = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(read.0, value);
        assert_eq!(Value::from(read), json);
    }

    #[test]
    fn values_are_written_as_kombu_writes_them() {
        let at = "2026-11-22T06:51:26.372432Z".parse().unwrap();
        round_trip::<Timestamp>(at, "datetime", json!("2026-11-22T06:51:26.372432+00:00"));
        round_trip(jiff::civil::date(2026, 11, 22), "date", json!("2026-11-22"));
        round_trip(jiff::civil::time(6, 51, 26, 0), "time", json!("06:51:26"));
        round_trip(
            Uuid::from_u128(7),
            "uuid",
            json!({"hex": "00000000000000000000000000000007"}),
        );
        round_trip(Decimal("1.10".to_owned()), "decimal", json!("1.10"));
        round_trip(b"abc".to_vec(), "bytes", json!("abc"));
        round_trip(vec![0xff, 0], "base64", json!("/wA="));
    }

    #[test]
    fn plain_strings_are_accepted_and_other_types_are_not() {
        let plain: Typed<Uuid> = serde_json::from_value(json!(Uuid::nil().to_string())).unwrap();
        assert_eq!(plain.0, Uuid::nil());
        let wrong = json!({"__type__": "date", "__value__": "2026-11-22"});
        let error = serde_json::from_value::<Typed<Timestamp>>(wrong).unwrap_err();
        assert_eq!(error.to_string(), "expected a value of kombu's type `datetime`");
        assert!(serde_json::from_value::<Typed<Vec<u8>>>(json!("abc")).is_err());
    }
}
