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

/// Maximum size of the texts on a page, in SQL; equals [`ListQuery::MAX_BYTES`].
macro_rules! max_bytes {
    () => {
        "2097152"
    };
}

/// `$filter` selects the articles of the list, `$from` limits them to the articles after the cursor, and
/// `$skip` skips an offset. `$1` is the number of articles, and `$2` the viewer. An empty page is a single
/// row with nulls and the total.
///
/// The articles after those that fit into the maximum size stay on the server, which knows the size of a text
/// without reading it.
macro_rules! list {
    ($filter:literal, $from:literal, $skip:literal) => {
        statement!(
            "SELECT articles",
            "
        WITH candidate AS (
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
        ), article AS (
            SELECT *,
                count(*) OVER () AS found,
                row_number() OVER newest AS position,
                sum(octet_length(title) + octet_length(description) + octet_length(body))
                    OVER newest AS bytes
            FROM candidate
            WINDOW newest AS (ORDER BY created_at DESC, id DESC ROWS UNBOUNDED PRECEDING)
        )
        SELECT ",
            article_columns!(),
            ",
            EXISTS (SELECT FROM favorites WHERE article_id = article.id AND user_id = $2) AS favorited,
            article.found,
            total.count AS total
        FROM (SELECT count(*) FROM articles WHERE ",
            $filter,
            ") AS total
        LEFT JOIN article ON article.position = 1 OR article.bytes <= ",
            max_bytes!(),
            "
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
    let found: Option<Option<i64>> = result.first(|row| row.try_get("found"))?;
    let Some(found) = found.flatten() else {
        return Ok(ArticlePage::new(query, Vec::new(), 0, total));
    };
    let articles = result.all(rows::article)?;
    let found = usize::try_from(found).unwrap_or_default();
    Ok(ArticlePage::new(query, articles, found, total))
}

/// Returns the LIKE pattern of the texts that contain `text`, with its wildcards escaped.
fn containing(text: &str) -> String {
    let escaped = text.replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_");
    format!("%{escaped}%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statements_have_the_maximum_size_of_a_page() {
        assert_eq!(max_bytes!(), ListQuery::MAX_BYTES.to_string());
    }
}
