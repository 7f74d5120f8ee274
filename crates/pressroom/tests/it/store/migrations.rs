//! Migrations on PostgreSQL: creation of the schema, adoption of Flask's schema, and sharing it with Flask.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use jiff::Timestamp;
use pressroom::{
    domain::{Email, ListQuery, NewUser, PasswordHash, UserChanges, UserId},
    store::{AccountStore, ArticleStore, Constraint, HealthStore, StoreError, postgres::migrate},
};
use tokio::time::timeout;
use tokio_postgres::Client;

use crate::support::{
    eventually,
    postgres::{Database, MIGRATIONS},
};

/// Output of `pg_dump` for the schema of the reference implementation.
pub const FLASK_SCHEMA: &str = include_str!("../../vectors/flask-schema.sql");

/// Indexes that the migrations add to Flask's tables.
const ADDED_INDEXES: [&str; 5] = [
    "ix_articles_author_newest",
    "ix_articles_newest",
    "ix_favorites_article_id",
    "ix_users_email_lower",
    "ix_users_password_scheme",
];

/// Triggers that the migrations add to Flask's tables.
const ADDED_TRIGGERS: [&str; 3] = ["articles_deleted", "articles_inserted", "articles_truncated"];

/// Query that describes each column, index, constraint, sequence and trigger of Flask's tables in a row.
const DESCRIPTION: &str = "
    SELECT concat_ws(' ', 'column', table_name, ordinal_position, column_name, column_default,
        is_nullable, data_type, character_maximum_length, datetime_precision, is_identity)
    FROM information_schema.columns
    WHERE table_name IN ('users', 'articles', 'favorites')
    UNION ALL
    SELECT concat_ws(' ', 'index', tablename, indexname, indexdef)
    FROM pg_indexes
    WHERE tablename IN ('users', 'articles', 'favorites') AND indexname <> ALL ($1)
    UNION ALL
    SELECT concat_ws(' ', 'constraint', conrelid::regclass, conname, contype,
        pg_get_constraintdef(oid))
    FROM pg_constraint
    WHERE conrelid IN ('users'::regclass, 'articles'::regclass, 'favorites'::regclass)
        AND contype <> 'n' -- NOT NULL, listed from version 18 on; is_nullable of the columns shows it
    UNION ALL
    SELECT concat_ws(' ', 'sequence', sequencename, data_type, start_value, min_value, max_value,
        increment_by, cycle, cache_size,
        pg_get_serial_sequence('users', 'id'), pg_get_serial_sequence('articles', 'id'),
        pg_get_serial_sequence('favorites', 'id'))
    FROM pg_sequences
    WHERE sequencename IN ('users_id_seq', 'articles_id_seq', 'favorites_id_seq')
    UNION ALL
    SELECT concat_ws(' ', 'trigger', tgrelid::regclass, tgname)
    FROM pg_trigger
    WHERE NOT tgisinternal AND tgname <> ALL ($2)
    ORDER BY 1";

async fn description(client: &Client) -> Vec<String> {
    let indexes = ADDED_INDEXES.map(str::to_owned).to_vec();
    let triggers = ADDED_TRIGGERS.map(str::to_owned).to_vec();
    let rows = client.query(DESCRIPTION, &[&indexes, &triggers]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Creates a database with Flask's schema and some rows.
async fn flask_database() -> Database {
    let database = Database::empty().await;
    let client = database.client().await;
    client.batch_execute(FLASK_SCHEMA).await.unwrap();
    client
        .batch_execute(
            "
            SET search_path TO public;
            INSERT INTO users (email, password_hash, name, bio, image, created_at, updated_at)
            VALUES ('ann@example.com', 'hash', 'Ann', '', '', '2025-01-02 03:04:05.678901', now()),
                ('Ann@Example.com', 'other', 'Ann again', '', '', now(), now());
            INSERT INTO articles (slug, title, description, body, author_id, favorites_count,
                created_at, updated_at)
            VALUES ('one-1', 'One', '', 'body', 1, 1, now(), now());
            INSERT INTO favorites (user_id, article_id, created_at) VALUES (2, 1, now())",
        )
        .await
        .unwrap();
    database
}

#[tokio::test]
async fn a_fresh_schema_equals_the_schema_of_flask() {
    let flask = Database::empty().await;
    let client = flask.client().await;
    client.batch_execute(FLASK_SCHEMA).await.unwrap();
    client.batch_execute("SET search_path TO public").await.unwrap();
    let expected = description(&client).await;
    // 21 columns, 6 indexes, 7 constraints, 3 sequences.
    assert_eq!(expected.len(), 37, "{expected:#?}");

    let migrated = Database::empty().await;
    migrate(&migrated.config()).await.unwrap();
    let client = migrated.client().await;
    assert_eq!(description(&client).await, expected);
    let added = client
        .query(
            "SELECT FROM pg_indexes WHERE indexname = ANY ($1)",
            &[&ADDED_INDEXES.map(str::to_owned).to_vec()],
        )
        .await
        .unwrap();
    assert_eq!(added.len(), ADDED_INDEXES.len());
    let added = "SELECT tgname::text FROM pg_trigger WHERE NOT tgisinternal ORDER BY tgname";
    let added = client.query(added, &[]).await.unwrap();
    let added: Vec<&str> = added.iter().map(|row| row.get(0)).collect();
    assert_eq!(added, ADDED_TRIGGERS);
}

#[tokio::test]
async fn a_database_of_flask_is_adopted_with_its_rows() {
    let database = flask_database().await;
    let store = database.store();
    assert_eq!(store.state().await.unwrap().schema.applied, None);
    let applied = migrate(&database.config()).await.unwrap().applied;
    assert_eq!(applied.len(), MIGRATIONS.len(), "{applied:?}");
    assert!(store.state().await.unwrap().schema.is_current());
    assert!(migrate(&database.config()).await.unwrap().applied.is_empty());

    let article = store
        .find_article("one-1", Some(UserId(2)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((article.favorites_count, article.favorited), (1, true));
    let ann = store.find_session(UserId(1), &key()).await.unwrap().unwrap().user;
    assert_eq!(ann.created_at.to_string(), "2025-01-02T03:04:05.678901Z");

    // Flask can still write.
    let flask = database.client().await;
    flask
        .batch_execute(
            "
            INSERT INTO users (email, password_hash, name, bio, image, created_at, updated_at)
            VALUES ('bob@example.com', 'hash', 'Bob', '', '', now(), now());
            INSERT INTO favorites (user_id, article_id, created_at) VALUES (1, 1, now());
            DELETE FROM favorites WHERE article_id = 1;
            DELETE FROM articles WHERE id = 1",
        )
        .await
        .unwrap();
    let page = store
        .list_articles(ListQuery {
            limit: 20,
            ..ListQuery::default()
        })
        .await
        .unwrap();
    assert_eq!(page.total, 0);
}

fn key() -> pressroom::domain::TokenKey {
    pressroom::domain::TokenKey("key".to_owned())
}

fn new_user(email: &str) -> NewUser {
    NewUser {
        email: Email::parse(email).unwrap(),
        password_hash: PasswordHash("hash".to_owned()),
        name: "Name".to_owned(),
        created_at: Timestamp::UNIX_EPOCH,
    }
}

#[tokio::test]
async fn existing_accounts_that_differ_only_in_case_stay_separate() {
    let database = flask_database().await;
    migrate(&database.config()).await.unwrap();
    let store = database.store();
    for (typed, id) in [
        ("ann@example.com", 1),
        ("Ann@Example.com", 2),
        ("ANN@example.com", 1),
    ] {
        let found = store.find_credentials(&Email::parse(typed).unwrap()).await;
        assert_eq!(found.unwrap().unwrap().user.id, UserId(id), "{typed}");
    }
    let rejected = store.insert_user(new_user("aNN@example.com")).await;
    assert!(matches!(
        rejected,
        Err(StoreError::Conflict(Constraint::UserEmail))
    ));
    // Each account may keep its address or change its case, but not to the spelling of the other account.
    let to = |address: &str| UserChanges {
        email: Some(Email::parse(address).unwrap()),
        ..UserChanges::default()
    };
    for address in ["ann@example.com", "ANN@example.com"] {
        let updated = store
            .update_user(UserId(1), to(address), Timestamp::UNIX_EPOCH)
            .await;
        assert_eq!(updated.unwrap().unwrap().email, address);
    }
    let rejected = store
        .update_user(UserId(1), to("Ann@Example.com"), Timestamp::UNIX_EPOCH)
        .await;
    assert!(matches!(
        rejected,
        Err(StoreError::Conflict(Constraint::UserEmail))
    ));
}

#[tokio::test]
async fn a_concurrent_insert_by_flask_is_a_conflict() {
    let database = Database::migrated().await;
    let store = database.store();
    let mut flask = database.client().await;
    let flask_insert = flask.transaction().await.unwrap();
    flask_insert
        .batch_execute(
            "INSERT INTO users (email, password_hash, name, bio, image, created_at, updated_at)
            VALUES ('ann@example.com', 'hash', 'Ann', '', '', now(), now())",
        )
        .await
        .unwrap();
    // The store does not see Flask's uncommitted row. Flask does not take the store's lock, so the store's
    // insert proceeds to the unique index and waits there.
    let (inserted, committed) = tokio::join!(store.insert_user(new_user("ann@example.com")), async {
        let waiting = database.client().await;
        loop {
            let blocked = waiting
                .query(
                    "SELECT FROM pg_stat_activity WHERE datname = current_database()
                    AND wait_event = 'transactionid'",
                    &[],
                )
                .await
                .unwrap();
            if !blocked.is_empty() {
                break;
            }
        }
        flask_insert.commit().await
    });
    committed.unwrap();
    assert!(
        matches!(inserted, Err(StoreError::Conflict(Constraint::UserEmail))),
        "{inserted:?}"
    );
}

#[tokio::test]
async fn concurrent_migrations_are_applied_once() {
    let database = Database::empty().await;
    let config = database.config();
    let applied = join_all((0..5).map(|_| migrate(&config))).await;
    let mut counts: Vec<_> = applied
        .into_iter()
        .map(|migrated| migrated.unwrap().applied.len())
        .collect();
    counts.sort_unstable();
    assert_eq!(counts, [0, 0, 0, 0, MIGRATIONS.len()]);
}

#[tokio::test]
async fn a_newer_schema_is_current_and_an_older_one_is_not() {
    let database = Database::migrated().await;
    let store = database.store();
    let client = database.client().await;
    let needed = store.state().await.unwrap().schema.needed;
    client
        .batch_execute("INSERT INTO refinery_schema_history VALUES (999, 'later', '', '0')")
        .await
        .unwrap();
    let state = store.state().await.unwrap();
    assert_eq!(state.problem(), None);
    assert_eq!(
        state.notice(),
        Some(format!("schema is newer (V999) than this release (V{needed})"))
    );
    let migrated = migrate(&database.config()).await.unwrap();
    assert_eq!((migrated.applied.len(), migrated.newer), (0, Some(999)));
    client
        .batch_execute("DELETE FROM refinery_schema_history WHERE version > 1")
        .await
        .unwrap();
    assert_eq!(
        store.state().await.unwrap().problem(),
        Some(format!(
            "schema is at V1, this release needs V{needed}: run pressroom migrate"
        ))
    );
}

/// Removes what the migrations after V5 have added.
const BACK_TO_V5: &str = "
    DROP FUNCTION count_articles CASCADE;
    DROP TABLE article_count_changes, ended_sessions, notified_events;
    DROP INDEX ix_users_password_scheme;
    DELETE FROM refinery_schema_history WHERE version > 5;";

/// Removes what the migrations after V4 have added, from V5.
const BACK_TO_V4: &str = "
    CREATE INDEX ix_articles_author_id ON articles (author_id);
    DROP INDEX ix_articles_author_newest;
    DELETE FROM refinery_schema_history WHERE version > 4;";

/// Opens a transaction that executes `statement`, migrates meanwhile, and asserts that statements of others proceed while
/// a statement of the migration that contains `waiting` waits for the transaction.
async fn assert_a_migration_delays_nobody(database: &Database, statement: &str, waiting: &str) {
    /// Maximum duration of a statement of others: far above the wait for one attempt to lock a table, and below the
    /// time-out of the service's statements.
    const LIMIT: Duration = Duration::from_secs(1);
    let mut busy = database.client().await;
    let long = busy.transaction().await.unwrap();
    long.batch_execute(statement).await.unwrap();
    let config = database.config();
    let migration = tokio::spawn(async move { migrate(&config).await });
    let client = database.client().await;
    eventually("the migration to wait for the transaction", async || {
        let found = "SELECT FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock' AND strpos(query, $1) > 0";
        (!client.query(found, &[&waiting]).await.unwrap().is_empty()).then_some(())
    })
    .await;
    let start = Instant::now();
    // Longer than the interval between two attempts.
    while start.elapsed() < Duration::from_secs(3) {
        for statement in [
            "SELECT count(*) FROM articles",
            "INSERT INTO articles (slug, title, description, body, author_id, favorites_count, created_at, updated_at)
                VALUES (gen_random_uuid(), 'Two', '', 'body', 2, 0, now(), now())",
            "INSERT INTO favorites (user_id, article_id, created_at) SELECT 2, max(id), now() FROM articles",
            "UPDATE articles SET title = title WHERE id > 1",
            "UPDATE users SET name = name WHERE id = 2",
        ] {
            timeout(LIMIT, client.batch_execute(statement))
                .await
                .unwrap_or_else(|_| panic!("{statement} waits for the migration"))
                .unwrap();
        }
    }
    assert!(!migration.is_finished(), "{:?}", migration.await);
    long.commit().await.unwrap();
    migration.await.unwrap().unwrap();
    let state = database.store().state().await.unwrap();
    assert!(state.schema.is_current());
    let left = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid
        UNION ALL SELECT indexrelid::regclass::text FROM pg_stat_user_indexes WHERE indexrelname = 'ix_articles_author_id'";
    assert!(client.query(left, &[]).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_waits_for_a_long_transaction_without_delaying_others() {
    const WRITE: &str =
        "UPDATE articles SET title = title WHERE id = 1; UPDATE users SET name = name WHERE id = 1";
    const CREATE: &str = "CREATE INDEX CONCURRENTLY";
    let database = flask_database().await;
    assert_a_migration_delays_nobody(&database, WRITE, CREATE).await;
    let client = database.client().await;
    client.batch_execute(BACK_TO_V5).await.unwrap();
    assert_a_migration_delays_nobody(&database, WRITE, "CREATE TABLE article_count_changes").await;
    for (statement, waiting) in [
        ("SELECT FROM articles", "DROP INDEX CONCURRENTLY"),
        (WRITE, CREATE),
    ] {
        client.batch_execute(BACK_TO_V5).await.unwrap();
        client.batch_execute(BACK_TO_V4).await.unwrap();
        assert_a_migration_delays_nobody(&database, statement, waiting).await;
    }
}

#[tokio::test]
async fn an_index_that_an_interrupted_migration_left_behind_is_replaced() {
    let database = flask_database().await;
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE INDEX ix_articles_newest ON articles (created_at);
            UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_articles_newest'::regclass",
        )
        .await
        .unwrap();
    migrate(&database.config()).await.unwrap();
    let definition = "SELECT pg_get_indexdef(indexrelid) FROM pg_index
        WHERE indexrelid = 'ix_articles_newest'::regclass AND indisvalid";
    let definition: String = client.query_one(definition, &[]).await.unwrap().get(0);
    assert!(definition.ends_with("(created_at DESC, id DESC)"), "{definition}");
}

#[tokio::test]
async fn a_migration_fails_as_unavailable_while_a_table_is_locked() {
    let database = Database::migrated().await;
    let mut busy = database.client().await;
    busy.batch_execute(BACK_TO_V5).await.unwrap();
    let long = busy.transaction().await.unwrap();
    long.batch_execute("LOCK TABLE articles IN ROW EXCLUSIVE MODE")
        .await
        .unwrap();
    let rejected = migrate(&database.config()).await;
    assert!(
        matches!(rejected, Err(StoreError::Unavailable(_))),
        "{rejected:?}"
    );
    long.commit().await.unwrap();
    // V6 needs the table, so it and the later ones were not applied.
    assert_eq!(
        migrate(&database.config()).await.unwrap().applied.len(),
        MIGRATIONS.len() - 5
    );
}
