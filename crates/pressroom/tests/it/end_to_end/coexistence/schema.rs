//! The shared schema, created by either side.
#![expect(clippy::disallowed_methods, reason = "tests query the catalogue directly")]

use super::{
    Database, Flask, Installation, PASSWORD, create, expect,
    flask::{flask_url, python},
    login, postgres, shown, slug,
};
use crate::support::raw;

/// Returns PostgreSQL's description of the columns, constraints and indexes of the shared tables.
async fn shared_schema(url: &str) -> Vec<String> {
    const DESCRIBE: &str = "
        SELECT concat_ws(' ', table_name, column_name, data_type, character_maximum_length, is_nullable, column_default)
        FROM information_schema.columns
        WHERE table_name IN ('users', 'articles', 'favorites')
        UNION ALL
        SELECT concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(oid))
        FROM pg_constraint
        WHERE conrelid::regclass::text IN ('users', 'articles', 'favorites')
        UNION ALL
        SELECT indexdef FROM pg_indexes WHERE tablename IN ('users', 'articles', 'favorites')
        ORDER BY 1";
    let client = postgres::client(url).await;
    let rows = client.query(DESCRIBE, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn installation() -> (Installation, String) {
    let database = Database::empty().await;
    let url = database.url.clone();
    let installation = Installation::unmigrated(flask_url(&url), Some(database)).await;
    (installation, url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_created_by_flask_is_adopted_with_its_rows() {
    let (installation, url) = installation().await;
    Flask::create_tables(&installation);
    let created = shared_schema(&url).await;
    assert!(!created.is_empty());
    let flask = Flask::start(&installation).await;
    let alice = raw::register(flask.address, "alice@example.com").await;
    let article = create(flask.address, &alice, "Before").await;

    // Flask keeps running during the migration and may create its tables again.
    installation.migrate();
    let adopted = shared_schema(&url).await;
    let added: Vec<_> = adopted.iter().filter(|line| !created.contains(line)).collect();
    assert!(
        added.iter().all(|line| line.starts_with("CREATE INDEX ix_")),
        "{added:?}"
    );
    assert_eq!(
        adopted.len(),
        created.len() + added.len(),
        "nothing is removed or changed"
    );
    Flask::create_tables(&installation);
    assert_eq!(shared_schema(&url).await, adopted);

    let (_serve, new) = installation.serve_with(&[("PASSWORD_SCHEME", "scrypt")]).await;
    let target = format!("/api/articles/{}", slug(&article));
    let read = expect(200, new, ("GET", &target), None, None).await;
    assert_eq!(shown(&read), shown(&article));
    login(200, new, "alice@example.com", PASSWORD).await;
    create(flask.address, &alice, "After").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flask_works_on_a_database_created_by_pressroom() {
    let (installation, url) = installation().await;
    installation.migrate();
    let created = shared_schema(&url).await;
    Flask::create_tables(&installation);
    assert_eq!(
        shared_schema(&url).await,
        created,
        "SQLAlchemy has nothing to add"
    );

    let (_serve, new) = installation.serve_with(&[("PASSWORD_SCHEME", "scrypt")]).await;
    let alice = raw::register(new, "alice@example.com").await;
    let flask = Flask::start(&installation).await;
    login(200, flask.address, "alice@example.com", PASSWORD).await;
    let article = create(flask.address, &alice, "On new tables").await;
    let target = format!("/api/articles/{}", slug(&article));
    let read = expect(200, new, ("GET", &target), None, None).await;
    assert_eq!(shown(&read), shown(&article));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adopted_and_fresh_databases_have_the_same_tables() {
    let (adopted, adopted_url) = installation().await;
    Flask::create_tables(&adopted);
    adopted.migrate();
    let (fresh, fresh_url) = installation().await;
    fresh.migrate();
    assert_eq!(shared_schema(&adopted_url).await, shared_schema(&fresh_url).await);
    // SQLAlchemy's models can read tables created by Pressroom.
    let read = "from models import *; [sessions().query(table).all() for table in (User, Article, Favorite)]";
    assert!(python(&fresh, &["-c", read]).status().unwrap().success());
}
