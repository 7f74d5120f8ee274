//! One schema, whoever makes it.
#![expect(
    clippy::disallowed_methods,
    reason = "looks at the database behind the store's back"
)]

use super::{
    Database, Flask, Installation, PASSWORD, create, expect,
    flask::{flask_url, python},
    login, postgres, shown, slug,
};
use crate::support::raw;

/// Columns, constraints and indexes of the tables that both know, as PostgreSQL describes them.
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
async fn a_database_that_flask_made_is_adopted_with_everything_in_it() {
    let (installation, url) = installation().await;
    Flask::create_tables(&installation);
    let made = shared_schema(&url).await;
    assert!(!made.is_empty());
    let flask = Flask::start(&installation).await;
    let alice = raw::register(flask.address, "alice@example.com").await;
    let article = create(flask.address, &alice, "Before").await;

    // Flask goes on meanwhile, and may be asked for its tables again.
    installation.migrate();
    let adopted = shared_schema(&url).await;
    let added: Vec<_> = adopted.iter().filter(|line| !made.contains(line)).collect();
    assert!(
        added.iter().all(|line| line.starts_with("CREATE INDEX ix_")),
        "{added:?}"
    );
    assert_eq!(
        adopted.len(),
        made.len() + added.len(),
        "nothing is taken away or changed"
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
async fn flask_works_on_a_database_that_pressroom_made() {
    let (installation, url) = installation().await;
    installation.migrate();
    let made = shared_schema(&url).await;
    Flask::create_tables(&installation);
    assert_eq!(shared_schema(&url).await, made, "SQLAlchemy misses nothing");

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
async fn both_ways_lead_to_the_same_tables() {
    let (theirs, their_url) = installation().await;
    Flask::create_tables(&theirs);
    theirs.migrate();
    let (ours, our_url) = installation().await;
    ours.migrate();
    assert_eq!(shared_schema(&their_url).await, shared_schema(&our_url).await);
    // The models cover every column: SQLAlchemy can read what it did not make.
    let read = "from models import *; [sessions().query(table).all() for table in (User, Article, Favorite)]";
    assert!(python(&ours, &["-c", read]).status().unwrap().success());
}
