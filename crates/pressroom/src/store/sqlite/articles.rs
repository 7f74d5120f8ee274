//! Articles and their favourites, each change together with its outbox row or its count.

use jiff::Timestamp;
use rusqlite::{Row, params};
use telemetry::Statement;

use super::{
    connections::{Connections, Moment},
    error::StatementError,
    outbox,
    value::{Utc, folded},
};
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
pub(super) fn article(row: &Row<'_>) -> rusqlite::Result<Article> {
    let Utc(created_at) = row.get(6)?;
    let Utc(updated_at) = row.get(7)?;
    Ok(Article {
        id: ArticleId(row.get(0)?),
        slug: row.get(1)?,
        title: row.get(2)?,
        description: row.get(3)?,
        body: row.get(4)?,
        author: Author {
            id: UserId(row.get(8)?),
            email: row.get(9)?,
            name: row.get(10)?,
        },
        favorites_count: row.get(5)?,
        favorited: row.get(11)?,
        created_at,
        updated_at,
    })
}

const FIND_ARTICLE: Statement = Statement::new(
    "SELECT",
    "articles",
    "SELECT articles",
    concat!(
        "SELECT ",
        article_columns!(),
        ",
            EXISTS (SELECT 1 FROM favorites WHERE article_id = article.id AND user_id = ?2)
        FROM articles AS article
        JOIN users AS author ON author.id = article.author_id
        WHERE article.slug = ?1",
    ),
);

pub(super) async fn find_article(
    store: &Connections,
    slug: String,
    viewer: Option<UserId>,
) -> Result<Option<Article>, StatementError> {
    let found = store.read(&FIND_ARTICLE, move |db| {
        let params = params![slug, viewer.map(|viewer| viewer.0)];
        db.row(&FIND_ARTICLE, params, article)
    });
    found.await
}

const FIND_ARTICLE_BY_ID: Statement = Statement::new(
    "SELECT",
    "articles",
    "SELECT articles",
    concat!(
        "SELECT ",
        article_columns!(),
        ",
            EXISTS (SELECT 1 FROM favorites WHERE article_id = article.id AND user_id = ?2)
        FROM articles AS article
        JOIN users AS author ON author.id = article.author_id
        WHERE article.id = ?1",
    ),
);

/// The article as `viewer` sees it, within a transaction that may have changed it.
fn seen(db: &Moment<'_>, id: i32, viewer: Option<i32>) -> Result<Option<Article>, StatementError> {
    db.row(&FIND_ARTICLE_BY_ID, params![id, viewer], article)
}

pub(super) async fn find_article_by_id(
    store: &Connections,
    id: ArticleId,
) -> Result<Option<Article>, StatementError> {
    store
        .read(&FIND_ARTICLE_BY_ID, move |db| seen(db, id.0, None))
        .await
}

pub(super) const INSERT_ARTICLE: Statement = Statement::new(
    "INSERT",
    "articles",
    "INSERT articles",
    "
        INSERT INTO articles
            (slug, title, title_folded, description, body, author_id, favorites_count, created_at,
            updated_at)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7, ?7)
        RETURNING id",
);

/// Inserts an article and its task, within a transaction.
pub(super) fn insert(
    db: &Moment<'_>,
    new: &NewArticle,
    task: &NewOutboxTask,
) -> Result<Article, StatementError> {
    let params = params![
        new.slug,
        new.title,
        folded(&new.title),
        new.description,
        new.body,
        new.author.0,
        Utc(new.created_at),
    ];
    let lost = || StatementError::failed("an inserted article gave no row");
    let id = db
        .row(&INSERT_ARTICLE, params, |row| row.get(0))?
        .ok_or_else(lost)?;
    outbox::insert(db, task, id)?;
    seen(db, id, None)?.ok_or_else(lost)
}

pub(super) async fn insert_article(
    store: &Connections,
    new: NewArticle,
    task: NewOutboxTask,
) -> Result<Article, StatementError> {
    let inserted = store.write(&INSERT_ARTICLE, move |db| Ok(Some(insert(db, &new, &task)?)));
    inserted
        .await?
        .ok_or_else(|| StatementError::failed("an inserted article gave no row"))
}

const FIND_VERSION: Statement = Statement::new(
    "SELECT",
    "articles",
    "SELECT articles",
    "SELECT updated_at FROM articles WHERE id = ?1",
);

/// Whether the article is there, in a version that `precondition` allows: nobody else writes until
/// the transaction ends.
fn may_change(db: &Moment<'_>, id: i32, precondition: &Precondition) -> Result<bool, StatementError> {
    let version = db.row(&FIND_VERSION, [id], |row| row.get(0))?;
    Ok(version.is_some_and(|Utc(version)| precondition.holds(version)))
}

const UPDATE_ARTICLE: Statement = Statement::new(
    "UPDATE",
    "articles",
    "UPDATE articles",
    "
        UPDATE articles
        SET title = coalesce(?2, title),
            title_folded = coalesce(?3, title_folded),
            description = coalesce(?4, description),
            body = coalesce(?5, body),
            updated_at = max(?6, updated_at + 1)
        WHERE id = ?1",
);

pub(super) async fn update_article(
    store: &Connections,
    id: ArticleId,
    changes: ArticleChanges,
    precondition: Precondition,
    viewer: UserId,
    task: NewOutboxTask,
) -> Result<Option<Article>, StatementError> {
    let updated = store.write(&UPDATE_ARTICLE, move |db| {
        if !may_change(db, id.0, &precondition)? {
            return Ok(None);
        }
        let params = params![
            id.0,
            changes.title,
            changes.title.as_deref().map(folded),
            changes.description,
            changes.body,
            Utc(task.created_at),
        ];
        db.execute(&UPDATE_ARTICLE, params)?;
        outbox::insert(db, &task, id.0)?;
        seen(db, id.0, Some(viewer.0))
    });
    updated.await
}

const DELETE_FAVORITES: Statement = Statement::new(
    "DELETE",
    "favorites",
    "DELETE favorites",
    "DELETE FROM favorites WHERE article_id = ?1",
);

const DELETE_ARTICLE: Statement = Statement::new(
    "DELETE",
    "articles",
    "DELETE articles",
    "DELETE FROM articles WHERE id = ?1",
);

pub(super) async fn delete_article(
    store: &Connections,
    id: ArticleId,
    precondition: Precondition,
) -> Result<bool, StatementError> {
    let deleted = store.write(&DELETE_ARTICLE, move |db| {
        if !may_change(db, id.0, &precondition)? {
            return Ok(false);
        }
        db.execute(&DELETE_FAVORITES, [id.0])?;
        Ok(db.execute(&DELETE_ARTICLE, [id.0])? > 0)
    });
    deleted.await
}

const FIND_ARTICLE_ID: Statement = Statement::new(
    "SELECT",
    "articles",
    "SELECT articles",
    "SELECT id FROM articles WHERE slug = ?1",
);

const ADD_FAVORITE: Statement = Statement::new(
    "INSERT",
    "favorites",
    "INSERT favorites",
    "
        INSERT INTO favorites (user_id, article_id, created_at) VALUES (?1, ?2, ?3)
        ON CONFLICT DO NOTHING",
);

const REMOVE_FAVORITE: Statement = Statement::new(
    "DELETE",
    "favorites",
    "DELETE favorites",
    "DELETE FROM favorites WHERE user_id = ?1 AND article_id = ?2",
);

const COUNT_FAVORITE: Statement = Statement::new(
    "UPDATE",
    "articles",
    "UPDATE articles",
    "UPDATE articles SET favorites_count = favorites_count + ?2 WHERE id = ?1",
);

pub(super) async fn favorite(
    store: &Connections,
    slug: String,
    user: UserId,
    now: Timestamp,
) -> Result<Option<Article>, StatementError> {
    let favorited = store.write(&ADD_FAVORITE, move |db| {
        let Some(id) = find_id(db, &slug)? else {
            return Ok(None);
        };
        if db.execute(&ADD_FAVORITE, params![user.0, id, Utc(now)])? > 0 {
            db.execute(&COUNT_FAVORITE, params![id, 1])?;
        }
        seen(db, id, Some(user.0))
    });
    favorited.await
}

pub(super) async fn unfavorite(
    store: &Connections,
    slug: String,
    user: UserId,
) -> Result<Option<Article>, StatementError> {
    let unfavorited = store.write(&REMOVE_FAVORITE, move |db| {
        let Some(id) = find_id(db, &slug)? else {
            return Ok(None);
        };
        if db.execute(&REMOVE_FAVORITE, params![user.0, id])? > 0 {
            db.execute(&COUNT_FAVORITE, params![id, -1])?;
        }
        seen(db, id, Some(user.0))
    });
    unfavorited.await
}

fn find_id(db: &Moment<'_>, slug: &str) -> Result<Option<i32>, StatementError> {
    db.row(&FIND_ARTICLE_ID, [slug], |row| row.get(0))
}
