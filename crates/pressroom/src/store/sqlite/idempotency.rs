//! Articles that are created once however often they are asked for: the key is looked up and kept
//! within the transaction that inserts the article.

use jiff::Timestamp;
use rusqlite::{Row, params};
use telemetry::Statement;

use super::{
    articles,
    connections::{Connections, Moment},
    error::StatementError,
    value::Utc,
};
use crate::{
    accounts::UserId,
    articles::{Article, ArticleId, Author, FirstAnswer, IdempotencyKey, NewArticle, OnceOnly},
    store::Constraint,
    tasks::NewOutboxTask,
};

const FIND_FIRST_ANSWER: Statement = Statement::new(
    "SELECT",
    "idempotency_keys",
    "SELECT idempotency_keys",
    "
        SELECT fingerprint, created_at, article_id, slug, title, description, body, author_email,
            author_name, user_id
        FROM idempotency_keys
        WHERE user_id = ?1 AND key = ?2 AND created_at > ?3",
);

fn first_answer(row: &Row<'_>) -> rusqlite::Result<FirstAnswer> {
    let Utc(created_at) = row.get(1)?;
    Ok(FirstAnswer {
        fingerprint: row.get(0)?,
        article: Article {
            id: ArticleId(row.get(2)?),
            slug: row.get(3)?,
            title: row.get(4)?,
            description: row.get(5)?,
            body: row.get(6)?,
            author: Author {
                id: UserId(row.get(9)?),
                email: row.get(7)?,
                name: row.get(8)?,
            },
            favorites_count: 0,
            favorited: false,
            created_at,
            updated_at: created_at,
        },
    })
}

fn find(
    db: &Moment<'_>,
    user: UserId,
    key: &IdempotencyKey,
    since: Timestamp,
) -> Result<Option<FirstAnswer>, StatementError> {
    let params = params![user.0, key.as_str(), Utc(since)];
    db.row(&FIND_FIRST_ANSWER, params, first_answer)
}

pub(super) async fn find_first_answer(
    store: &Connections,
    user: UserId,
    key: IdempotencyKey,
    since: Timestamp,
) -> Result<Option<FirstAnswer>, StatementError> {
    store
        .read(&FIND_FIRST_ANSWER, move |db| find(db, user, &key, since))
        .await
}

/// A key whose day is over is taken anew.
const KEEP_ANSWER: Statement = Statement::new(
    "INSERT",
    "idempotency_keys",
    "INSERT idempotency_keys",
    "
        INSERT OR REPLACE INTO idempotency_keys
            (user_id, key, fingerprint, created_at, article_id, slug, title, description, body,
            author_email, author_name)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
);

pub(super) async fn insert_article_once(
    store: &Connections,
    new: NewArticle,
    once: OnceOnly,
    task: NewOutboxTask,
) -> Result<Article, StatementError> {
    let inserted = store.write(&articles::INSERT_ARTICLE, move |db| {
        if find(db, new.author, &once.key, once.since)?.is_some() {
            return Ok(None);
        }
        let article = articles::insert(db, &new, &task)?;
        let params = params![
            article.author.id.0,
            once.key.as_str(),
            once.fingerprint,
            Utc(article.created_at),
            article.id.0,
            article.slug,
            article.title,
            article.description,
            article.body,
            article.author.email,
            article.author.name,
        ];
        db.execute(&KEEP_ANSWER, params)?;
        Ok(Some(article))
    });
    inserted
        .await?
        .ok_or_else(|| StatementError::conflict(Constraint::IdempotencyKey))
}

const PURGE_IDEMPOTENCY_KEYS: Statement = Statement::new(
    "DELETE",
    "idempotency_keys",
    "DELETE idempotency_keys",
    "
        DELETE FROM idempotency_keys
        WHERE rowid IN (
            SELECT rowid FROM idempotency_keys WHERE created_at <= ?1 ORDER BY created_at LIMIT ?2
        )",
);

pub(super) async fn purge_idempotency_keys(
    store: &Connections,
    before: Timestamp,
    limit: i64,
) -> Result<u64, StatementError> {
    let purged = store.write(&PURGE_IDEMPOTENCY_KEYS, move |db| {
        Ok(db.execute(&PURGE_IDEMPOTENCY_KEYS, params![Utc(before), limit])? as u64)
    });
    purged.await
}
