//! Conversions between Rust values and columns. A `timestamp` is in UTC, in microseconds since 2000.

use std::error::Error;

use bytes::{BufMut, BytesMut};
use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::{
    Row,
    types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked},
};
use uuid::Uuid;

use crate::store::rows::{Column, Columns, Id, Json, Text, Utc};

/// PostgreSQL's epoch, 2000-01-01, in microseconds since the Unix epoch.
const EPOCH: i64 = 946_684_800_000_000;

/// The earliest `timestamp`, in microseconds since PostgreSQL's epoch.
const OLDEST: i64 = -211_813_488_000_000_000;

impl<'a> FromSql<'a> for Utc {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let micros = i64::from_be_bytes(raw.try_into()?);
        // `infinity` and years beyond 9999 saturate, so that one such row does not make the others
        // unreadable.
        let since_unix = micros.saturating_add(EPOCH);
        Ok(Self(Timestamp::from_microsecond(since_unix).unwrap_or(
            if micros < 0 {
                Timestamp::MIN
            } else {
                Timestamp::MAX
            },
        )))
    }

    accepts!(TIMESTAMP);
}

impl ToSql for Utc {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        // Clients can send times before `OLDEST` in entity tags. Clamping them is safe, because no row has
        // such a time.
        out.put_i64(self.0.as_microsecond().saturating_sub(EPOCH).max(OLDEST));
        Ok(IsNull::No)
    }

    accepts!(TIMESTAMP);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Text {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self::decode(raw))
    }

    fn accepts(ty: &Type) -> bool {
        <String as FromSql>::accepts(ty)
    }
}

impl<'a> FromSql<'a> for Id {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Uuid::from_sql(ty, raw).map(Self)
    }

    accepts!(UUID);
}

impl<'a> FromSql<'a> for Json {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Value::from_sql(ty, raw).map(Self)
    }

    accepts!(JSON, JSONB);
}

impl Columns for Row {
    type Error = tokio_postgres::Error;

    fn column<T: Column>(&self, name: &str) -> Result<T, Self::Error> {
        self.try_get(name)
    }
}
