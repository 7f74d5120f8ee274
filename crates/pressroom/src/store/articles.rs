//! Articles, favourites and idempotency keys.

use std::fmt::Debug;

use async_trait::async_trait;
use jiff::Timestamp;

use super::error::Result;
use crate::domain::{
    Article, ArticleChanges, ArticleId, ArticlePage, IdempotencyKey, IdempotentRequest, ListQuery,
    NewArticle, NewOutboxTask, Precondition, StoredResponse, UserId,
};

/// Stores articles and their favourites, and the responses to requests with an idempotency key.
#[async_trait]
pub trait ArticleStore: Debug + Send + Sync + 'static {
    /// Inserts an article and its task in one transaction.
    ///
    /// # Errors
    /// [`Constraint::ArticleSlug`](super::Constraint::ArticleSlug) when the slug is taken.
    async fn insert_article(&self, article: NewArticle, task: NewOutboxTask) -> Result<Article>;

    /// Inserts an article and its task, and stores the response under its author's idempotency key, in one
    /// transaction.
    ///
    /// # Errors
    /// [`Constraint::IdempotencyKey`](super::Constraint::IdempotencyKey) when the key already has a response,
    /// [`Constraint::ArticleSlug`](super::Constraint::ArticleSlug) when the slug is taken.
    async fn insert_article_once(
        &self,
        article: NewArticle,
        once: &IdempotentRequest,
        task: NewOutboxTask,
    ) -> Result<Article>;

    /// Finds the response that was stored under this key after `since`.
    async fn find_stored_response(
        &self,
        user: UserId,
        key: &IdempotencyKey,
        since: Timestamp,
    ) -> Result<Option<StoredResponse>>;

    /// Deletes up to `limit` keys stored at or before `before`, the oldest first, and returns their number.
    async fn purge_idempotency_keys(&self, before: Timestamp, limit: i64) -> Result<u64>;

    /// Finds the article with this slug. Without a viewer, the article may be some seconds old.
    async fn find_article(&self, slug: &str, viewer: Option<UserId>) -> Result<Option<Article>>;

    /// Finds the article with this id, as an anonymous caller sees it.
    async fn find_article_by_id(&self, id: ArticleId) -> Result<Option<Article>>;

    /// Reads one page of the list, in at most two statements. Without a viewer, the page may be some seconds
    /// old.
    async fn list_articles(&self, query: ListQuery) -> Result<ArticlePage>;

    /// Replaces up to `limit` recorded changes to the article count by their sum, if there are many, and returns
    /// the number of replaced changes. Without this, each list would have to sum all of them up.
    async fn fold_article_count(&self, limit: i64) -> Result<u64>;

    /// Changes an article and, if `changes` alter its text, inserts its task, in one transaction. Returns
    /// `None` if the article does not exist or `precondition` does not allow its version.
    ///
    /// `updated_at` becomes the task's creation time, or one microsecond after the current version if that is
    /// later, so that versions never share a time. `favorited` is for `viewer`.
    async fn update_article(
        &self,
        id: ArticleId,
        changes: ArticleChanges,
        precondition: Precondition,
        viewer: UserId,
        task: NewOutboxTask,
    ) -> Result<Option<Article>>;

    /// Deletes an article with its favourites. Returns false if the article does not exist or `precondition`
    /// does not allow its version.
    async fn delete_article(&self, id: ArticleId, precondition: Precondition) -> Result<bool>;

    /// Adds a favourite. Idempotent. Returns `None` if the article does not exist.
    async fn favorite(&self, slug: &str, user: UserId, now: Timestamp) -> Result<Option<Article>>;

    /// Removes a favourite. Idempotent. Returns `None` if the article does not exist.
    async fn unfavorite(&self, slug: &str, user: UserId) -> Result<Option<Article>>;
}
