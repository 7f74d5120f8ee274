//! A store with direct access to its database, and rows for the tests.

use std::time::Duration;

use jiff::Timestamp;
use pressroom::{
    domain::{
        ARTICLE_NOTIFICATION, Article, ArticleEvent, ArticleId, Draft, Email, NewArticle, NewOutboxTask,
        NewUser, PasswordHash, User, UserId,
    },
    store::{
        Store,
        postgres::{PostgresConfig, PostgresStore, Sizes},
    },
};
use uuid::Uuid;

use crate::support::{pgbouncer::PgBouncer, postgres, sqlite};

/// Lease of claimed tasks and deliveries.
pub const LEASE: Duration = Duration::from_secs(60);

/// More connections than by default, because statements must run concurrently on the server.
const MANY: Sizes = Sizes {
    reads: 6,
    writes: 20,
    contended: 20,
    lists: 6,
    searches: 6,
    maintenance: 20,
};

pub struct Fixture {
    pub store: Box<dyn Store>,
    database: Database,
    _pooler: Option<PgBouncer>,
}

enum Database {
    Postgres(postgres::Database),
    Sqlite(sqlite::File),
}

impl Fixture {
    pub async fn postgres() -> Self {
        let database = postgres::Database::migrated().await;
        let mut config = database.config();
        config.sizes = MANY;
        Self {
            store: Box::new(PostgresStore::connect(&config).unwrap()),
            database: Database::Postgres(database),
            _pooler: None,
        }
    }

    /// PostgreSQL behind a pooler in transaction mode.
    pub async fn pgbouncer() -> Self {
        Self::through(PgBouncer::without_prepared_statements).await
    }

    /// PostgreSQL behind a pooler in transaction mode that supports prepared statements.
    pub async fn pgbouncer_with_prepared_statements() -> Self {
        Self::through(PgBouncer::with_prepared_statements).await
    }

    async fn through(pooler: fn(&str) -> PgBouncer) -> Self {
        let database = postgres::Database::migrated().await;
        let pooler = pooler(&database.url);
        let mut config = PostgresConfig::parse(&pooler.url(&database.url)).unwrap();
        config.sizes = MANY;
        Self {
            store: Box::new(PostgresStore::connect(&config).unwrap()),
            database: Database::Postgres(database),
            _pooler: Some(pooler),
        }
    }

    pub fn sqlite() -> Self {
        let file = sqlite::File::new();
        Self {
            store: Box::new(file.store()),
            database: Database::Sqlite(file),
            _pooler: None,
        }
    }

    /// Runs a query that returns a number, without the store.
    pub async fn count(&self, sql: &str) -> i64 {
        match &self.database {
            Database::Postgres(database) => {
                let client = database.client().await;
                client.query_one(sql, &[]).await.unwrap().get(0)
            }
            Database::Sqlite(file) => {
                let connection = rusqlite::Connection::open(file.path()).unwrap();
                connection.query_row(sql, [], |row| row.get(0)).unwrap()
            }
        }
    }

    /// Returns an article's `favorites_count` and its number of rows in `favorites`.
    pub async fn favorites_of(&self, article: ArticleId) -> (i64, i64) {
        let counted = format!(
            "SELECT CAST(favorites_count AS bigint) FROM articles WHERE id = {}",
            article.0
        );
        let rows = format!("SELECT count(*) FROM favorites WHERE article_id = {}", article.0);
        (self.count(&counted).await, self.count(&rows).await)
    }

    pub async fn user(&self, email: &str) -> User {
        self.store.insert_user(new_user(email)).await.unwrap()
    }

    pub async fn article(&self, title: &str, author: UserId, created_at: Timestamp) -> Article {
        self.store
            .insert_article(new_article(title, author, created_at), task(1, created_at))
            .await
            .unwrap()
    }
}

/// Returns the time `second` seconds after a fixed start.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_microsecond(1_760_000_000_123_456 + second * 1_000_000).unwrap()
}

pub fn new_user(email: &str) -> NewUser {
    NewUser {
        email: Email::parse(email).unwrap(),
        password_hash: PasswordHash(format!("hash of {email}")),
        name: format!("Name of {email}"),
        created_at: at(0),
    }
}

/// Returns an article whose slug is its title.
pub fn new_article(title: &str, author: UserId, created_at: Timestamp) -> NewArticle {
    NewArticle {
        slug: title.to_owned(),
        draft: Draft {
            title: title.to_owned(),
            description: "about it".to_owned(),
            body: "all of it".to_owned(),
        },
        author,
        created_at,
    }
}

pub fn task(id: i64, created_at: Timestamp) -> NewOutboxTask {
    NewOutboxTask {
        task_id: Uuid::from_u128(u128::try_from(id).unwrap()),
        name: ARTICLE_NOTIFICATION,
        event: ArticleEvent::Created,
        trace: vec![
            ("traceparent".to_owned(), "00-aa-bb-01".to_owned()),
            ("baggage".to_owned(), "k=\"v\"".to_owned()),
        ],
        created_at,
    }
}
