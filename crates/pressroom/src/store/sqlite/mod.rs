//! SQLite: everything in one file beside one process, for development and small installations.
//!
//! Each aggregate has its own file with its statements and its rows. All of them go through
//! [`connections`], which has no way around a statement's span.

mod accounts;
mod articles;
mod connections;
mod deliveries;
mod error;
mod idempotency;
mod list;
mod migrations;
mod outbox;
mod value;

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use telemetry::Statement;

use self::connections::Connections;
pub use self::migrations::migrate;
use super::{Result, Store};
use crate::{
    accounts::{Credentials, Email, NewUser, PasswordHash, Session, TokenKey, User, UserChanges, UserId},
    articles::{
        Article, ArticleChanges, ArticleId, ArticlePage, FirstAnswer, IdempotencyKey, ListQuery, NewArticle,
        OnceOnly, Precondition,
    },
    tasks::{ArticleEvent, Backlog, DeliveryClaim, DeliveryKey, NewOutboxTask, OutboxTask, Recipient},
};

/// The store on SQLite.
pub struct SqliteStore(Connections);

impl SqliteStore {
    /// Opens `sqlite://path`, a path, or `:memory:`; creates the file and its folder where missing
    /// and brings the schema up to date. Blocks while it does.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the file cannot be opened or is locked,
    /// [`StoreError::Failed`] when it is not a database of ours.
    pub fn open(url: &str) -> Result<Self> {
        Connections::open(url).map(Self)
    }
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").finish_non_exhaustive()
    }
}

const PING: Statement = Statement::new("SELECT", "", "SELECT 1", "SELECT 1");

#[async_trait]
impl Store for SqliteStore {
    async fn insert_user(&self, user: NewUser) -> Result<User> {
        Ok(accounts::insert_user(&self.0, user).await?)
    }

    async fn find_credentials(&self, email: &Email) -> Result<Option<Credentials>> {
        Ok(accounts::find_credentials(&self.0, email).await?)
    }

    async fn update_user(&self, id: UserId, changes: UserChanges, now: Timestamp) -> Result<Option<User>> {
        Ok(accounts::update_user(&self.0, id, changes, now).await?)
    }

    async fn upgrade_password_hash(&self, id: UserId, old: &PasswordHash, new: &PasswordHash) -> Result<()> {
        Ok(accounts::upgrade_password_hash(&self.0, id, old.clone(), new.clone()).await?)
    }

    async fn find_session(&self, user: UserId, token: &TokenKey) -> Result<Option<Session>> {
        Ok(accounts::find_session(&self.0, user, token.clone()).await?)
    }

    async fn revoke_token(&self, token: &TokenKey, expires_at: Timestamp) -> Result<()> {
        Ok(accounts::revoke_token(&self.0, token.clone(), expires_at).await?)
    }

    async fn purge_revoked_tokens(&self, now: Timestamp) -> Result<u64> {
        Ok(accounts::purge_revoked_tokens(&self.0, now).await?)
    }

    async fn insert_article(&self, article: NewArticle, task: NewOutboxTask) -> Result<Article> {
        Ok(articles::insert_article(&self.0, article, task).await?)
    }

    async fn insert_article_once(
        &self,
        article: NewArticle,
        once: &OnceOnly,
        task: NewOutboxTask,
    ) -> Result<Article> {
        Ok(idempotency::insert_article_once(&self.0, article, once.clone(), task).await?)
    }

    async fn find_first_answer(
        &self,
        user: UserId,
        key: &IdempotencyKey,
        since: Timestamp,
    ) -> Result<Option<FirstAnswer>> {
        Ok(idempotency::find_first_answer(&self.0, user, key.clone(), since).await?)
    }

    async fn purge_idempotency_keys(&self, before: Timestamp, limit: i64) -> Result<u64> {
        Ok(idempotency::purge_idempotency_keys(&self.0, before, limit).await?)
    }

    async fn find_article(&self, slug: &str, viewer: Option<UserId>) -> Result<Option<Article>> {
        Ok(articles::find_article(&self.0, slug.to_owned(), viewer).await?)
    }

    async fn find_article_by_id(&self, id: ArticleId) -> Result<Option<Article>> {
        Ok(articles::find_article_by_id(&self.0, id).await?)
    }

    async fn list_articles(&self, query: ListQuery) -> Result<ArticlePage> {
        Ok(list::list_articles(&self.0, query).await?)
    }

    async fn update_article(
        &self,
        id: ArticleId,
        changes: ArticleChanges,
        precondition: Precondition,
        viewer: UserId,
        task: NewOutboxTask,
    ) -> Result<Option<Article>> {
        Ok(articles::update_article(&self.0, id, changes, precondition, viewer, task).await?)
    }

    async fn delete_article(&self, id: ArticleId, precondition: Precondition) -> Result<bool> {
        Ok(articles::delete_article(&self.0, id, precondition).await?)
    }

    async fn favorite(&self, slug: &str, user: UserId, now: Timestamp) -> Result<Option<Article>> {
        Ok(articles::favorite(&self.0, slug.to_owned(), user, now).await?)
    }

    async fn unfavorite(&self, slug: &str, user: UserId) -> Result<Option<Article>> {
        Ok(articles::unfavorite(&self.0, slug.to_owned(), user).await?)
    }

    async fn claim_outbox(&self, now: Timestamp, lease: Duration, limit: i64) -> Result<Vec<OutboxTask>> {
        Ok(outbox::claim_outbox(&self.0, now, lease, limit).await?)
    }

    async fn delete_outbox(&self, ids: &[i64]) -> Result<()> {
        Ok(outbox::delete_outbox(&self.0, ids.to_vec()).await?)
    }

    async fn release_outbox(&self, ids: &[i64], retry_at: Timestamp) -> Result<()> {
        Ok(outbox::release_outbox(&self.0, ids.to_vec(), retry_at).await?)
    }

    async fn release_all_outbox(&self) -> Result<u64> {
        Ok(outbox::release_all_outbox(&self.0).await?)
    }

    async fn outbox_backlog(&self) -> Result<Backlog> {
        outbox::outbox_backlog(&self.0).await
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
        deliveries::claim_delivery(&self.0, key.clone(), now, lease).await
    }

    async fn complete_delivery(&self, key: &DeliveryKey, now: Timestamp) -> Result<()> {
        Ok(deliveries::complete_delivery(&self.0, key.clone(), now).await?)
    }

    async fn release_delivery(&self, key: &DeliveryKey) -> Result<()> {
        Ok(deliveries::release_delivery(&self.0, key.clone()).await?)
    }

    async fn purge_deliveries(&self, before: Timestamp) -> Result<u64> {
        Ok(deliveries::purge_deliveries(&self.0, before).await?)
    }

    async fn ping(&self) -> Result<()> {
        let answer = self.0.read(&PING, |db| db.row(&PING, [], |_| Ok(())));
        answer.await?;
        Ok(())
    }

    async fn schema_is_current(&self) -> Result<bool> {
        Ok(migrations::schema_is_current(&self.0).await?)
    }
}
