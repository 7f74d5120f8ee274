//! The list of articles. One statement returns a page and the total from one snapshot.
//!
//! There are four statements: with or without a search, from an offset or after an article. A single
//! statement for all cases would have a bad query plan in each of them.

use telemetry::Statement;
use tokio_postgres::types::ToSql;

use super::{connections::Connections, error::StatementError};
use crate::{
    domain::{ArticlePage, ListQuery, PageStart},
    store::{
        rows::{self, Utc},
        sql::{article_columns, statement},
    },
};

/// `$filter` selects the articles of the list, `$from` limits them to the articles after the cursor, and
/// `$skip` skips an offset. `$1` is the number of articles, and `$2` the viewer. An empty page is a single
/// row with nulls and the total.
macro_rules! list {
    ($filter:literal, $from:literal, $skip:literal) => {
        statement!(
            "SELECT articles",
            "
        WITH article AS (
            SELECT *
            FROM articles
            WHERE ",
            $filter,
            " AND ",
            $from,
            "
            ORDER BY created_at DESC, id DESC
            LIMIT $1 ",
            $skip,
            "
        )
        SELECT ",
            article_columns!(),
            ",
            EXISTS (SELECT FROM favorites WHERE article_id = article.id AND user_id = $2) AS favorited,
            total.count AS total
        FROM (SELECT count(*) FROM articles WHERE ",
            $filter,
            ") AS total
        LEFT JOIN article ON true
        LEFT JOIN users AS author ON author.id = article.author_id
        ORDER BY article.created_at DESC, article.id DESC",
        )
    };
}

const ALL_FROM_OFFSET: Statement = list!("true", "true", "OFFSET $3");
const ALL_AFTER: Statement = list!("true", "(created_at, id) < ($3, $4)", "");
const FOUND_FROM_OFFSET: Statement = list!("title ILIKE $4", "true", "OFFSET $3");
const FOUND_AFTER: Statement = list!("title ILIKE $5", "(created_at, id) < ($3, $4)", "");

pub(super) async fn list_articles(
    server: &Connections,
    query: &ListQuery,
) -> Result<ArticlePage, StatementError> {
    let viewer = query.viewer.map(|viewer| viewer.0);
    let fetched = query.fetched();
    let pattern = query.search.as_deref().map(containing);
    let statement = match (query.start, &pattern) {
        (PageStart::Offset(_), None) => &ALL_FROM_OFFSET,
        (PageStart::Offset(_), Some(_)) => &FOUND_FROM_OFFSET,
        (PageStart::After(_), None) => &ALL_AFTER,
        (PageStart::After(_), Some(_)) => &FOUND_AFTER,
    };
    let mut params: Vec<&(dyn ToSql + Sync)> = vec![&fetched, &viewer];
    let (skipped, created_at, id);
    match query.start {
        PageStart::Offset(offset) => {
            skipped = offset.max(0);
            params.push(&skipped);
        }
        PageStart::After(last) => {
            (created_at, id) = (Utc(last.created_at), last.id.0);
            params.push(&created_at);
            params.push(&id);
        }
    }
    params.extend(pattern.iter().map(|pattern| pattern as &(dyn ToSql + Sync)));
    let result = server.run_slow(statement, &params).await?;
    let total = result.first(|row| row.try_get("total"))?.unwrap_or_default();
    let first: Option<Option<i32>> = result.first(|row| row.try_get("id"))?;
    let articles = match first.flatten() {
        Some(_) => result.all(rows::article)?,
        None => Vec::new(),
    };
    Ok(ArticlePage::new(query, articles, total))
}

/// Returns a LIKE pattern that matches strings containing `text`, with the wildcards in `text` escaped.
fn containing(text: &str) -> String {
    let escaped = text.replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_");
    format!("%{escaped}%")
}
