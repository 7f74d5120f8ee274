//! The list of articles: one statement gives a page and the total, of one moment.
//!
//! Four texts of it, since a plan that serves all cases serves none: with and without a search,
//! from an offset or after an article.

use telemetry::Statement;

use super::{
    articles::{article, article_columns},
    connections::Connections,
    error::StatementError,
    value::Utc,
};
use crate::articles::{ArticlePage, ListQuery, PageStart};

/// `$filter` decides which articles count, `$from` which of those follow, `$skip` how many of
/// these are left out. `$1` is the page's length and `$2` the viewer. An empty page is one row of
/// nulls and the total.
macro_rules! list {
    ($filter:literal, $from:literal, $skip:literal) => {
        Statement::new(
            "SELECT",
            "articles",
            "SELECT articles",
            concat!(
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
            EXISTS (SELECT FROM favorites WHERE article_id = article.id AND user_id = $2),
            total.count
        FROM (SELECT count(*) FROM articles WHERE ",
                $filter,
                ") AS total
        LEFT JOIN article ON true
        LEFT JOIN users AS author ON author.id = article.author_id
        ORDER BY article.created_at DESC, article.id DESC",
            ),
        )
    };
}

const ALL_FROM_OFFSET: Statement = list!("true", "true", "OFFSET $3");
const ALL_AFTER: Statement = list!("true", "(created_at, id) < ($3, $4)", "");
const FOUND_FROM_OFFSET: Statement = list!("title ILIKE $4", "true", "OFFSET $3");
const FOUND_AFTER: Statement = list!("title ILIKE $5", "(created_at, id) < ($3, $4)", "");

pub(super) async fn list_articles(
    store: &Connections,
    query: &ListQuery,
) -> Result<ArticlePage, StatementError> {
    let viewer = query.viewer.map(|viewer| viewer.0);
    let limit = query.limit.max(0);
    // One more than asked for tells whether there is more.
    let fetched = limit.saturating_add(1);
    let pattern = query.search.as_deref().map(containing);
    let rows = match (query.start, &pattern) {
        (PageStart::Offset(offset), None) => {
            store
                .scan(&ALL_FROM_OFFSET, &[&fetched, &viewer, &offset.max(0)])
                .await?
        }
        (PageStart::Offset(offset), Some(pattern)) => {
            store
                .scan(&FOUND_FROM_OFFSET, &[&fetched, &viewer, &offset.max(0), pattern])
                .await?
        }
        (PageStart::After(last), None) => {
            store
                .scan(
                    &ALL_AFTER,
                    &[&fetched, &viewer, &Utc(last.created_at), &last.id.0],
                )
                .await?
        }
        (PageStart::After(last), Some(pattern)) => {
            store
                .scan(
                    &FOUND_AFTER,
                    &[&fetched, &viewer, &Utc(last.created_at), &last.id.0, pattern],
                )
                .await?
        }
    };
    let total = match rows.first() {
        Some(row) => row.try_get(12)?,
        None => 0,
    };
    let mut articles = Vec::with_capacity(rows.len());
    for row in &rows {
        let id: Option<i32> = row.try_get(0)?;
        if id.is_some() {
            articles.push(article(row)?);
        }
    }
    let asked = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = articles.len() > asked;
    articles.truncate(asked);
    Ok(ArticlePage {
        articles,
        total,
        more,
    })
}

/// The pattern of all texts that contain `text`, whose wildcards stand for themselves.
fn containing(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}
