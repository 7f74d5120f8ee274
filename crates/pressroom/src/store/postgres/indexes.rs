//! Builds and drops indexes without blocking readers or writers of their tables, which is only possible outside of a
//! transaction. An interrupted build leaves an invalid index behind, which the next build replaces.
#![expect(
    clippy::disallowed_methods,
    reason = "no request waits for an index, and the statements are constants or come from the migration files"
)]

use tokio_postgres::{Client, Error, SimpleQueryMessage};

/// Builds the index `name` with the statement `create` and returns true, unless a valid index of that name exists.
pub(super) async fn build(client: &Client, name: &str, create: &str) -> Result<bool, Error> {
    let drop = format!("DROP INDEX CONCURRENTLY IF EXISTS {name}");
    let valid = format!("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('{name}')");
    match first(client, &valid).await?.as_deref() {
        Some("t") => return Ok(false),
        Some(_) => client.batch_execute(&drop).await?,
        None => {}
    }
    if let Err(error) = client.batch_execute(create).await {
        // Otherwise writers would maintain an index that no query uses. If this fails, the next build drops it.
        let _dropped = client.batch_execute(&drop).await;
        return Err(error);
    }
    Ok(true)
}

/// Executes the statements of a migration that create an index on an existing table or drop one, and returns the others.
///
/// Such a statement starts at the beginning of a line, and cannot use what the same migration adds to the table.
pub(super) async fn execute_index_statements(client: &Client, migration: &str) -> Result<String, Error> {
    let mut others = String::new();
    for statement in migration.split_inclusive(";\n") {
        let lines = statement.split_inclusive('\n');
        let comments = lines.take_while(|line| line.trim().is_empty() || line.starts_with("--"));
        let sql = &statement[comments.map(str::len).sum()..];
        let concurrent = sql.replacen("INDEX", "INDEX CONCURRENTLY", 1);
        if sql.starts_with("DROP INDEX ") {
            client.batch_execute(&concurrent).await?;
            continue;
        }
        if let Some((name, table)) = created_index(sql) {
            let exists = format!("SELECT to_regclass('{table}')");
            if first(client, &exists).await?.is_some() {
                build(client, name, &concurrent).await?;
                continue;
            }
        }
        others.push_str(statement);
    }
    Ok(others)
}

/// Returns the names of the index and the table if `sql` creates an index.
fn created_index(sql: &str) -> Option<(&str, &str)> {
    if !sql.starts_with("CREATE INDEX ") && !sql.starts_with("CREATE UNIQUE INDEX ") {
        return None;
    }
    let (before, after) = sql.split_once(" ON ")?;
    Some((
        before.split_whitespace().last()?,
        after.split_whitespace().next()?,
    ))
}

/// Returns the first value of the first row, or `None` without a row or if the value is null.
pub(super) async fn first(client: &Client, query: &str) -> Result<Option<String>, Error> {
    let messages = client.simple_query(query).await?;
    Ok(messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    }))
}
