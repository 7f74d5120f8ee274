//! PostgreSQL: the tables of the reference implementation, shared with it if need be, and ours.
//!
//! Single statements go over a [`lane`] of shared, pipelined connections; transactions and scans
//! over a [`pool`]. Each aggregate has its own file with its statements and its rows.

mod accounts;
mod answer;
mod articles;
mod config;
mod connector;
mod deliveries;
mod error;
mod lane;
mod list;
mod migrations;
mod outbox;
mod pool;
mod session;
mod value;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::TryFutureExt;
use jiff::Timestamp;
use telemetry::{Database, Statement};
use tokio_postgres::{Row, types::ToSql};

pub use self::{
    config::{InvalidUrl, PostgresConfig},
    connector::TlsError,
    migrations::migrate,
};
use self::{connector::Connector, error::StatementError, lane::Lane, pool::Pool};
use super::{Result, Store};
use crate::{
    accounts::{Credentials, Email, NewUser, PasswordHash, Session, TokenKey, User, UserChanges, UserId},
    articles::{Article, ArticleChanges, ArticleId, ArticlePage, ListQuery, NewArticle},
    tasks::{ArticleEvent, Backlog, DeliveryClaim, DeliveryKey, NewOutboxTask, OutboxTask, Recipient},
};

/// The names of the two kinds of connections in metrics.
const LANE: &str = "postgres.lane";
const POOL: &str = "postgres.pool";

/// A statement's parameters.
type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// The store on PostgreSQL.
pub struct PostgresStore {
    database: Database,
    lane: Arc<Lane>,
    pool: Arc<Pool>,
}

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
        let single = Connector::new(config, lane::STATEMENT_TIMEOUT)?.measured_for(LANE);
        let scans = Connector::new(config, pool::SCAN_TIMEOUT)?.measured_for(POOL);
        let lane = Arc::new(Lane::new(&single, config.lanes));
        let pool =
            Pool::new(POOL, scans, config.pool_size).map_err(|error| SetupError::Pool(error.to_string()))?;
        let pool = Arc::new(pool);
        let database = Database::new("postgresql", config.database(), config.server());
        // Metrics outlive the store; they must not keep its connections open.
        let (lane_counts, pool_counts) = (Arc::downgrade(&lane), Arc::downgrade(&pool));
        database.observe_connections(LANE, move || {
            lane_counts
                .upgrade()
                .map(|lane| lane.counts())
                .unwrap_or_default()
        });
        database.observe_connections(POOL, move || {
            pool_counts
                .upgrade()
                .map(|pool| pool.counts())
                .unwrap_or_default()
        });
        Ok(Self { database, lane, pool })
    }

    /// All rows of a single statement.
    async fn rows(&self, statement: &Statement, params: Params<'_>) -> Result<Vec<Row>, StatementError> {
        let rows = self.lane.run(statement, params).map_ok(|answer| answer.rows);
        self.database.observe(statement, rows).await
    }

    /// The row of a single statement that gives one or none.
    async fn row(&self, statement: &Statement, params: Params<'_>) -> Result<Option<Row>, StatementError> {
        let first = self.lane.run(statement, params);
        let first = first.map_ok(|answer| answer.rows.into_iter().next());
        self.database.observe(statement, first).await
    }

    /// How many rows a single statement changed.
    async fn execute(&self, statement: &Statement, params: Params<'_>) -> Result<u64, StatementError> {
        let changed = self.lane.run(statement, params).map_ok(|answer| answer.affected);
        self.database.observe(statement, changed).await
    }

    /// All rows of a statement that may take its time.
    async fn scan(&self, statement: &Statement, params: Params<'_>) -> Result<Vec<Row>, StatementError> {
        let rows = self.pool.scan(statement, params).map_ok(|answer| answer.rows);
        self.database.observe(statement, rows).await
    }

    /// How many rows a statement changed that may take its time.
    async fn sweep(&self, statement: &Statement, params: Params<'_>) -> Result<u64, StatementError> {
        let changed = self.pool.scan(statement, params).map_ok(|answer| answer.affected);
        self.database.observe(statement, changed).await
    }

    /// Runs `before` and then `last` as one transaction; the rows are the last one's, and the span
    /// is named after it.
    async fn transaction(
        &self,
        before: &[pool::Step<'_>],
        last: pool::Step<'_>,
    ) -> Result<Vec<Row>, StatementError> {
        let steps: Vec<_> = before.iter().copied().chain([last]).collect();
        let rows = self.pool.transaction(&steps).map_ok(|answer| answer.rows);
        self.database.observe(last.0, rows).await
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
        Ok(accounts::insert_user(self, &user).await?)
    }

    async fn find_credentials(&self, email: &Email) -> Result<Option<Credentials>> {
        Ok(accounts::find_credentials(self, email).await?)
    }

    async fn update_user(&self, id: UserId, changes: UserChanges, now: Timestamp) -> Result<Option<User>> {
        Ok(accounts::update_user(self, id, &changes, now).await?)
    }

    async fn upgrade_password_hash(&self, id: UserId, old: &PasswordHash, new: &PasswordHash) -> Result<()> {
        Ok(accounts::upgrade_password_hash(self, id, old, new).await?)
    }

    async fn find_session(&self, user: UserId, token: &TokenKey) -> Result<Option<Session>> {
        Ok(accounts::find_session(self, user, token).await?)
    }

    async fn revoke_token(&self, token: &TokenKey, expires_at: Timestamp) -> Result<()> {
        Ok(accounts::revoke_token(self, token, expires_at).await?)
    }

    async fn purge_revoked_tokens(&self, now: Timestamp) -> Result<u64> {
        Ok(accounts::purge_revoked_tokens(self, now).await?)
    }

    async fn insert_article(&self, article: NewArticle, task: NewOutboxTask) -> Result<Article> {
        Ok(articles::insert_article(self, &article, &task).await?)
    }

    async fn find_article(&self, slug: &str, viewer: Option<UserId>) -> Result<Option<Article>> {
        Ok(articles::find_article(self, slug, viewer).await?)
    }

    async fn find_article_by_id(&self, id: ArticleId) -> Result<Option<Article>> {
        Ok(articles::find_article_by_id(self, id).await?)
    }

    async fn list_articles(&self, query: ListQuery) -> Result<ArticlePage> {
        Ok(list::list_articles(self, &query).await?)
    }

    async fn update_article(
        &self,
        id: ArticleId,
        changes: ArticleChanges,
        viewer: UserId,
        task: NewOutboxTask,
    ) -> Result<Option<Article>> {
        Ok(articles::update_article(self, id, &changes, viewer, &task).await?)
    }

    async fn delete_article(&self, id: ArticleId) -> Result<bool> {
        Ok(articles::delete_article(self, id).await?)
    }

    async fn favorite(&self, slug: &str, user: UserId, now: Timestamp) -> Result<Option<Article>> {
        Ok(articles::favorite(self, slug, user, now).await?)
    }

    async fn unfavorite(&self, slug: &str, user: UserId) -> Result<Option<Article>> {
        Ok(articles::unfavorite(self, slug, user).await?)
    }

    async fn claim_outbox(&self, now: Timestamp, lease: Duration, limit: i64) -> Result<Vec<OutboxTask>> {
        Ok(outbox::claim_outbox(self, now, lease, limit).await?)
    }

    async fn delete_outbox(&self, ids: &[i64]) -> Result<()> {
        Ok(outbox::delete_outbox(self, ids).await?)
    }

    async fn release_outbox(&self, ids: &[i64], retry_at: Timestamp) -> Result<()> {
        Ok(outbox::release_outbox(self, ids, retry_at).await?)
    }

    async fn release_all_outbox(&self) -> Result<u64> {
        Ok(outbox::release_all_outbox(self).await?)
    }

    async fn outbox_backlog(&self) -> Result<Backlog> {
        Ok(outbox::outbox_backlog(self).await?)
    }

    async fn recipients(
        &self,
        article: ArticleId,
        event: ArticleEvent,
        after: UserId,
        limit: i64,
    ) -> Result<Vec<Recipient>> {
        Ok(deliveries::recipients(self, article, event, after, limit).await?)
    }

    async fn claim_delivery(
        &self,
        key: &DeliveryKey,
        now: Timestamp,
        lease: Duration,
    ) -> Result<DeliveryClaim> {
        Ok(deliveries::claim_delivery(self, key, now, lease).await?)
    }

    async fn complete_delivery(&self, key: &DeliveryKey, now: Timestamp) -> Result<()> {
        Ok(deliveries::complete_delivery(self, key, now).await?)
    }

    async fn release_delivery(&self, key: &DeliveryKey) -> Result<()> {
        Ok(deliveries::release_delivery(self, key).await?)
    }

    async fn purge_deliveries(&self, before: Timestamp) -> Result<u64> {
        Ok(deliveries::purge_deliveries(self, before).await?)
    }

    async fn ping(&self) -> Result<()> {
        self.row(&PING, &[]).await?;
        Ok(())
    }

    async fn schema_is_current(&self) -> Result<bool> {
        Ok(migrations::schema_is_current(self).await?)
    }
}
