//! Conversions between Rust values and columns, and case folding.

use jiff::Timestamp;
use rusqlite::{
    Row, ToSql,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
};
use serde_json::Value;
use uuid::Uuid;

use crate::store::rows::Columns;

/// A time, in microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Utc(pub(super) Timestamp);

impl ToSql for Utc {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.0.as_microsecond()))
    }
}

impl FromSql for Utc {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let micros = value.as_i64()?;
        Timestamp::from_microsecond(micros)
            .map(Self)
            .map_err(|_out_of_range| FromSqlError::OutOfRange(micros))
    }
}

/// A UUID, as text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Id(pub(super) Uuid);

impl ToSql for Id {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.0.to_string()))
    }
}

impl FromSql for Id {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = value.as_str()?;
        text.parse()
            .map(Self)
            .map_err(|error| FromSqlError::Other(Box::new(error)))
    }
}

/// Converts each character to lower case by itself, as PostgreSQL's ILIKE does, to which a final sigma is a
/// sigma.
pub(super) fn folded(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

impl Columns for Row<'_> {
    type Error = rusqlite::Error;

    fn bool(&self, name: &str) -> Result<bool, Self::Error> {
        self.get(name)
    }

    fn i32(&self, name: &str) -> Result<i32, Self::Error> {
        self.get(name)
    }

    fn i64(&self, name: &str) -> Result<i64, Self::Error> {
        self.get(name)
    }

    fn text(&self, name: &str) -> Result<String, Self::Error> {
        self.get(name)
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>, Self::Error> {
        self.get(name)
    }

    fn uuid(&self, name: &str) -> Result<Uuid, Self::Error> {
        self.get(name).map(|Id(id)| id)
    }

    fn json(&self, name: &str) -> Result<Value, Self::Error> {
        let text: String = self.get(name)?;
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }

    fn time(&self, name: &str) -> Result<Timestamp, Self::Error> {
        self.get(name).map(|Utc(time)| time)
    }

    fn optional_time(&self, name: &str) -> Result<Option<Timestamp>, Self::Error> {
        let time: Option<Utc> = self.get(name)?;
        Ok(time.map(|Utc(time)| time))
    }
}
