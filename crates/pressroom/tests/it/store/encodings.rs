//! Databases whose encoding is not UTF-8, and missing schemas: a value that the encoding cannot represent is the
//! caller's error, and a missing table is an outage.

use std::sync::Arc;

use pressroom::{
    domain::{Email, ListQuery},
    store::{
        AccountStore, ArticleStore, StoreError,
        postgres::{PostgresConfig, PostgresStore, migrate},
        sqlite::SqliteStore,
    },
};
use serde_json::{Value, json};

use super::{
    fixture::{at, new_article, new_user, task},
    migrations::FLASK_SCHEMA,
};
use crate::support::{api, postgres::Database, raw, sqlite::File};

async fn store_in(encoding: &str) -> (PostgresStore, Database) {
    let database = Database::encoded(encoding).await;
    migrate(&database.config()).await.unwrap();
    (database.store(), database)
}

fn search(text: &str) -> ListQuery {
    ListQuery {
        limit: 20,
        search: Some(text.to_owned()),
        ..ListQuery::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_latin1_cannot_represent_is_unsuitable_or_not_found() {
    let (store, _database) = store_in("LATIN1").await;
    let author = store.insert_user(new_user("ann@example.com")).await.unwrap();
    let latin1 = store
        .insert_article(new_article("é", author.id, at(1)), task(1, at(1)))
        .await;
    assert_eq!(latin1.unwrap().title, "é");
    let added = store
        .insert_article(new_article("Ž", author.id, at(2)), task(2, at(2)))
        .await;
    assert!(matches!(added, Err(StoreError::UnsuitableValue(_))), "{added:?}");
    let found = store.list_articles(search("Ž")).await;
    assert!(matches!(found, Err(StoreError::UnsuitableValue(_))), "{found:?}");
    assert_eq!(store.list_articles(search("é")).await.unwrap().total, 1);
    assert!(store.find_article("Ž", None).await.unwrap().is_none());
    assert!(store.favorite("Ž", author.id, at(3)).await.unwrap().is_none());
    let email = Email::parse("ž@example.com").unwrap();
    assert!(store.find_credentials(&email).await.unwrap().is_none());
}

/// Text columns of SQL_ASCII databases are limited in bytes.
#[tokio::test(flavor = "multi_thread")]
async fn text_that_is_too_long_in_bytes_is_unsuitable() {
    let (store, _database) = store_in("SQL_ASCII").await;
    let author = store.insert_user(new_user("ann@example.com")).await.unwrap();
    let mut article = new_article("short", author.id, at(1));
    article.draft.title = "é".repeat(127);
    let added = store.insert_article(article.clone(), task(1, at(1))).await;
    assert_eq!(added.unwrap().title, article.draft.title);
    article.slug = "long".to_owned();
    article.draft.title = "é".repeat(128);
    let added = store.insert_article(article, task(2, at(2))).await;
    assert!(matches!(added, Err(StoreError::UnsuitableValue(_))), "{added:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_text_of_a_client_causes_an_internal_error() {
    for encoding in ["LATIN1", "SQL_ASCII", "EUC_JP"] {
        let (store, _database) = store_in(encoding).await;
        let api = api::start(Arc::new(store)).await;
        let address = api.address;
        let token = raw::register(address, "alice@example.com").await;
        let draft = json!({"title": "one", "body": "x"});
        let created = raw::request(address, "POST", "/api/articles/", Some(&token), Some(&draft)).await;
        let slug = created.json()["slug"].as_str().unwrap().to_owned();
        for text in ["€", "Ž", "日本", "😀", "\u{85}", "é"].map(|text| text.repeat(255)) {
            let encoded: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
            let article = json!({"title": text, "description": text, "body": text});
            let user = json!({"name": text, "bio": text, "image": text});
            let local_part: String = text.chars().take(8).collect();
            let credentials = json!({"email": format!("{local_part}@example.com"), "password": "password1"});
            let mut registration = credentials.clone();
            registration["name"] = Value::from(text.clone());
            let article_path = format!("/api/articles/{slug}");
            let other_path = format!("/api/articles/{encoded}");
            let favorite = format!("/api/articles/{encoded}/favorite");
            let list = format!("/api/articles/?search={encoded}");
            for (method, target, body) in [
                ("POST", "/api/articles/", Some(&article)),
                ("PUT", &article_path, Some(&article)),
                ("GET", &other_path, None),
                ("PUT", &other_path, Some(&article)),
                ("DELETE", &other_path, None),
                ("POST", &favorite, None),
                ("DELETE", &favorite, None),
                ("GET", &list, None),
                ("PUT", "/api/user", Some(&user)),
                ("POST", "/api/login", Some(&credentials)),
                ("POST", "/api/register", Some(&registration)),
            ] {
                let response = raw::request(address, method, target, Some(&token), body).await;
                assert!(
                    (200..500).contains(&response.status),
                    "{encoding}: {method} {target}: {}",
                    response.status
                );
                if response.status >= 400 {
                    assert!(response.json()["error"]["code"].is_string());
                }
            }
        }
    }
}

/// Other programs can write any bytes into `SQL_ASCII`.
#[tokio::test(flavor = "multi_thread")]
async fn text_that_is_not_utf8_is_readable_and_does_not_hide_other_rows() {
    let (store, database) = store_in("SQL_ASCII").await;
    let author = store.insert_user(new_user("ann@example.com")).await.unwrap();
    for title in ["one", "two"] {
        let new = new_article(title, author.id, at(1));
        store.insert_article(new, task(1, at(1))).await.unwrap();
    }
    let bytes = r"UPDATE articles SET title = convert_from('\x61ff', 'SQL_ASCII') WHERE slug = 'one'";
    database.client().await.batch_execute(bytes).await.unwrap();
    assert_unreadable_byte_is_replaced(&store).await;

    // Behind a pooler in transaction mode, the server checks the encoding of rows.
    let url = format!("{}?pool_mode=transaction", database.url);
    let store = PostgresStore::connect(&PostgresConfig::parse(&url).unwrap()).unwrap();
    let unreadable = store.find_article("one", None).await;
    assert!(
        matches!(unreadable, Err(StoreError::Unavailable(_))),
        "{unreadable:?}"
    );
    assert!(store.find_article("two", None).await.unwrap().is_some());
}

#[tokio::test]
async fn text_that_is_not_utf8_is_readable_on_sqlite() {
    let file = File::new();
    let store = SqliteStore::open(&file.url()).unwrap();
    let author = store.insert_user(new_user("ann@example.com")).await.unwrap();
    for title in ["one", "two"] {
        let new = new_article(title, author.id, at(1));
        store.insert_article(new, task(1, at(1))).await.unwrap();
    }
    let bytes = "UPDATE articles SET title = CAST(x'61ff' AS TEXT) WHERE slug = 'one'";
    rusqlite::Connection::open(file.path())
        .unwrap()
        .execute(bytes, ())
        .unwrap();
    assert_unreadable_byte_is_replaced(&store).await;
}

async fn assert_unreadable_byte_is_replaced(store: &impl ArticleStore) {
    let found = store.find_article("one", None).await.unwrap().unwrap();
    assert_eq!(found.title, "a\u{fffd}");
    let query = ListQuery {
        limit: 20,
        ..ListQuery::default()
    };
    assert_eq!(store.list_articles(query).await.unwrap().articles.len(), 2);
    assert_eq!(store.list_articles(search("two")).await.unwrap().total, 1);
}

#[tokio::test]
async fn a_table_that_is_missing_in_sqlite_is_unavailable_and_names_the_remedy() {
    let file = File::new();
    let store = SqliteStore::open(&file.url()).unwrap();
    let author = store.insert_user(new_user("ann@example.com")).await.unwrap();
    let admin = rusqlite::Connection::open(file.path()).unwrap();
    for change in [
        "ALTER TABLE outbox RENAME COLUMN trace TO traces",
        "ALTER TABLE favorites RENAME TO likes",
        "ALTER TABLE outbox RENAME TO inbox",
    ] {
        admin.execute_batch(change).unwrap();
        let added = store
            .insert_article(new_article("one", author.id, at(1)), task(1, at(1)))
            .await;
        assert_remedy(&added.unwrap_err(), "no ");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_schema_is_unavailable_and_names_the_remedy() {
    let database = Database::empty().await;
    let store = database.store();
    let missing = store.find_article("x", None).await.unwrap_err();
    assert_remedy(&missing, "42P01");

    // Only the tables of the reference implementation.
    let database = Database::empty().await;
    // On a connection of its own, because the dump changes the connection's settings.
    database.client().await.batch_execute(FLASK_SCHEMA).await.unwrap();
    let store = database.store();
    let author = store.insert_user(new_user("ann@example.com")).await.unwrap();
    let added = store
        .insert_article(new_article("one", author.id, at(1)), task(1, at(1)))
        .await;
    assert_remedy(&added.unwrap_err(), "42P01");

    // Without a column that this release needs.
    migrate(&database.config()).await.unwrap();
    let admin = database.client().await;
    admin
        .batch_execute("ALTER TABLE outbox DROP COLUMN trace")
        .await
        .unwrap();
    let added = store
        .insert_article(new_article("one", author.id, at(1)), task(1, at(1)))
        .await;
    assert_remedy(&added.unwrap_err(), "42703");
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_the_server_are_outages_and_rejections_by_the_schema_are_not() {
    let database = Database::migrated().await;
    let store = database.store();
    let author = store.insert_user(new_user("ann@example.com")).await.unwrap();
    let admin = database.client().await;
    for (code, is_outage) in [
        ("53100", true),
        ("57P01", true),
        ("58000", true),
        ("58030", true),
        ("58P01", true),
        ("XX001", true),
        ("XX002", true),
        ("XX000", false),
        ("23514", false),
        ("P0001", false),
    ] {
        let trigger = format!(
            "CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql
                 AS 'BEGIN RAISE EXCEPTION ''broken'' USING ERRCODE = ''{code}''; END';
             CREATE OR REPLACE TRIGGER fail BEFORE INSERT ON articles FOR EACH ROW EXECUTE FUNCTION fail()"
        );
        admin.batch_execute(&trigger).await.unwrap();
        let added = store
            .insert_article(new_article("one", author.id, at(1)), task(1, at(1)))
            .await;
        let error = added.unwrap_err();
        assert_eq!(
            matches!(error, StoreError::Unavailable(_)),
            is_outage,
            "{code}: {error}"
        );
        assert!(error.to_string().contains(code), "{error}");
    }
}

fn assert_remedy(error: &StoreError, code: &str) {
    let StoreError::Unavailable(reason) = error else {
        panic!("{error}");
    };
    assert!(
        reason.contains(code) && reason.contains("pressroom migrate"),
        "{reason}"
    );
}
