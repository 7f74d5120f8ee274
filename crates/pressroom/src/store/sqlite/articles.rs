//! Articles, their favourites and idempotency keys. An article and its outbox row are written in one transaction.

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::params;
use telemetry::Statement;

use super::{SqliteStore, connections::Transaction, error::StatementError, list, outbox, value::folded};
use crate::{
    domain::{
        Article, ArticleChanges, ArticleId, ArticlePage, IdempotencyKey, IdempotentRequest, ListQuery,
        NewArticle, NewOutboxTask, Precondition, StoredResponse, UserId,
    },
    store::{
        ArticleStore, Constraint, Result, StoreError,
        rows::{self, Utc},
        sql::{FIND_ARTICLE, FIND_ARTICLE_BY_ID, FIND_STORED_RESPONSE, statement},
    },
};

const INSERT_ARTICLE: Statement = statement!(
    "INSERT articles",
    "
        INSERT INTO articles
            (slug, title, title_folded, description, body, author_id, favorites_count, created_at,
            updated_at)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7, ?7)
        RETURNING id",
);

/// Replaces an expired key.
const STORE_RESPONSE: Statement = statement!(
    "INSERT idempotency_keys",
    "
        INSERT OR REPLACE INTO idempotency_keys
            (user_id, key, fingerprint, created_at, article_id, slug, title, description, body,
            author_email, author_name)
        SELECT author.id, ?2, ?3, article.created_at, article.id, article.slug, article.title,
            article.description, article.body, author.email, author.name
        FROM articles AS article
        JOIN users AS author ON author.id = article.author_id
        WHERE article.id = ?1",
);

const PURGE_IDEMPOTENCY_KEYS: Statement = statement!(
    "DELETE idempotency_keys",
    "
        DELETE FROM idempotency_keys
        WHERE rowid IN (
            SELECT rowid FROM idempotency_keys WHERE created_at <= ?1 ORDER BY created_at LIMIT ?2
        )",
);

const FIND_VERSION: Statement =
    statement!("SELECT articles", "SELECT updated_at FROM articles WHERE id = ?1",);

const UPDATE_ARTICLE: Statement = statement!(
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

const DELETE_FAVORITES: Statement =
    statement!("DELETE favorites", "DELETE FROM favorites WHERE article_id = ?1",);

const DELETE_ARTICLE: Statement = statement!("DELETE articles", "DELETE FROM articles WHERE id = ?1",);

const FIND_ARTICLE_ID: Statement = statement!("SELECT articles", "SELECT id FROM articles WHERE slug = ?1",);

const ADD_FAVORITE: Statement = statement!(
    "INSERT favorites",
    "
        INSERT INTO favorites (user_id, article_id, created_at) VALUES (?1, ?2, ?3)
        ON CONFLICT DO NOTHING",
);

const REMOVE_FAVORITE: Statement = statement!(
    "DELETE favorites",
    "DELETE FROM favorites WHERE user_id = ?1 AND article_id = ?2",
);

const COUNT_FAVORITE: Statement = statement!(
    "UPDATE articles",
    "UPDATE articles SET favorites_count = favorites_count + ?2 WHERE id = ?1",
);

#[async_trait]
impl ArticleStore for SqliteStore {
    async fn insert_article(&self, new: NewArticle, task: NewOutboxTask) -> Result<Article> {
        let inserted = self.write(&INSERT_ARTICLE, move |db| insert(db, &new, &task));
        inserted.await?.ok_or_else(StoreError::no_row)
    }

    async fn insert_article_once(
        &self,
        new: NewArticle,
        once: &IdempotentRequest,
        task: NewOutboxTask,
    ) -> Result<Article> {
        let once = once.clone();
        let inserted = self.write(&INSERT_ARTICLE, move |db| {
            let key = params![new.author.0, once.key.as_str(), Utc(once.since)];
            if db.row(&FIND_STORED_RESPONSE, key, |_| Ok(()))?.is_some() {
                return Ok(None);
            }
            let article = insert(db, &new, &task)?;
            if let Some(article) = &article {
                let params = params![article.id.0, once.key.as_str(), once.fingerprint];
                db.execute(&STORE_RESPONSE, params)?;
            }
            Ok(article)
        });
        inserted
            .await?
            .ok_or(StoreError::Conflict(Constraint::IdempotencyKey))
    }

    async fn find_stored_response(
        &self,
        user: UserId,
        key: &IdempotencyKey,
        since: Timestamp,
    ) -> Result<Option<StoredResponse>> {
        let params = (user.0, key.as_str().to_owned(), Utc(since));
        self.row(&FIND_STORED_RESPONSE, params, |row| rows::stored_response(row))
            .await
    }

    async fn purge_idempotency_keys(&self, before: Timestamp, limit: i64) -> Result<u64> {
        self.execute(&PURGE_IDEMPOTENCY_KEYS, (Utc(before), limit)).await
    }

    async fn find_article(&self, slug: &str, viewer: Option<UserId>) -> Result<Option<Article>> {
        let params = (viewer.map(|viewer| viewer.0), slug.to_owned());
        self.row(&FIND_ARTICLE, params, |row| rows::article(row)).await
    }

    async fn find_article_by_id(&self, id: ArticleId) -> Result<Option<Article>> {
        self.read(&FIND_ARTICLE_BY_ID, move |db| find_as_seen(db, id.0, None))
            .await
    }

    async fn list_articles(&self, query: ListQuery) -> Result<ArticlePage> {
        list::list_articles(self, query).await
    }

    /// Returns zero: the article count is a single row.
    async fn fold_article_count(&self, _limit: i64) -> Result<u64> {
        Ok(0)
    }

    async fn update_article(
        &self,
        id: ArticleId,
        changes: ArticleChanges,
        precondition: Precondition,
        viewer: UserId,
        task: NewOutboxTask,
    ) -> Result<Option<Article>> {
        self.write(&UPDATE_ARTICLE, move |db| {
            let current = find_as_seen(db, id.0, None)?;
            let Some(current) = current.filter(|article| precondition.holds(article.updated_at)) else {
                return Ok(None);
            };
            let params = params![
                id.0,
                changes.title,
                changes.title.as_deref().map(folded),
                changes.description,
                changes.body,
                Utc(task.created_at),
            ];
            db.execute(&UPDATE_ARTICLE, params)?;
            if changes.alter(&current) {
                outbox::insert(db, &task, id.0)?;
            }
            find_as_seen(db, id.0, Some(viewer))
        })
        .await
    }

    async fn delete_article(&self, id: ArticleId, precondition: Precondition) -> Result<bool> {
        self.write(&DELETE_ARTICLE, move |db| {
            if !may_change(db, id.0, &precondition)? {
                return Ok(false);
            }
            db.execute(&DELETE_FAVORITES, [id.0])?;
            Ok(db.execute(&DELETE_ARTICLE, [id.0])? > 0)
        })
        .await
    }

    async fn favorite(&self, slug: &str, user: UserId, now: Timestamp) -> Result<Option<Article>> {
        let slug = slug.to_owned();
        self.write(&ADD_FAVORITE, move |db| {
            change_favorite(db, &slug, user, 1, |id| {
                db.execute(&ADD_FAVORITE, params![user.0, id, Utc(now)])
            })
        })
        .await
    }

    async fn unfavorite(&self, slug: &str, user: UserId) -> Result<Option<Article>> {
        let slug = slug.to_owned();
        self.write(&REMOVE_FAVORITE, move |db| {
            change_favorite(db, &slug, user, -1, |id| {
                db.execute(&REMOVE_FAVORITE, params![user.0, id])
            })
        })
        .await
    }
}

/// Inserts an article and its task.
fn insert(
    db: &Transaction<'_>,
    new: &NewArticle,
    task: &NewOutboxTask,
) -> Result<Option<Article>, StatementError> {
    let params = params![
        new.slug,
        new.draft.title,
        folded(&new.draft.title),
        new.draft.description,
        new.draft.body,
        new.author.0,
        Utc(new.created_at),
    ];
    let Some(id) = db.row(&INSERT_ARTICLE, params, |row| row.get(0))? else {
        return Ok(None);
    };
    outbox::insert(db, task, id)?;
    find_as_seen(db, id, None)
}

/// Finds the article as `viewer` sees it, including changes by this transaction.
fn find_as_seen(
    db: &Transaction<'_>,
    id: i32,
    viewer: Option<UserId>,
) -> Result<Option<Article>, StatementError> {
    let params = params![viewer.map(|viewer| viewer.0), id];
    db.row(&FIND_ARTICLE_BY_ID, params, |row| rows::article(row))
}

/// Returns whether the article exists and `precondition` allows its version. No other transaction can write
/// until this one ends.
fn may_change(db: &Transaction<'_>, id: i32, precondition: &Precondition) -> Result<bool, StatementError> {
    let version = db.row(&FIND_VERSION, [id], |row| row.get(0))?;
    Ok(version.is_some_and(|Utc(version)| precondition.holds(version)))
}

/// Changes a favourite with `change`, which returns the number of changed rows. If that is not zero, changes
/// the number of favourites by `by`.
fn change_favorite(
    db: &Transaction<'_>,
    slug: &str,
    user: UserId,
    by: i32,
    change: impl FnOnce(i32) -> Result<usize, StatementError>,
) -> Result<Option<Article>, StatementError> {
    let Some(id) = db.row(&FIND_ARTICLE_ID, [slug], |row| row.get(0))? else {
        return Ok(None);
    };
    if change(id)? > 0 {
        db.execute(&COUNT_FAVORITE, params![id, by])?;
    }
    find_as_seen(db, id, Some(user))
}
