//! Articles, their favourites and idempotency keys. An article and its outbox row are written in one transaction.
//!
//! All statements that change favourites lock the article before the favourite, so they cannot deadlock, and
//! change the count only if a row was added or removed.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use telemetry::Statement;

use super::{
    PostgresStore,
    calls::{FindArticle, InsertArticle, select_article},
    connections::{Connections, Params},
    error::StatementError,
    list, replica,
};
use crate::{
    domain::{
        Article, ArticleChanges, ArticleId, ArticlePage, IdempotencyKey, IdempotentRequest, ListQuery,
        NewArticle, NewOutboxTask, Precondition, StoredResponse, UserId,
    },
    store::{
        ArticleStore, Constraint, Result, StoreError,
        rows::{self, Utc},
        sql::{FIND_ARTICLE, FIND_STORED_RESPONSE, article_columns, find_article, statement},
    },
};

/// Selects an article, without its body if that is large.
const FIND_ARTICLE_UNLESS_LARGE: Statement = find_article!(
    "article.slug = $2",
    "CASE WHEN octet_length(article.body) <= 65536 THEN article.body END AS body,
            octet_length(article.body) > 65536 AS is_large"
);

/// Inserts the task `$7` to `$11` of a row named `article` if it meets `$condition`, and selects the article.
macro_rules! insert_task {
    ($condition:literal, $favorited:literal) => {
        concat!(
            "
        ), task AS (
            INSERT INTO outbox (task_id, name, args, trace, created_at, claimable_at)
            SELECT $7, $8, jsonb_build_array(article.id, $9::text), $10, $11, $11
            FROM article
            WHERE ",
            $condition,
            "
        )
        ",
            select_article!($favorited)
        )
    };
}

/// Claims the key and inserts the article in one statement, which also replaces an expired key.
///
/// If two such statements run concurrently, the second waits until the first commits, and then inserts
/// nothing. The article's id is generated first because both rows contain it.
const INSERT_ARTICLE_ONCE: Statement = statement!(
    "INSERT articles",
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
            RETURNING *",
    insert_task!("true", "false"),
);

/// Compares the time twice, because a key may be replaced after it was found and before it is deleted.
const PURGE_IDEMPOTENCY_KEYS: Statement = statement!(
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

/// Locks the article, compares it with the changes, and updates it. An update that waited for another update checks
/// the conditions again, on the new version of the row.
const UPDATE_ARTICLE: Statement = statement!(
    "UPDATE articles",
    "
        WITH held AS MATERIALIZED (
            SELECT id, title, description, body
            FROM articles
            WHERE id = $1
                AND ($6::timestamp[] IS NULL OR updated_at = ANY ($6))
                AND updated_at <> ALL ($12)
            FOR NO KEY UPDATE
        ), article AS (
            UPDATE articles
            SET title = COALESCE($2::text, held.title),
                description = COALESCE($3::text, held.description),
                body = COALESCE($4::text, held.body),
                updated_at = GREATEST($11, updated_at + interval '1 microsecond')
            FROM held
            WHERE articles.id = held.id
            RETURNING articles.*,
                (articles.title, articles.description, articles.body)
                    IS DISTINCT FROM (held.title, held.description, held.body) AS is_altered",
    insert_task!(
        "article.is_altered",
        "EXISTS (SELECT FROM favorites WHERE article_id = article.id AND user_id = $5)"
    ),
);

/// Prevents other transactions from changing the article until it is deleted.
const LOCK_ARTICLE: Statement =
    statement!("SELECT articles", "SELECT FROM articles WHERE id = $1 FOR UPDATE",);

const DELETE_FAVORITES: Statement = statement!(
    "DELETE favorites",
    "
        DELETE FROM favorites
        USING articles
        WHERE favorites.article_id = $1
            AND articles.id = $1
            AND ($2::timestamp[] IS NULL OR articles.updated_at = ANY ($2))
            AND articles.updated_at <> ALL ($3)",
);

const DELETE_ARTICLE: Statement = statement!(
    "DELETE articles",
    "
        DELETE FROM articles
        WHERE id = $1
            AND ($2::timestamp[] IS NULL OR updated_at = ANY ($2))
            AND updated_at <> ALL ($3)
        RETURNING id",
);

/// Changes a favourite with `$change` and, if that returns a row, changes the number of favourites by `$by`.
macro_rules! change_favorite {
    ($summary:literal, $change:literal, $by:literal, $favorited:literal) => {
        statement!(
            $summary,
            "
        WITH locked AS MATERIALIZED (
            SELECT * FROM articles WHERE slug = $1 FOR NO KEY UPDATE
        ), changed AS (",
            $change,
            "
        ), counted AS (
            UPDATE articles
            SET favorites_count = articles.favorites_count ",
            $by,
            "
            FROM changed
            WHERE articles.id = changed.article_id
            RETURNING articles.id, articles.favorites_count
        ), article AS (
            SELECT locked.id, slug, title, description, body, author_id, created_at, updated_at,
                COALESCE(counted.favorites_count, locked.favorites_count) AS favorites_count
            FROM locked
            LEFT JOIN counted ON counted.id = locked.id
        )
        ",
            select_article!($favorited),
        )
    };
}

const FAVORITE: Statement = change_favorite!(
    "INSERT favorites",
    "
            INSERT INTO favorites (user_id, article_id, created_at)
            SELECT $2, locked.id, $3 FROM locked
            ON CONFLICT ON CONSTRAINT uq_user_article_favorite DO NOTHING
            RETURNING article_id",
    "+ 1",
    "true"
);

const UNFAVORITE: Statement = change_favorite!(
    "DELETE favorites",
    "
            DELETE FROM favorites
            USING locked
            WHERE favorites.article_id = locked.id AND favorites.user_id = $2
            RETURNING favorites.article_id",
    "- 1",
    "false"
);

#[async_trait]
impl ArticleStore for PostgresStore {
    async fn insert_article(&self, new: NewArticle, task: NewOutboxTask) -> Result<Article> {
        let call = InsertArticle(Arc::new((new, task)));
        let inserted = self.groups.inserted_articles.run(&self.primary, call).await?;
        inserted.ok_or(StoreError::Conflict(Constraint::ArticleSlug))
    }

    async fn insert_article_once(
        &self,
        new: NewArticle,
        once: &IdempotentRequest,
        task: NewOutboxTask,
    ) -> Result<Article> {
        let params: Params<'_> = &[
            &new.slug,
            &new.draft.title,
            &new.draft.description,
            &new.draft.body,
            &new.author.0,
            &Utc(new.created_at),
            &task.task_id,
            &task.name,
            &task.event.as_str(),
            &rows::trace_column(&task.trace),
            &Utc(task.created_at),
            &once.key.as_str(),
            &once.fingerprint.as_slice(),
            &Utc(once.since),
        ];
        let inserted = self
            .primary
            .write(new.author.0, &INSERT_ARTICLE_ONCE, params)
            .await?;
        let inserted = inserted.first(rows::article)?;
        inserted.ok_or(StoreError::Conflict(Constraint::IdempotencyKey))
    }

    async fn find_stored_response(
        &self,
        user: UserId,
        key: &IdempotencyKey,
        since: Timestamp,
    ) -> Result<Option<StoredResponse>> {
        let params: Params<'_> = &[&user.0, &key.as_str(), &Utc(since)];
        let found = self.primary.read_large(&FIND_STORED_RESPONSE, params).await?;
        Ok(found.first(rows::stored_response)?)
    }

    async fn purge_idempotency_keys(&self, before: Timestamp, limit: i64) -> Result<u64> {
        let params: Params<'_> = &[&Utc(before), &limit];
        Ok(self
            .primary
            .maintain(&PURGE_IDEMPOTENCY_KEYS, params)
            .await?
            .affected)
    }

    async fn find_article(&self, slug: &str, viewer: Option<UserId>) -> Result<Option<Article>> {
        if let Some(replica) = self.replica_for(viewer)
            && let Some(found) = Box::pin(replica::short_read(find_article(replica, slug, None))).await
            && let Some(article) = found?
        {
            return Ok(Some(article));
        }
        Ok(find_article(&self.primary, slug, viewer).await?)
    }

    async fn find_article_by_id(&self, id: ArticleId) -> Result<Option<Article>> {
        Ok(self
            .groups
            .found_articles
            .run(&self.primary, FindArticle(id))
            .await?)
    }

    async fn list_articles(&self, query: ListQuery) -> Result<ArticlePage> {
        if let Some(replica) = self.replica_for(query.viewer)
            && let Some(page) = replica::final_result(
                Box::pin(list::list_articles(replica, &self.search_totals, &query)).await,
            )
        {
            return Ok(page?);
        }
        Ok(list::list_articles(&self.primary, &self.search_totals, &query).await?)
    }

    async fn fold_article_count(&self, limit: i64) -> Result<u64> {
        Ok(list::fold_count(&self.primary, limit).await?)
    }

    async fn update_article(
        &self,
        id: ArticleId,
        changes: ArticleChanges,
        precondition: Precondition,
        viewer: UserId,
        task: NewOutboxTask,
    ) -> Result<Option<Article>> {
        let params: Params<'_> = &[
            &id.0,
            &changes.title,
            &changes.description,
            &changes.body,
            &viewer.0,
            &precondition.one_of.as_deref().map(versions),
            &task.task_id,
            &task.name,
            &task.event.as_str(),
            &rows::trace_column(&task.trace),
            &Utc(task.created_at),
            &versions(&precondition.none_of),
        ];
        let updated = self.primary.write(id.0, &UPDATE_ARTICLE, params).await?;
        Ok(updated.first(rows::article)?)
    }

    /// Runs three statements instead of one, because each sees everything committed before it started: a
    /// favourite that is added while the first statement waits for the lock is also deleted.
    async fn delete_article(&self, id: ArticleId, precondition: Precondition) -> Result<bool> {
        let one_of = precondition.one_of.as_deref().map(versions);
        let none_of = versions(&precondition.none_of);
        let allowed: Params<'_> = &[&id.0, &one_of, &none_of];
        let deleted = self
            .primary
            .transaction(
                id.0,
                &[(&LOCK_ARTICLE, &[&id.0]), (&DELETE_FAVORITES, allowed)],
                (&DELETE_ARTICLE, allowed),
            )
            .await?;
        Ok(!deleted.rows.is_empty())
    }

    async fn favorite(&self, slug: &str, user: UserId, now: Timestamp) -> Result<Option<Article>> {
        let params: Params<'_> = &[&slug, &user.0, &Utc(now)];
        self.change_favorite(slug, &FAVORITE, params).await
    }

    async fn unfavorite(&self, slug: &str, user: UserId) -> Result<Option<Article>> {
        self.change_favorite(slug, &UNFAVORITE, &[&slug, &user.0]).await
    }
}

impl PostgresStore {
    async fn change_favorite(
        &self,
        slug: &str,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<Option<Article>> {
        match self.primary.write(slug, statement, params).await {
            Err(error) if error.is_unsuitable_value() => Ok(None),
            changed => Ok(changed?.first(rows::article)?),
        }
    }
}

/// Finds an article on the primary or the replica. An article whose slug the database cannot hold does not exist.
async fn find_article(
    server: &Connections,
    slug: &str,
    viewer: Option<UserId>,
) -> Result<Option<Article>, StatementError> {
    let viewer = viewer.map(|viewer| viewer.0);
    let params: Params<'_> = &[&viewer, &slug];
    let mut found = match server.read(&FIND_ARTICLE_UNLESS_LARGE, params).await {
        Err(error) if error.is_unsuitable_value() => return Ok(None),
        found => found?,
    };
    if found.first(|row| row.try_get("is_large"))? == Some(true) {
        found = server.read_large(&FIND_ARTICLE, params).await?;
    }
    Ok(found.first(rows::article)?)
}

/// Converts the versions of a [`Precondition`] to a parameter.
fn versions(list: &[Timestamp]) -> Vec<Utc> {
    list.iter().copied().map(Utc).collect()
}
