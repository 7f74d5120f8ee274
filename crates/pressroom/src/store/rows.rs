//! Readers of rows, by column name, for either database.

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::domain::{
    Article, ArticleId, Author, Backlog, Credentials, OutboxTask, PasswordHash, Recipient, Session,
    StoredAnswer, User, UserId,
};

/// A row of a result.
pub(super) trait Columns {
    type Error;

    fn bool(&self, name: &str) -> Result<bool, Self::Error>;
    fn i32(&self, name: &str) -> Result<i32, Self::Error>;
    fn i64(&self, name: &str) -> Result<i64, Self::Error>;
    fn text(&self, name: &str) -> Result<String, Self::Error>;
    fn bytes(&self, name: &str) -> Result<Vec<u8>, Self::Error>;
    fn uuid(&self, name: &str) -> Result<Uuid, Self::Error>;
    fn json(&self, name: &str) -> Result<Value, Self::Error>;
    fn optional_time(&self, name: &str) -> Result<Option<Timestamp>, Self::Error>;
    fn time(&self, name: &str) -> Result<Timestamp, Self::Error>;
}

/// Reads `user_columns!`.
pub(super) fn user<R: Columns>(row: &R) -> Result<User, R::Error> {
    Ok(User {
        id: UserId(row.i32("id")?),
        email: row.text("email")?,
        name: row.text("name")?,
        bio: row.text("bio")?,
        image: row.text("image")?,
        created_at: row.time("created_at")?,
    })
}

pub(super) fn credentials<R: Columns>(row: &R) -> Result<Credentials, R::Error> {
    Ok(Credentials {
        user: user(row)?,
        password_hash: PasswordHash(row.text("password_hash")?),
    })
}

pub(super) fn session<R: Columns>(row: &R) -> Result<Session, R::Error> {
    Ok(Session {
        user: user(row)?,
        revoked: row.bool("revoked")?,
    })
}

/// Reads `article_columns!` and `favorited`.
pub(super) fn article<R: Columns>(row: &R) -> Result<Article, R::Error> {
    Ok(Article {
        id: ArticleId(row.i32("id")?),
        slug: row.text("slug")?,
        title: row.text("title")?,
        description: row.text("description")?,
        body: row.text("body")?,
        author: Author {
            id: UserId(row.i32("author_id")?),
            email: row.text("author_email")?,
            name: row.text("author_name")?,
        },
        favorites_count: row.i32("favorites_count")?,
        favorited: row.bool("favorited")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}

pub(super) fn stored_answer<R: Columns>(row: &R) -> Result<StoredAnswer, R::Error> {
    Ok(StoredAnswer {
        fingerprint: row.bytes("fingerprint")?,
        article: article(row)?,
    })
}

/// Reads a claimed task. Trace headers that cannot be read are dropped: the task matters more.
pub(super) fn outbox_task<R: Columns>(row: &R) -> Result<OutboxTask, R::Error> {
    Ok(OutboxTask {
        id: row.i64("id")?,
        task_id: row.uuid("task_id")?,
        name: row.text("name")?,
        args: match row.json("args")? {
            Value::Array(args) => args,
            single => vec![single],
        },
        trace: serde_json::from_value(row.json("trace")?).unwrap_or_default(),
        created_at: row.time("created_at")?,
        attempts: row.i32("attempts")?,
    })
}

/// Writes propagation headers as an array of pairs, which keeps their order.
pub(super) fn trace_column(trace: &[(String, String)]) -> Value {
    trace
        .iter()
        .map(|(name, value)| Value::from(vec![name.as_str(), value.as_str()]))
        .collect()
}

pub(super) fn backlog<R: Columns>(row: &R) -> Result<Backlog, R::Error> {
    Ok(Backlog {
        tasks: row.i64("tasks")?,
        oldest: row.optional_time("oldest")?,
    })
}

pub(super) fn recipient<R: Columns>(row: &R) -> Result<Recipient, R::Error> {
    Ok(Recipient {
        id: UserId(row.i32("id")?),
        email: row.text("email")?,
        name: row.text("name")?,
    })
}
