//! How times travel: `timestamp` columns hold UTC, in microseconds since 2000.

use std::error::Error;

use bytes::{BufMut, BytesMut};
use jiff::Timestamp;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

/// Microseconds from the Unix epoch to PostgreSQL's, 2000-01-01.
const EPOCH: i64 = 946_684_800_000_000;

/// A time in a `timestamp` column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Utc(pub(super) Timestamp);

impl<'a> FromSql<'a> for Utc {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let micros = i64::from_be_bytes(raw.try_into()?);
        // `infinity` and years beyond 9999 saturate: one odd row must not hide the others.
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
        out.put_i64(self.0.as_microsecond().saturating_sub(EPOCH));
        Ok(IsNull::No)
    }

    accepts!(TIMESTAMP);
    to_sql_checked!();
}
