//! SQLite: everything in one file beside one process, for development and small installations.
//!
//! One thread writes and a few read, each with its own connection in WAL mode; see [`threads`].
//! A commit is on the disk before it is answered for (`synchronous=FULL`): neither `kill -9` nor
//! a power cut takes back what was accepted.

mod accounts;
mod articles;
mod deliveries;
mod error;
mod list;
mod migrations;
mod outbox;
mod threads;
mod value;

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use telemetry::{Database, Returned, Statement};

pub use self::migrations::migrate;
use self::{error::StatementError, threads::Threads};
use super::{Result, Store, StoreError};
use crate::{
    accounts::{Credentials, Email, NewUser, PasswordHash, Session, TokenKey, User, UserChanges, UserId},
    articles::{Article, ArticleChanges, ArticleId, ArticlePage, ListQuery, NewArticle},
    tasks::{ArticleEvent, Backlog, DeliveryClaim, DeliveryKey, NewOutboxTask, OutboxTask, Recipient},
};

/// How many connections read at once.
const READERS: usize = 4;
/// How long to wait for another process that writes the same file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// A database that lives as long as its store.
const IN_MEMORY: &str = ":memory:";

/// The store on SQLite.
pub struct SqliteStore {
    database: Database,
    writer: Threads,
    readers: Threads,
}

impl SqliteStore {
    /// Opens `sqlite://path`, a path, or `:memory:`; creates the file and its folder where missing
    /// and brings the schema up to date. Blocks while it does.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the file cannot be opened or is locked,
    /// [`StoreError::Failed`] when it is not a database of ours.
    pub fn open(url: &str) -> Result<Self> {
        let path = path_of(url);
        let mut writer = connect(path)?;
        migrations::apply(&mut writer)?;
        let readers = if path == IN_MEMORY {
            None
        } else {
            let connections = (0..READERS).map(|_| connect(path));
            let connections = connections.collect::<Result<Vec<_>, _>>()?;
            Some(start("sqlite-read", connections)?)
        };
        let writer = start("sqlite-write", vec![writer])?;
        let name = Path::new(path).file_name().unwrap_or_default();
        Ok(Self {
            database: Database::new("sqlite", name.to_string_lossy().into_owned(), None),
            // What is in memory is seen by the connection that made it only.
            readers: readers.unwrap_or_else(|| writer.clone()),
            writer,
        })
    }

    /// Reads at one moment: all statements of `work` see the same state.
    async fn read<T: Returned + Send + 'static>(
        &self,
        statement: &Statement,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StatementError> + Send + 'static,
    ) -> Result<T, StatementError> {
        let reading = self.readers.run(move |connection| {
            let transaction = connection.transaction()?;
            work(&transaction)
        });
        self.database.observe(statement, reading).await
    }

    /// Writes: all of `work` or, after an error, none of it.
    async fn write<T: Returned + Send + 'static>(
        &self,
        statement: &Statement,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StatementError> + Send + 'static,
    ) -> Result<T, StatementError> {
        let writing = self.writer.run(move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        });
        self.database.observe(statement, writing).await
    }
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").finish_non_exhaustive()
    }
}

fn path_of(url: &str) -> &str {
    url.strip_prefix("sqlite://").unwrap_or(url)
}

fn start(name: &str, connections: Vec<Connection>) -> Result<Threads> {
    Threads::start(name, connections).map_err(|error| StoreError::Unavailable(error.to_string()))
}

fn connect(path: &str) -> Result<Connection> {
    if path != IN_MEMORY
        && let Some(folder) = Path::new(path).parent()
    {
        std::fs::create_dir_all(folder).map_err(|error| StoreError::Unavailable(error.to_string()))?;
    }
    let open = || {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        Ok::<_, rusqlite::Error>(connection)
    };
    open().map_err(|error| StatementError::from(error).into())
}

const PING: Statement = Statement::new("SELECT", "", "SELECT 1", "SELECT 1");

#[async_trait]
impl Store for SqliteStore {
    async fn insert_user(&self, user: NewUser) -> Result<User> {
        Ok(accounts::insert_user(self, user).await?)
    }

    async fn find_credentials(&self, email: &Email) -> Result<Option<Credentials>> {
        Ok(accounts::find_credentials(self, email).await?)
    }

    async fn update_user(&self, id: UserId, changes: UserChanges, now: Timestamp) -> Result<Option<User>> {
        Ok(accounts::update_user(self, id, changes, now).await?)
    }

    async fn upgrade_password_hash(&self, id: UserId, old: &PasswordHash, new: &PasswordHash) -> Result<()> {
        Ok(accounts::upgrade_password_hash(self, id, old.clone(), new.clone()).await?)
    }

    async fn find_session(&self, user: UserId, token: &TokenKey) -> Result<Option<Session>> {
        Ok(accounts::find_session(self, user, token.clone()).await?)
    }

    async fn revoke_token(&self, token: &TokenKey, expires_at: Timestamp) -> Result<()> {
        Ok(accounts::revoke_token(self, token.clone(), expires_at).await?)
    }

    async fn purge_revoked_tokens(&self, now: Timestamp) -> Result<u64> {
        Ok(accounts::purge_revoked_tokens(self, now).await?)
    }

    async fn insert_article(&self, article: NewArticle, task: NewOutboxTask) -> Result<Article> {
        Ok(articles::insert_article(self, article, task).await?)
    }

    async fn find_article(&self, slug: &str, viewer: Option<UserId>) -> Result<Option<Article>> {
        Ok(articles::find_article(self, slug.to_owned(), viewer).await?)
    }

    async fn find_article_by_id(&self, id: ArticleId) -> Result<Option<Article>> {
        Ok(articles::find_article_by_id(self, id).await?)
    }

    async fn list_articles(&self, query: ListQuery) -> Result<ArticlePage> {
        Ok(list::list_articles(self, query).await?)
    }

    async fn update_article(
        &self,
        id: ArticleId,
        changes: ArticleChanges,
        viewer: UserId,
        task: NewOutboxTask,
    ) -> Result<Option<Article>> {
        Ok(articles::update_article(self, id, changes, viewer, task).await?)
    }

    async fn delete_article(&self, id: ArticleId) -> Result<bool> {
        Ok(articles::delete_article(self, id).await?)
    }

    async fn favorite(&self, slug: &str, user: UserId, now: Timestamp) -> Result<Option<Article>> {
        Ok(articles::favorite(self, slug.to_owned(), user, now).await?)
    }

    async fn unfavorite(&self, slug: &str, user: UserId) -> Result<Option<Article>> {
        Ok(articles::unfavorite(self, slug.to_owned(), user).await?)
    }

    async fn claim_outbox(&self, now: Timestamp, lease: Duration, limit: i64) -> Result<Vec<OutboxTask>> {
        Ok(outbox::claim_outbox(self, now, lease, limit).await?)
    }

    async fn delete_outbox(&self, ids: &[i64]) -> Result<()> {
        Ok(outbox::delete_outbox(self, ids.to_vec()).await?)
    }

    async fn release_outbox(&self, ids: &[i64], retry_at: Timestamp) -> Result<()> {
        Ok(outbox::release_outbox(self, ids.to_vec(), retry_at).await?)
    }

    async fn release_all_outbox(&self) -> Result<u64> {
        Ok(outbox::release_all_outbox(self).await?)
    }

    async fn outbox_backlog(&self) -> Result<Backlog> {
        outbox::outbox_backlog(self).await
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
        deliveries::claim_delivery(self, key.clone(), now, lease).await
    }

    async fn complete_delivery(&self, key: &DeliveryKey, now: Timestamp) -> Result<()> {
        Ok(deliveries::complete_delivery(self, key.clone(), now).await?)
    }

    async fn release_delivery(&self, key: &DeliveryKey) -> Result<()> {
        Ok(deliveries::release_delivery(self, key.clone()).await?)
    }

    async fn purge_deliveries(&self, before: Timestamp) -> Result<u64> {
        Ok(deliveries::purge_deliveries(self, before).await?)
    }

    async fn ping(&self) -> Result<()> {
        let answer = self.read(&PING, |db| {
            db.query_row(PING.text, [], |_| Ok(()))?;
            Ok(())
        });
        Ok(answer.await?)
    }

    async fn schema_is_current(&self) -> Result<bool> {
        Ok(migrations::schema_is_current(self).await?)
    }
}
