//! Articles that are created once however often they are asked for.
//!
//! The key is claimed by the statement that inserts the article. Of two at the same time the second
//! waits for the first one's commit, and then inserts nothing.

use jiff::Timestamp;
use telemetry::Statement;

use super::{
    articles::{article, article_columns},
    connections::Connections,
    error::StatementError,
    outbox,
    value::Utc,
};
use crate::{
    accounts::UserId,
    articles::{Article, ArticleId, Author, FirstAnswer, IdempotencyKey, NewArticle, OnceOnly},
    store::Constraint,
    tasks::NewOutboxTask,
};

/// A key whose day is over is claimed anew. The article's number is drawn beforehand because both
/// rows have it.
const INSERT_ARTICLE_ONCE: Statement = Statement::new(
    "INSERT",
    "articles",
    "INSERT articles",
    concat!(
        "
        WITH claimed AS (
            INSERT INTO idempotency_keys AS held
                (user_id, key, fingerprint, created_at, article_id, slug, title, description, body,
                author_email, author_name)
            SELECT author.id, $12, $13, $6,
                nextval(pg_get_serial_sequence('articles', 'id'))::integer,
                $1::text, $2::text, $3::text, $4::text, author.email, author.name
            FROM users AS author
            WHERE author.id = $5
            ON CONFLICT (user_id, key) DO UPDATE
            SET fingerprint = EXCLUDED.fingerprint,
                created_at = EXCLUDED.created_at,
                article_id = EXCLUDED.article_id,
                slug = EXCLUDED.slug,
                title = EXCLUDED.title,
                description = EXCLUDED.description,
                body = EXCLUDED.body,
                author_email = EXCLUDED.author_email,
                author_name = EXCLUDED.author_name
            WHERE held.created_at <= $14
            RETURNING article_id
        ), article AS (
            INSERT INTO articles
                (id, slug, title, description, body, author_id, favorites_count, created_at,
                updated_at)
            SELECT claimed.article_id, $1::text, $2::text, $3::text, $4::text, $5, 0, $6, $6
            FROM claimed
            RETURNING *
        ), task AS (
            INSERT INTO outbox (task_id, name, args, trace, created_at, claimable_at)
            SELECT $7, $8, jsonb_build_array(article.id, $9::text), $10, $11, $11
            FROM article
        )
        SELECT ",
        article_columns!(),
        ", false
        FROM article
        JOIN users AS author ON author.id = article.author_id",
    ),
);

pub(super) async fn insert_article_once(
    store: &Connections,
    new: &NewArticle,
    once: &OnceOnly,
    task: &NewOutboxTask,
) -> Result<Article, StatementError> {
    let row = store
        .row(
            &INSERT_ARTICLE_ONCE,
            &[
                &new.slug,
                &new.title,
                &new.description,
                &new.body,
                &new.author.0,
                &Utc(new.created_at),
                &task.task_id,
                &outbox::TASK_NAME,
                &task.event.as_str(),
                &outbox::trace_column(&task.trace),
                &Utc(task.created_at),
                &once.key.as_str(),
                &once.fingerprint.as_slice(),
                &Utc(once.since),
            ],
        )
        .await?;
    match row {
        Some(row) => article(&row),
        None => Err(StatementError::conflict(Constraint::IdempotencyKey)),
    }
}

const FIND_FIRST_ANSWER: Statement = Statement::new(
    "SELECT",
    "idempotency_keys",
    "SELECT idempotency_keys",
    "
        SELECT fingerprint, created_at, article_id, slug, title, description, body, author_email,
            author_name
        FROM idempotency_keys
        WHERE user_id = $1 AND key = $2 AND created_at > $3",
);

pub(super) async fn find_first_answer(
    store: &Connections,
    user: UserId,
    key: &IdempotencyKey,
    since: Timestamp,
) -> Result<Option<FirstAnswer>, StatementError> {
    let row = store
        .row(&FIND_FIRST_ANSWER, &[&user.0, &key.as_str(), &Utc(since)])
        .await?;
    let Some(row) = row else { return Ok(None) };
    let fingerprint: &[u8] = row.try_get(0)?;
    let Utc(created_at) = row.try_get(1)?;
    Ok(Some(FirstAnswer {
        fingerprint: fingerprint
            .try_into()
            .map_err(|_| StatementError::failed("a fingerprint is of another length"))?,
        article: Article {
            id: ArticleId(row.try_get(2)?),
            slug: row.try_get(3)?,
            title: row.try_get(4)?,
            description: row.try_get(5)?,
            body: row.try_get(6)?,
            author: Author {
                id: user,
                email: row.try_get(7)?,
                name: row.try_get(8)?,
            },
            favorites_count: 0,
            favorited: false,
            created_at,
            updated_at: created_at,
        },
    }))
}

/// The time is asked for twice: a key may be claimed anew between being found and being deleted.
const PURGE_IDEMPOTENCY_KEYS: Statement = Statement::new(
    "DELETE",
    "idempotency_keys",
    "DELETE idempotency_keys",
    "
        DELETE FROM idempotency_keys
        WHERE (user_id, key) IN (
                SELECT user_id, key
                FROM idempotency_keys
                WHERE created_at <= $1
                ORDER BY created_at
                LIMIT $2
            )
            AND created_at <= $1",
);

pub(super) async fn purge_idempotency_keys(
    store: &Connections,
    before: Timestamp,
    limit: i64,
) -> Result<u64, StatementError> {
    store
        .sweep(&PURGE_IDEMPOTENCY_KEYS, &[&Utc(before), &limit])
        .await
}
