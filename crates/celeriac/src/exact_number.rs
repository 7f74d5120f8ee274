//! Numbers of Python that neither JSON nor Rust's 64-bit types can hold.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::SerializeMap};
use serde_json::Value;
use thiserror::Error;

use crate::json;

/// Number of Python that [`Value`] cannot hold: an integer beyond 64 bits, `NaN`, `Infinity` or `-Infinity`.
///
/// In arguments, return values and results, such a number is an object that this type reads and writes. It
/// passes through Rust unchanged, and Python gets the number.
///
/// ```
/// use celeriac::ExactNumber;
///
/// let large: ExactNumber = "1180591620717411303424".parse()?;
/// let value = serde_json::to_value(&large)?;
/// assert_eq!(serde_json::from_value::<ExactNumber>(value)?.as_str(), "1180591620717411303424");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ExactNumber(String);

/// Error for a text that is not an [`ExactNumber`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("expected an integer beyond 64 bits, NaN, Infinity or -Infinity")]
pub struct NotExact;

impl ExactNumber {
    /// Parses a JSON text of Python, in which integers may have any size; see [`ExactNumber`].
    ///
    /// # Errors
    /// Returns an error if the text is not JSON.
    pub fn parse_json(text: &str) -> Result<Value, serde_json::Error> {
        serde_json::from_slice(&json::exact(text.as_bytes()))
    }

    /// Returns the JSON text of a value as Python writes it, in ASCII on one line. The inverse of
    /// [`parse_json`](Self::parse_json).
    ///
    /// ```
    /// use celeriac::ExactNumber;
    ///
    /// let value = ExactNumber::parse_json("[1180591620717411303424, NaN]")?;
    /// assert_eq!(ExactNumber::to_json(&value), "[1180591620717411303424, NaN]");
    /// # Ok::<(), celeriac::serde_json::Error>(())
    /// ```
    #[must_use]
    pub fn to_json<T: Serialize>(value: &T) -> String {
        json::to_string(value)
    }

    /// Returns the number as Python writes it in JSON.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ExactNumber {
    type Err = NotExact;

    fn from_str(text: &str) -> Result<Self, NotExact> {
        json::is_exact(text)
            .then(|| Self(text.to_owned()))
            .ok_or(NotExact)
    }
}

impl fmt::Display for ExactNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for ExactNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(json::TAG, &self.0)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for ExactNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let number = json::exact_number(&value).ok_or_else(|| D::Error::custom(NotExact))?;
        Ok(Self(number.to_owned()))
    }
}
