//! PostgreSQL for tests: the server at `TEST_DATABASE_URL`, or one started for this process, with a fresh
//! database for each test, copied from a migrated template.
#![expect(
    clippy::disallowed_methods,
    reason = "tests create databases and read the environment"
)]

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use pressroom::store::postgres::{PostgresConfig, PostgresStore, index_titles, migrate};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

use super::{eventually, postgres_server::Server};

/// The migrations, in the order of their versions.
pub const MIGRATIONS: &[&str] = &[
    include_str!("../../../migrations/postgres/V1__reference_tables.sql"),
    include_str!("../../../migrations/postgres/V2__outbox_revocations_deliveries.sql"),
    include_str!("../../../migrations/postgres/V3__idempotency_keys.sql"),
    include_str!("../../../migrations/postgres/V4__published_tasks.sql"),
    include_str!("../../../migrations/postgres/V5__articles_by_author.sql"),
    include_str!("../../../migrations/postgres/V6__article_count.sql"),
    include_str!("../../../migrations/postgres/V7__existing_articles.sql"),
    include_str!("../../../migrations/postgres/V8__sessions_and_limits.sql"),
];

/// A database for one test, dropped at its end.
pub struct Database {
    pub url: String,
    name: String,
}

impl Database {
    /// Creates a database with the current schema.
    pub async fn migrated() -> Self {
        Self::create(Some(template().await)).await
    }

    /// Creates an empty database.
    pub async fn empty() -> Self {
        Self::create(None).await
    }

    /// Creates an empty database with the given encoding.
    pub async fn encoded(encoding: &str) -> Self {
        Self::create_with(&format!(
            "TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
        ))
        .await
    }

    /// Creates an empty UTF-8 database with the collation C.UTF-8, in which `lower` folds all of Unicode.
    pub async fn empty_unicode() -> Self {
        Self::create_with("TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'").await
    }

    async fn create(template: Option<&str>) -> Self {
        let template = template.unwrap_or("template0");
        Self::create_with(&format!("TEMPLATE {template}")).await
    }

    async fn create_with(options: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("pressroom_test_{}_{number}", std::process::id());
        let admin = client(server_url()).await;
        admin
            .batch_execute(&format!("CREATE DATABASE {name} {options}"))
            .await
            .unwrap();
        Self {
            url: with_database(server_url(), &name),
            name,
        }
    }

    pub fn store(&self) -> PostgresStore {
        PostgresStore::connect(&self.config()).unwrap()
    }

    pub fn config(&self) -> PostgresConfig {
        PostgresConfig::parse(&self.url).unwrap()
    }

    /// Opens a connection outside of the store.
    pub async fn client(&self) -> Client {
        client(&self.url).await
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let name = self.name.clone();
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let admin = client(server_url()).await;
                admin
                    .batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)"))
                    .await
                    .unwrap();
            });
        });
        // A panic during unwinding would abort and hide the first panic.
        if dropping.join().is_err() && !std::thread::panicking() {
            panic!("a test database was left behind");
        }
    }
}

/// Waits until no store is connected to the database of `client`. The server publishes the statistics of a connection
/// when the connection ends.
pub async fn until_stores_are_closed(client: &Client) {
    let open = "SELECT FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'pressroom'";
    eventually("the connections to close", async || {
        client.query(open, &[]).await.unwrap().is_empty().then_some(())
    })
    .await;
}

/// Opens a connection without TLS.
pub async fn client(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Returns `url` with another database name.
pub fn with_database(url: &str, name: &str) -> String {
    let mut url = url::Url::parse(url).unwrap();
    url.set_path(name);
    url.into()
}

fn server_url() -> &'static str {
    static URL: OnceLock<String> = OnceLock::new();
    static SERVER: OnceLock<Server> = OnceLock::new();
    URL.get_or_init(|| {
        std::env::var("TEST_DATABASE_URL").unwrap_or_else(|_unset| SERVER.get_or_init(Server::start).url())
    })
}

/// Returns the name of the migrated template database, which is created once for each version of the
/// migrations.
async fn template() -> &'static str {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    TEMPLATE
        .get_or_init(|| async {
            let mut hasher = DefaultHasher::new();
            MIGRATIONS.hash(&mut hasher);
            let name = format!("pressroom_template_{:016x}", hasher.finish());
            let admin = client(server_url()).await;
            admin
                .batch_execute("SELECT pg_advisory_lock(20251)")
                .await
                .unwrap();
            let known = admin
                .query("SELECT FROM pg_database WHERE datname = $1", &[&name])
                .await
                .unwrap();
            if known.is_empty() {
                let draft = format!("{name}_draft");
                admin
                    .batch_execute(&format!("DROP DATABASE IF EXISTS {draft}"))
                    .await
                    .unwrap();
                admin
                    .batch_execute(&format!("CREATE DATABASE {draft} TEMPLATE template0"))
                    .await
                    .unwrap();
                let url = with_database(server_url(), &draft);
                let config = PostgresConfig::parse(&url).unwrap();
                migrate(&config).await.unwrap();
                index_titles(&config).await.unwrap();
                rename(&admin, &draft, &name).await;
            }
            name
        })
        .await
}

/// Renames a database once the server has closed the connection that migrated it.
async fn rename(admin: &Client, from: &str, to: &str) {
    loop {
        let left = admin
            .query("SELECT FROM pg_stat_activity WHERE datname = $1", &[&from])
            .await
            .unwrap();
        if left.is_empty() {
            break;
        }
        tokio::task::yield_now().await;
    }
    admin
        .batch_execute(&format!("ALTER DATABASE {from} RENAME TO {to}"))
        .await
        .unwrap();
}
