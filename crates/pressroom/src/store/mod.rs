//! What is kept, behind one trait: [`postgres`] for production, [`sqlite`] for one process.
//!
//! Each method is one transaction, nearly always one statement. Conflicts are decided by the
//! database's constraints and come back by name. No method waits longer than its time-out.

mod outbox_row;
pub mod postgres;
pub mod sqlite;

use std::{borrow::Cow, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;

use crate::{
    accounts::{Credentials, Email, NewUser, PasswordHash, Session, TokenKey, User, UserChanges, UserId},
    articles::{
        Article, ArticleChanges, ArticleId, ArticlePage, FirstAnswer, IdempotencyKey, ListQuery, NewArticle,
        OnceOnly, Precondition,
    },
    tasks::{ArticleEvent, Backlog, DeliveryClaim, DeliveryKey, NewOutboxTask, OutboxTask, Recipient},
};

/// Why the store could not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, or did not answer in time; trying later may help. A write
    /// whose answer was lost may have been done all the same.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The row would break a constraint that callers are told about.
    #[error("conflict on {0:?}")]
    Conflict(Constraint),
    /// Anything else: a defect of ours or of the schema.
    #[error("the database refused a statement: {0}")]
    Failed(String),
}

impl telemetry::Failure for StoreError {
    fn error_type(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Unavailable(_) => Some(Cow::Borrowed("database_unavailable")),
            Self::Failed(_) => Some(Cow::Borrowed("database_error")),
            Self::Conflict(_) => None,
        }
    }

    fn message(&self) -> String {
        self.to_string()
    }
}

/// The constraints whose violation means something to a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Constraint {
    UserEmail,
    ArticleSlug,
    IdempotencyKey,
}

/// The result of a store method.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Everything that Pressroom keeps.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Inserts a user.
    ///
    /// # Errors
    /// [`Constraint::UserEmail`] when the address is taken, letter case aside.
    async fn insert_user(&self, user: NewUser) -> Result<User>;

    /// The account with this address, letter case aside; the exact spelling wins when a database
    /// made elsewhere has several.
    async fn find_credentials(&self, email: &Email) -> Result<Option<Credentials>>;

    /// Changes a profile; `None` when there is no such user.
    ///
    /// # Errors
    /// [`Constraint::UserEmail`] when the new address is another user's.
    async fn update_user(&self, id: UserId, changes: UserChanges, now: Timestamp) -> Result<Option<User>>;

    /// Replaces a password hash, unless it changed meanwhile.
    async fn upgrade_password_hash(&self, id: UserId, old: &PasswordHash, new: &PasswordHash) -> Result<()>;

    /// The user a token names and whether the token was revoked, in one statement.
    async fn find_session(&self, user: UserId, token: &TokenKey) -> Result<Option<Session>>;

    /// Refuses a token from now on. Revoking twice is no error.
    async fn revoke_token(&self, token: &TokenKey, expires_at: Timestamp) -> Result<()>;

    /// Forgets revoked tokens that have expired anyway; returns how many.
    async fn purge_revoked_tokens(&self, now: Timestamp) -> Result<u64>;

    /// Inserts an article and its task in one commit. The article's `favorited` is false.
    ///
    /// # Errors
    /// [`Constraint::ArticleSlug`] when the slug is taken.
    async fn insert_article(&self, article: NewArticle, task: NewOutboxTask) -> Result<Article>;

    /// The article with this slug. Without a viewer it may be as it was some seconds ago.
    async fn find_article(&self, slug: &str, viewer: Option<UserId>) -> Result<Option<Article>>;

    /// The article with this id, as an anonymous caller sees it.
    async fn find_article_by_id(&self, id: ArticleId) -> Result<Option<Article>>;

    /// One page of the list, in at most two statements. Without a viewer it may be as it was some
    /// seconds ago.
    async fn list_articles(&self, query: ListQuery) -> Result<ArticlePage>;

    /// Changes an article and writes its task in one commit; `None` when it is gone or not a version
    /// that `precondition` allows. Its `updated_at` becomes the task's time, or the next microsecond
    /// where that is not later: no two versions share one. `viewer` decides `favorited`.
    async fn update_article(
        &self,
        id: ArticleId,
        changes: ArticleChanges,
        precondition: Precondition,
        viewer: UserId,
        task: NewOutboxTask,
    ) -> Result<Option<Article>>;

    /// Deletes an article with its favourites; false when it was gone or not a version that
    /// `precondition` allows.
    async fn delete_article(&self, id: ArticleId, precondition: Precondition) -> Result<bool>;

    /// Favourites an article; idempotent. `None` when there is no such article.
    async fn favorite(&self, slug: &str, user: UserId, now: Timestamp) -> Result<Option<Article>>;

    /// Takes a favourite back; idempotent. `None` when there is no such article.
    async fn unfavorite(&self, slug: &str, user: UserId) -> Result<Option<Article>>;

    /// Inserts an article and its task, and keeps what it was answered under its author's key, in one
    /// commit.
    ///
    /// # Errors
    /// [`Constraint::IdempotencyKey`] when an answer is kept under the key,
    /// [`Constraint::ArticleSlug`] when the slug is taken.
    async fn insert_article_once(
        &self,
        article: NewArticle,
        once: &OnceOnly,
        task: NewOutboxTask,
    ) -> Result<Article>;

    /// What was kept under this key after `since`.
    async fn find_first_answer(
        &self,
        user: UserId,
        key: &IdempotencyKey,
        since: Timestamp,
    ) -> Result<Option<FirstAnswer>>;

    /// Forgets up to `limit` answers kept at or before `before`, the oldest first; returns how many.
    async fn purge_idempotency_keys(&self, before: Timestamp, limit: i64) -> Result<u64>;

    /// Claims up to `limit` waiting tasks, oldest first, so that no other process publishes them
    /// for `lease`. A claim that runs out makes the task claimable again.
    async fn claim_outbox(&self, now: Timestamp, lease: Duration, limit: i64) -> Result<Vec<OutboxTask>>;

    /// Removes tasks that the broker has taken responsibility for.
    async fn delete_outbox(&self, ids: &[i64]) -> Result<()>;

    /// Gives claims back at once, for another try at `retry_at`.
    async fn release_outbox(&self, ids: &[i64], retry_at: Timestamp) -> Result<()>;

    /// Gives every claim back: for a process that starts and knows that it is the only one.
    async fn release_all_outbox(&self) -> Result<u64>;

    /// How much waits in the outbox.
    async fn outbox_backlog(&self) -> Result<Backlog>;

    /// Up to `limit` users to be told of `event`, with ids above `after`, in id order. For
    /// `created`: who has favourited another article of the author; for `updated`: who has
    /// favourited this one. Never the author.
    async fn recipients(
        &self,
        article: ArticleId,
        event: ArticleEvent,
        after: UserId,
        limit: i64,
    ) -> Result<Vec<Recipient>>;

    /// Claims one delivery for `lease`, atomically.
    async fn claim_delivery(
        &self,
        key: &DeliveryKey,
        now: Timestamp,
        lease: Duration,
    ) -> Result<DeliveryClaim>;

    /// Records that a claimed delivery was made.
    async fn complete_delivery(&self, key: &DeliveryKey, now: Timestamp) -> Result<()>;

    /// Gives a claimed delivery back, because it could not be made.
    async fn release_delivery(&self, key: &DeliveryKey) -> Result<()>;

    /// Forgets deliveries completed before `before`; returns how many.
    async fn purge_deliveries(&self, before: Timestamp) -> Result<u64>;

    /// Whether the database answers.
    async fn ping(&self) -> Result<()>;

    /// Whether the schema is the one this program was built for.
    async fn schema_is_current(&self) -> Result<bool>;
}
