//! The list of articles: two statements that see the same moment.

use rusqlite::params;
use telemetry::Statement;

use super::{
    articles::{article, article_columns},
    connections::Connections,
    error::StatementError,
    value::{Utc, folded},
};
use crate::articles::{ArticlePage, ListQuery, PageStart};

/// `?1` is the folded search or null, `?2` the viewer, `?3` the page's length.
macro_rules! page {
    ($start:literal, $skip:literal) => {
        Statement::new(
            "SELECT",
            "articles",
            "SELECT articles",
            concat!(
                "SELECT ",
                article_columns!(),
                ",
            EXISTS (SELECT 1 FROM favorites WHERE article_id = article.id AND user_id = ?2)
        FROM articles AS article
        JOIN users AS author ON author.id = article.author_id
        WHERE (?1 IS NULL OR instr(article.title_folded, ?1) > 0) AND ",
                $start,
                "
        ORDER BY article.created_at DESC, article.id DESC
        LIMIT ?3 ",
                $skip,
            ),
        )
    };
}

const FROM_OFFSET: Statement = page!("true", "OFFSET ?4");
const AFTER: Statement = page!("(article.created_at, article.id) < (?4, ?5)", "");

const COUNT: Statement = Statement::new(
    "SELECT",
    "articles",
    "SELECT articles",
    "SELECT count(*) FROM articles WHERE ?1 IS NULL OR instr(title_folded, ?1) > 0",
);

pub(super) async fn list_articles(
    store: &Connections,
    query: ListQuery,
) -> Result<ArticlePage, StatementError> {
    let search = query.search.as_deref().map(folded);
    let viewer = query.viewer.map(|viewer| viewer.0);
    let limit = query.limit.max(0);
    // One more than asked for tells whether there is more.
    let fetched = limit.saturating_add(1);
    let statement = match query.start {
        PageStart::Offset(_) => FROM_OFFSET,
        PageStart::After(_) => AFTER,
    };
    let (total_of, total) = tokio::sync::oneshot::channel();
    let articles = store.read(&statement, move |db| {
        let articles = match query.start {
            PageStart::Offset(offset) => {
                let params = params![search, viewer, fetched, offset.max(0)];
                db.rows(&statement, params, article)?
            }
            PageStart::After(last) => {
                let params = params![search, viewer, fetched, Utc(last.created_at), last.id.0];
                db.rows(&statement, params, article)?
            }
        };
        let total: Option<i64> = db.row(&COUNT, [search], |row| row.get(0))?;
        // A caller that has gone needs no total.
        let _ = total_of.send(total.unwrap_or_default());
        Ok(articles)
    });
    let mut articles = articles.await?;
    let total = total
        .await
        .map_err(|_dropped| StatementError::failed("a list without its total"))?;
    let asked = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = articles.len() > asked;
    articles.truncate(asked);
    Ok(ArticlePage {
        articles,
        total,
        more,
    })
}
