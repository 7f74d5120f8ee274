//! PostgreSQL: the tables of the reference implementation, shared with it if need be, and ours.
//!
//! Each aggregate has its own file with its statements and its rows. All of them go through
//! [`connections`], which has no way around a statement's span.

mod accounts;
mod articles;
mod config;
mod connections;
mod deliveries;
mod error;
mod idempotency;
mod list;
mod migrations;
mod outbox;
mod replica;
mod value;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use telemetry::Statement;

pub use self::{
    config::{InvalidUrl, PostgresConfig},
    connections::TlsError,
    migrations::migrate,
};
use self::{
    connections::{Connections, Params, Role},
    replica::Replica,
};
use super::{Result, Store};
use crate::{
    accounts::{Credentials, Email, NewUser, PasswordHash, Session, TokenKey, User, UserChanges, UserId},
    articles::{
        Article, ArticleChanges, ArticleId, ArticlePage, FirstAnswer, IdempotencyKey, ListQuery, NewArticle,
        OnceOnly, Precondition,
    },
    tasks::{ArticleEvent, Backlog, DeliveryClaim, DeliveryKey, NewOutboxTask, OutboxTask, Recipient},
};

/// The store on PostgreSQL: the primary, and the replica if there is one.
///
/// A replica is a little behind, so it is asked only for callers who cannot have written anything:
/// those without an account. An article that it does not have is asked for at the primary.
pub struct PostgresStore(Arc<Connections>, Option<Replica>);

/// Why a store could not be set up. None of these passes by itself.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    #[error("connection pool: {0}")]
    Pool(String),
}

impl PostgresStore {
    /// Begins to connect and returns at once: a database that is down now makes methods fail with
    /// [`StoreError::Unavailable`](super::StoreError::Unavailable) until it is up. Must be called
    /// inside a Tokio runtime.
    ///
    /// # Errors
    /// [`SetupError`] when the trusted certificates cannot be read.
    pub fn connect(config: &PostgresConfig) -> Result<Self, SetupError> {
        let primary = Connections::open(config, Role::Primary)?;
        Ok(Self(Arc::new(primary), None))
    }

    /// Reads for callers without an account from a replica, whenever it is there. Must be called
    /// inside a Tokio runtime.
    ///
    /// # Errors
    /// [`SetupError`] when the trusted certificates cannot be read.
    pub fn reading_from(self, replica: &PostgresConfig) -> Result<Self, SetupError> {
        let replica = Replica::open(replica, Arc::clone(&self.0))?;
        Ok(Self(self.0, Some(replica)))
    }

    /// The replica, for a read by this viewer.
    fn replica_for(&self, viewer: Option<UserId>) -> Option<&Connections> {
        match viewer {
            Some(_) => None,
            None => self.1.as_ref().and_then(Replica::usable),
        }
    }
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}

const PING: Statement = Statement::new("SELECT", "", "SELECT 1", "SELECT 1");

#[async_trait]
impl Store for PostgresStore {
    async fn insert_user(&self, user: NewUser) -> Result<User> {
        Ok(accounts::insert_user(&self.0, &user).await?)
    }

    async fn find_credentials(&self, email: &Email) -> Result<Option<Credentials>> {
        Ok(accounts::find_credentials(&self.0, email).await?)
    }

    async fn update_user(&self, id: UserId, changes: UserChanges, now: Timestamp) -> Result<Option<User>> {
        Ok(accounts::update_user(&self.0, id, &changes, now).await?)
    }

    async fn upgrade_password_hash(&self, id: UserId, old: &PasswordHash, new: &PasswordHash) -> Result<()> {
        Ok(accounts::upgrade_password_hash(&self.0, id, old, new).await?)
    }

    async fn find_session(&self, user: UserId, token: &TokenKey) -> Result<Option<Session>> {
        Ok(accounts::find_session(&self.0, user, token).await?)
    }

    async fn revoke_token(&self, token: &TokenKey, expires_at: Timestamp) -> Result<()> {
        Ok(accounts::revoke_token(&self.0, token, expires_at).await?)
    }

    async fn purge_revoked_tokens(&self, now: Timestamp) -> Result<u64> {
        Ok(accounts::purge_revoked_tokens(&self.0, now).await?)
    }

    async fn insert_article(&self, article: NewArticle, task: NewOutboxTask) -> Result<Article> {
        Ok(articles::insert_article(&self.0, &article, &task).await?)
    }

    async fn insert_article_once(
        &self,
        article: NewArticle,
        once: &OnceOnly,
        task: NewOutboxTask,
    ) -> Result<Article> {
        Ok(idempotency::insert_article_once(&self.0, &article, once, &task).await?)
    }

    async fn find_first_answer(
        &self,
        user: UserId,
        key: &IdempotencyKey,
        since: Timestamp,
    ) -> Result<Option<FirstAnswer>> {
        Ok(idempotency::find_first_answer(&self.0, user, key, since).await?)
    }

    async fn purge_idempotency_keys(&self, before: Timestamp, limit: i64) -> Result<u64> {
        Ok(idempotency::purge_idempotency_keys(&self.0, before, limit).await?)
    }

    async fn find_article(&self, slug: &str, viewer: Option<UserId>) -> Result<Option<Article>> {
        if let Some(replica) = self.replica_for(viewer)
            && let Some(answer) =
                Box::pin(replica::in_short(articles::find_article(replica, slug, None))).await
            && let Some(article) = answer?
        {
            return Ok(Some(article));
        }
        Ok(articles::find_article(&self.0, slug, viewer).await?)
    }

    async fn find_article_by_id(&self, id: ArticleId) -> Result<Option<Article>> {
        Ok(articles::find_article_by_id(&self.0, id).await?)
    }

    async fn list_articles(&self, query: ListQuery) -> Result<ArticlePage> {
        if let Some(replica) = self.replica_for(query.viewer)
            && let Some(page) = replica::conclusive(Box::pin(list::list_articles(replica, &query)).await)
        {
            return Ok(page?);
        }
        Ok(list::list_articles(&self.0, &query).await?)
    }

    async fn update_article(
        &self,
        id: ArticleId,
        changes: ArticleChanges,
        precondition: Precondition,
        viewer: UserId,
        task: NewOutboxTask,
    ) -> Result<Option<Article>> {
        Ok(articles::update_article(&self.0, id, &changes, &precondition, viewer, &task).await?)
    }

    async fn delete_article(&self, id: ArticleId, precondition: Precondition) -> Result<bool> {
        Ok(articles::delete_article(&self.0, id, &precondition).await?)
    }

    async fn favorite(&self, slug: &str, user: UserId, now: Timestamp) -> Result<Option<Article>> {
        Ok(articles::favorite(&self.0, slug, user, now).await?)
    }

    async fn unfavorite(&self, slug: &str, user: UserId) -> Result<Option<Article>> {
        Ok(articles::unfavorite(&self.0, slug, user).await?)
    }

    async fn claim_outbox(&self, now: Timestamp, lease: Duration, limit: i64) -> Result<Vec<OutboxTask>> {
        Ok(outbox::claim_outbox(&self.0, now, lease, limit).await?)
    }

    async fn delete_outbox(&self, ids: &[i64]) -> Result<()> {
        Ok(outbox::delete_outbox(&self.0, ids).await?)
    }

    async fn release_outbox(&self, ids: &[i64], retry_at: Timestamp) -> Result<()> {
        Ok(outbox::release_outbox(&self.0, ids, retry_at).await?)
    }

    async fn release_all_outbox(&self) -> Result<u64> {
        Ok(outbox::release_all_outbox(&self.0).await?)
    }

    async fn outbox_backlog(&self) -> Result<Backlog> {
        Ok(outbox::outbox_backlog(&self.0).await?)
    }

    async fn recipients(
        &self,
        article: ArticleId,
        event: ArticleEvent,
        after: UserId,
        limit: i64,
    ) -> Result<Vec<Recipient>> {
        Ok(deliveries::recipients(&self.0, article, event, after, limit).await?)
    }

    async fn claim_delivery(
        &self,
        key: &DeliveryKey,
        now: Timestamp,
        lease: Duration,
    ) -> Result<DeliveryClaim> {
        Ok(deliveries::claim_delivery(&self.0, key, now, lease).await?)
    }

    async fn complete_delivery(&self, key: &DeliveryKey, now: Timestamp) -> Result<()> {
        Ok(deliveries::complete_delivery(&self.0, key, now).await?)
    }

    async fn release_delivery(&self, key: &DeliveryKey) -> Result<()> {
        Ok(deliveries::release_delivery(&self.0, key).await?)
    }

    async fn purge_deliveries(&self, before: Timestamp) -> Result<u64> {
        Ok(deliveries::purge_deliveries(&self.0, before).await?)
    }

    async fn ping(&self) -> Result<()> {
        self.0.row(&PING, &[]).await?;
        Ok(())
    }

    async fn schema_is_current(&self) -> Result<bool> {
        Ok(migrations::schema_is_current(&self.0).await?)
    }
}
