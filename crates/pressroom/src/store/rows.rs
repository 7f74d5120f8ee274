//! Readers of rows by column name, for both databases.

use std::sync::Once;

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::domain::{
    Article, ArticleId, Author, Backlog, Credentials, DeliveryClaim, EndedSessions, OutboxTask, PasswordHash,
    PublishedBatch, PublishedTask, Recipient, Session, SessionEnd, SessionGeneration, StoredResponse,
    TokenKey, User, UserId,
};

/// A row whose columns can be read by name.
pub(super) trait Columns {
    type Error;

    fn column<T: Column>(&self, name: &str) -> Result<T, Self::Error>;
}

/// A value that both databases can read from a column.
pub(super) trait Column:
    for<'a> tokio_postgres::types::FromSql<'a> + rusqlite::types::FromSql
{
}

impl<T: for<'a> tokio_postgres::types::FromSql<'a> + rusqlite::types::FromSql> Column for T {}

/// A time: a PostgreSQL `timestamp` in UTC, or an SQLite integer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Utc(pub(super) Timestamp);

/// Text whose invalid UTF-8 is replaced with U+FFFD, so that one such value does not make the other rows unreadable.
/// PostgreSQL with the encoding `SQL_ASCII` and SQLite store any bytes that another program writes.
#[derive(Debug)]
pub(super) struct Text {
    text: String,
    replaced: bool,
}

impl Text {
    pub(super) fn decode(bytes: &[u8]) -> Self {
        // Much faster than the search for invalid bytes.
        let valid = std::str::from_utf8(bytes).ok();
        Self {
            replaced: valid.is_none(),
            text: valid.map_or_else(|| String::from_utf8_lossy(bytes).into_owned(), str::to_owned),
        }
    }
}

/// A UUID: a PostgreSQL `uuid`, or a string in SQLite.
#[derive(Debug, Clone, Copy)]
pub(super) struct Id(pub(super) Uuid);

/// A JSON value: a PostgreSQL `jsonb`, or a string in SQLite.
#[derive(Debug)]
pub(super) struct Json(pub(super) Value);

/// Reads `user_columns!`.
pub(super) fn user<R: Columns>(row: &R) -> Result<User, R::Error> {
    Ok(User {
        id: UserId(row.column("id")?),
        email: text(row, "email")?,
        name: text(row, "name")?,
        bio: text(row, "bio")?,
        image: text(row, "image")?,
        created_at: time(row, "created_at")?,
    })
}

pub(super) fn credentials<R: Columns>(row: &R) -> Result<Credentials, R::Error> {
    Ok(Credentials {
        user: user(row)?,
        password_hash: PasswordHash(text(row, "password_hash")?),
        generation: SessionGeneration(row.column("generation")?),
    })
}

pub(super) fn session<R: Columns>(row: &R) -> Result<Session, R::Error> {
    let ended = match row.column::<Option<i32>>("generation")? {
        Some(generation) => Some(EndedSessions {
            generation: SessionGeneration(generation),
            last: SessionEnd {
                at: time(row, "ended_at")?,
                kept: row.column::<Option<String>>("kept_token")?.map(TokenKey),
            },
        }),
        None => None,
    };
    Ok(Session {
        user: user(row)?,
        revoked: row.column("revoked")?,
        ended,
    })
}

pub(super) fn password_scheme<R: Columns>(row: &R) -> Result<String, R::Error> {
    text(row, "name")
}

/// Reads `article_columns!` and `favorited`.
pub(super) fn article<R: Columns>(row: &R) -> Result<Article, R::Error> {
    Ok(Article {
        id: ArticleId(row.column("id")?),
        slug: text(row, "slug")?,
        title: text(row, "title")?,
        description: text(row, "description")?,
        body: text(row, "body")?,
        author: Author {
            id: UserId(row.column("author_id")?),
            email: text(row, "author_email")?,
            name: text(row, "author_name")?,
        },
        favorites_count: row.column("favorites_count")?,
        favorited: row.column("favorited")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}

pub(super) fn stored_response<R: Columns>(row: &R) -> Result<StoredResponse, R::Error> {
    Ok(StoredResponse {
        fingerprint: row.column("fingerprint")?,
        article: article(row)?,
    })
}

/// Reads a claimed task. Unreadable trace headers are ignored, because the task is more important.
pub(super) fn outbox_task<R: Columns>(row: &R) -> Result<OutboxTask, R::Error> {
    Ok(OutboxTask {
        id: row.column("id")?,
        task_id: row.column::<Id>("task_id")?.0,
        name: row.column("name")?,
        args: match row.column::<Json>("args")?.0 {
            Value::Array(args) => args,
            single => vec![single],
        },
        trace: serde_json::from_value(row.column::<Json>("trace")?.0).unwrap_or_default(),
        created_at: time(row, "created_at")?,
        attempts: row.column("attempts")?,
    })
}

pub(super) fn published_task<R: Columns>(row: &R) -> Result<PublishedTask, R::Error> {
    Ok(PublishedTask {
        id: row.column("id")?,
        task_id: row.column::<Id>("task_id")?.0,
        batch: PublishedBatch {
            log: row.column::<Id>("log_id")?.0,
            number: row.column("batch")?,
        },
        sends: row.column("sends")?,
        published_at: time(row, "published_at")?,
    })
}

/// Converts propagation headers to an array of pairs, which preserves their order.
pub(super) fn trace_column(trace: &[(String, String)]) -> Value {
    trace
        .iter()
        .map(|(name, value)| Value::from(vec![name.as_str(), value.as_str()]))
        .collect()
}

pub(super) fn backlog<R: Columns>(row: &R) -> Result<Backlog, R::Error> {
    Ok(Backlog {
        tasks: row.column("tasks")?,
        oldest: row.column::<Option<Utc>>("oldest")?.map(|Utc(time)| time),
    })
}

/// Reads the claim of another run, or a completed delivery.
pub(super) fn delivery_claim<R: Columns>(row: &R, now: Timestamp) -> Result<DeliveryClaim, R::Error> {
    if row.column("delivered")? {
        return Ok(DeliveryClaim::Delivered);
    }
    Ok(DeliveryClaim::held(time(row, "claimed_until")?, now))
}

pub(super) fn recipient<R: Columns>(row: &R) -> Result<Recipient, R::Error> {
    Ok(Recipient {
        id: UserId(row.column("id")?),
        email: text(row, "email")?,
        name: text(row, "name")?,
    })
}

fn time<R: Columns>(row: &R, name: &str) -> Result<Timestamp, R::Error> {
    row.column(name).map(|Utc(time)| time)
}

/// Reads text, and logs the first replacement of invalid UTF-8.
fn text<R: Columns>(row: &R, name: &str) -> Result<String, R::Error> {
    static LOGGED: Once = Once::new();
    let Text { text, replaced } = row.column(name)?;
    if replaced {
        LOGGED.call_once(|| {
            telemetry::warn!(
                db.column = name,
                "the database has text that is not UTF-8; its invalid bytes are shown as U+FFFD"
            );
        });
    }
    Ok(text)
}
