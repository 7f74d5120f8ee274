//! The list of articles. One statement returns a page and the total from one snapshot.

use tokio_postgres::types::ToSql;

use super::{connections::Connections, error::StatementError};
use crate::{
    domain::{ArticlePage, ListQuery, PageStart},
    store::{
        list::{Shape, Statements},
        rows::{self, Utc},
        sql::article_columns,
    },
};

static LIST: Statements = Statements::new(text);

/// Returns the text of a statement. `$1` is the number of articles, and `$2` the viewer; the start of the
/// page, the search pattern and the author follow, if there are any. An empty page is a single row with nulls
/// and the total.
///
/// The articles after those that fit into the maximum size stay on the server, which knows the size of a text
/// without reading it.
fn text(shape: Shape) -> String {
    let mut last = 2;
    let mut next = || {
        last += 1;
        format!("${last}")
    };
    let (start, skip) = if shape.after {
        let start = format!("(created_at, id) {} ({}, {})", shape.beyond(), next(), next());
        (start, String::new())
    } else {
        ("true".to_owned(), format!("OFFSET {}", next()))
    };
    let mut filter = "true".to_owned();
    if shape.search {
        filter += &format!(" AND title ILIKE {}", next());
    }
    if shape.author {
        filter += &format!(" AND author_id = {}", next());
    }
    if let Some(favorited) = shape.favorited {
        let not = if favorited { "" } else { "NOT " };
        filter += &format!(
            " AND {not}EXISTS (SELECT FROM favorites WHERE article_id = articles.id AND user_id = $2)"
        );
    }
    let direction = shape.direction();
    format!(
        "
        WITH candidate AS (
            SELECT *
            FROM articles
            WHERE {filter} AND {start}
            ORDER BY created_at {direction}, id {direction}
            LIMIT $1 {skip}
        ), article AS (
            SELECT *,
                count(*) OVER () AS found,
                row_number() OVER listed AS position,
                sum(octet_length(title) + octet_length(description) + octet_length(body))
                    OVER listed AS bytes
            FROM candidate
            WINDOW listed AS (ORDER BY created_at {direction}, id {direction} ROWS UNBOUNDED PRECEDING)
        )
        SELECT {columns},
            EXISTS (SELECT FROM favorites WHERE article_id = article.id AND user_id = $2) AS favorited,
            article.found,
            total.count AS total
        FROM (SELECT count(*) FROM articles WHERE {filter}) AS total
        LEFT JOIN article ON article.position = 1 OR article.bytes <= {max_bytes}
        LEFT JOIN users AS author ON author.id = article.author_id
        ORDER BY article.created_at {direction}, article.id {direction}",
        columns = article_columns!(),
        max_bytes = ListQuery::MAX_BYTES,
    )
}

pub(super) async fn list_articles(
    server: &Connections,
    query: &ListQuery,
) -> Result<ArticlePage, StatementError> {
    let viewer = query.viewer.map(|viewer| viewer.0);
    let fetched = query.fetched();
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
    let pattern = query.search.as_deref().map(containing);
    params.extend(pattern.iter().map(|pattern| pattern as &(dyn ToSql + Sync)));
    let author = query.author.map(|author| author.0);
    params.extend(author.iter().map(|author| author as &(dyn ToSql + Sync)));
    let result = server.run_slow(LIST.get(Shape::of(query)), &params).await?;
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
