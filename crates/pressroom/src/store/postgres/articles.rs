//! Articles and their favourites, each change together with its outbox row or its count.
//!
//! Whoever changes favourites locks the article first and then the favourite: one order for all,
//! so nobody can deadlock, and the count moves only with a row that was really added or removed.

use jiff::Timestamp;
use telemetry::Statement;
use tokio_postgres::Row;

use super::{connections::Connections, error::StatementError, outbox, value::Utc};
use crate::{
    accounts::UserId,
    articles::{Article, ArticleChanges, ArticleId, Author, NewArticle, Precondition},
    tasks::NewOutboxTask,
};

/// The columns of an [`Article`] but its last, `favorited`, in the order that [`article`] reads
/// them: of a row called `article` and its author, called `author`.
macro_rules! article_columns {
    () => {
        "article.id, article.slug, article.title, article.description, article.body,
        article.favorites_count, article.created_at, article.updated_at,
        author.id, author.email, author.name"
    };
}
pub(super) use article_columns;

/// An article from [`article_columns`] and `favorited`.
pub(super) fn article(row: &Row) -> Result<Article, StatementError> {
    let Utc(created_at) = row.try_get(6)?;
    let Utc(updated_at) = row.try_get(7)?;
    Ok(Article {
        id: ArticleId(row.try_get(0)?),
        slug: row.try_get(1)?,
        title: row.try_get(2)?,
        description: row.try_get(3)?,
        body: row.try_get(4)?,
        author: Author {
            id: UserId(row.try_get(8)?),
            email: row.try_get(9)?,
            name: row.try_get(10)?,
        },
        favorites_count: row.try_get(5)?,
        favorited: row.try_get(11)?,
        created_at,
        updated_at,
    })
}

fn optional(row: Option<&Row>) -> Result<Option<Article>, StatementError> {
    row.map(article).transpose()
}

const INSERT_ARTICLE: Statement = Statement::new(
    "INSERT",
    "articles",
    "INSERT articles",
    concat!(
        "
        WITH article AS (
            INSERT INTO articles
                (slug, title, description, body, author_id, favorites_count, created_at, updated_at)
            VALUES ($1, $2, $3, $4, $5, 0, $6, $6)
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

pub(super) async fn insert_article(
    store: &Connections,
    new: &NewArticle,
    task: &NewOutboxTask,
) -> Result<Article, StatementError> {
    let row = store
        .row(
            &INSERT_ARTICLE,
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
            ],
        )
        .await?;
    match row {
        Some(row) => article(&row),
        None => Err(StatementError::failed("an inserted article gave no row")),
    }
}

const FIND_ARTICLE: Statement = Statement::new(
    "SELECT",
    "articles",
    "SELECT articles",
    concat!(
        "SELECT ",
        article_columns!(),
        ",
            EXISTS (SELECT FROM favorites WHERE article_id = article.id AND user_id = $2)
        FROM articles AS article
        JOIN users AS author ON author.id = article.author_id
        WHERE article.slug = $1",
    ),
);

pub(super) async fn find_article(
    store: &Connections,
    slug: &str,
    viewer: Option<UserId>,
) -> Result<Option<Article>, StatementError> {
    let viewer = viewer.map(|viewer| viewer.0);
    optional(store.row(&FIND_ARTICLE, &[&slug, &viewer]).await?.as_ref())
}

const FIND_ARTICLE_BY_ID: Statement = Statement::new(
    "SELECT",
    "articles",
    "SELECT articles",
    concat!(
        "SELECT ",
        article_columns!(),
        ", false
        FROM articles AS article
        JOIN users AS author ON author.id = article.author_id
        WHERE article.id = $1",
    ),
);

pub(super) async fn find_article_by_id(
    store: &Connections,
    id: ArticleId,
) -> Result<Option<Article>, StatementError> {
    optional(store.row(&FIND_ARTICLE_BY_ID, &[&id.0]).await?.as_ref())
}

/// The versions of a [`Precondition`], as parameters.
fn versions(list: &[Timestamp]) -> Vec<Utc> {
    list.iter().copied().map(Utc).collect()
}

/// Who waits for another update of the row looks at its new version again before changing it.
const UPDATE_ARTICLE: Statement = Statement::new(
    "UPDATE",
    "articles",
    "UPDATE articles",
    concat!(
        "
        WITH article AS (
            UPDATE articles
            SET title = COALESCE($2::text, title),
                description = COALESCE($3::text, description),
                body = COALESCE($4::text, body),
                updated_at = GREATEST($9, updated_at + interval '1 microsecond')
            WHERE id = $1
                AND ($11::timestamp[] IS NULL OR updated_at = ANY ($11))
                AND updated_at <> ALL ($12)
            RETURNING *
        ), task AS (
            INSERT INTO outbox (task_id, name, args, trace, created_at, claimable_at)
            SELECT $5, $6, jsonb_build_array(article.id, $7::text), $8, $9, $9
            FROM article
        )
        SELECT ",
        article_columns!(),
        ",
            EXISTS (SELECT FROM favorites WHERE article_id = article.id AND user_id = $10)
        FROM article
        JOIN users AS author ON author.id = article.author_id",
    ),
);

pub(super) async fn update_article(
    store: &Connections,
    id: ArticleId,
    changes: &ArticleChanges,
    precondition: &Precondition,
    viewer: UserId,
    task: &NewOutboxTask,
) -> Result<Option<Article>, StatementError> {
    let row = store
        .row(
            &UPDATE_ARTICLE,
            &[
                &id.0,
                &changes.title,
                &changes.description,
                &changes.body,
                &task.task_id,
                &outbox::TASK_NAME,
                &task.event.as_str(),
                &outbox::trace_column(&task.trace),
                &Utc(task.created_at),
                &viewer.0,
                &precondition.one_of.as_deref().map(versions),
                &versions(&precondition.none_of),
            ],
        )
        .await?;
    optional(row.as_ref())
}

/// Nobody but the holder of the lock changes what is deleted or not deleted below.
const LOCK_ARTICLE: Statement = Statement::new(
    "SELECT",
    "articles",
    "SELECT articles",
    "SELECT FROM articles WHERE id = $1 FOR UPDATE",
);

const DELETE_FAVORITES: Statement = Statement::new(
    "DELETE",
    "favorites",
    "DELETE favorites",
    "
        DELETE FROM favorites
        USING articles
        WHERE favorites.article_id = $1
            AND articles.id = $1
            AND ($2::timestamp[] IS NULL OR articles.updated_at = ANY ($2))
            AND articles.updated_at <> ALL ($3)",
);

const DELETE_ARTICLE: Statement = Statement::new(
    "DELETE",
    "articles",
    "DELETE articles",
    "
        DELETE FROM articles
        WHERE id = $1
            AND ($2::timestamp[] IS NULL OR updated_at = ANY ($2))
            AND updated_at <> ALL ($3)
        RETURNING id",
);

/// Three statements rather than one: each sees what was committed before it began, so a favourite
/// that came in while the lock was waited for is seen, and deleted too.
pub(super) async fn delete_article(
    store: &Connections,
    id: ArticleId,
    precondition: &Precondition,
) -> Result<bool, StatementError> {
    let one_of = precondition.one_of.as_deref().map(versions);
    let none_of = versions(&precondition.none_of);
    let allowed: super::Params<'_> = &[&id.0, &one_of, &none_of];
    let gone = store
        .transaction(
            &[(&LOCK_ARTICLE, &[&id.0]), (&DELETE_FAVORITES, allowed)],
            (&DELETE_ARTICLE, allowed),
        )
        .await?;
    Ok(!gone.is_empty())
}

const FAVORITE: Statement = Statement::new(
    "INSERT",
    "favorites",
    "INSERT favorites",
    concat!(
        "
        WITH locked AS MATERIALIZED (
            SELECT * FROM articles WHERE slug = $1 FOR NO KEY UPDATE
        ), added AS (
            INSERT INTO favorites (user_id, article_id, created_at)
            SELECT $2, locked.id, $3 FROM locked
            ON CONFLICT ON CONSTRAINT uq_user_article_favorite DO NOTHING
            RETURNING article_id
        ), counted AS (
            UPDATE articles
            SET favorites_count = articles.favorites_count + 1
            FROM added
            WHERE articles.id = added.article_id
            RETURNING articles.id, articles.favorites_count
        ), article AS (
            SELECT locked.id, slug, title, description, body, author_id, created_at, updated_at,
                COALESCE(counted.favorites_count, locked.favorites_count) AS favorites_count
            FROM locked
            LEFT JOIN counted ON counted.id = locked.id
        )
        SELECT ",
        article_columns!(),
        ", true
        FROM article
        JOIN users AS author ON author.id = article.author_id",
    ),
);

pub(super) async fn favorite(
    store: &Connections,
    slug: &str,
    user: UserId,
    now: Timestamp,
) -> Result<Option<Article>, StatementError> {
    optional(store.row(&FAVORITE, &[&slug, &user.0, &Utc(now)]).await?.as_ref())
}

const UNFAVORITE: Statement = Statement::new(
    "DELETE",
    "favorites",
    "DELETE favorites",
    concat!(
        "
        WITH locked AS MATERIALIZED (
            SELECT * FROM articles WHERE slug = $1 FOR NO KEY UPDATE
        ), removed AS (
            DELETE FROM favorites
            USING locked
            WHERE favorites.article_id = locked.id AND favorites.user_id = $2
            RETURNING favorites.article_id
        ), counted AS (
            UPDATE articles
            SET favorites_count = articles.favorites_count - 1
            FROM removed
            WHERE articles.id = removed.article_id
            RETURNING articles.id, articles.favorites_count
        ), article AS (
            SELECT locked.id, slug, title, description, body, author_id, created_at, updated_at,
                COALESCE(counted.favorites_count, locked.favorites_count) AS favorites_count
            FROM locked
            LEFT JOIN counted ON counted.id = locked.id
        )
        SELECT ",
        article_columns!(),
        ", false
        FROM article
        JOIN users AS author ON author.id = article.author_id",
    ),
);

pub(super) async fn unfavorite(
    store: &Connections,
    slug: &str,
    user: UserId,
) -> Result<Option<Article>, StatementError> {
    optional(store.row(&UNFAVORITE, &[&slug, &user.0]).await?.as_ref())
}
