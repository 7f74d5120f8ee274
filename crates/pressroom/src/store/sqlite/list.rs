//! The list of articles, read by two statements that see the same snapshot.

use std::time::Duration;

use rusqlite::{Row, params};
use telemetry::{Returned, Statement};
use tokio::time::timeout;

use super::{SqliteStore, value::folded};
use crate::{
    domain::{ArticlePage, ListQuery, PageStart},
    store::{
        Result, StoreError,
        rows::{self, Utc},
        sql::{article_columns, statement},
    },
};

/// Maximum wait for other pages.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// `?1` is the folded search text or null, `?2` the viewer, and `?3` the number of articles.
macro_rules! page {
    ($start:literal, $skip:literal) => {
        statement!(
            "SELECT articles",
            "SELECT ",
            article_columns!(),
            ",
            EXISTS (SELECT 1 FROM favorites WHERE article_id = article.id AND user_id = ?2) AS favorited
        FROM articles AS article
        JOIN users AS author ON author.id = article.author_id
        WHERE (?1 IS NULL OR instr(article.title_folded, ?1) > 0) AND ",
            $start,
            "
        ORDER BY article.created_at DESC, article.id DESC
        LIMIT ?3 ",
            $skip,
        )
    };
}

const FROM_OFFSET: Statement = page!("true", "OFFSET ?4");
const AFTER: Statement = page!("(article.created_at, article.id) < (?4, ?5)", "");

const COUNT: Statement = statement!(
    "SELECT articles",
    "SELECT count(*) FROM articles WHERE ?1 IS NULL OR instr(title_folded, ?1) > 0",
);

pub(super) async fn list_articles(store: &SqliteStore, query: ListQuery) -> Result<ArticlePage> {
    let Ok(Ok(_permit)) = timeout(MAX_WAIT, store.pages.acquire()).await else {
        let reason = "too many pages of the list are read";
        return Err(StoreError::Unavailable(reason.to_owned()));
    };
    let statement = match query.start {
        PageStart::Offset(_) => &FROM_OFFSET,
        PageStart::After(_) => &AFTER,
    };
    let page = store.read(statement, move |db| {
        let search = query.search.as_deref().map(folded);
        let (viewer, fetched) = (query.viewer.map(|viewer| viewer.0), query.fetched());
        let (mut found, mut bytes) = (0, 0);
        // The articles after those that fit into the maximum size are not read.
        let fits = |row: &Row<'_>| {
            let article = rows::article(row)?;
            found += 1;
            bytes += article.text_bytes();
            Ok((found == 1 || bytes <= ListQuery::MAX_BYTES).then_some(article))
        };
        let articles = match query.start {
            PageStart::Offset(offset) => {
                let params = params![search, viewer, fetched, offset.max(0)];
                db.rows_while(statement, params, fits)?
            }
            PageStart::After(last) => {
                let params = params![search, viewer, fetched, Utc(last.created_at), last.id.0];
                db.rows_while(statement, params, fits)?
            }
        };
        let total = db.row(&COUNT, [search], |row| row.get(0))?;
        Ok(ArticlePage::new(
            &query,
            articles,
            found,
            total.unwrap_or_default(),
        ))
    });
    page.await
}

/// Counts the articles, including the one that was read to see whether more follow.
impl Returned for ArticlePage {
    fn returned_rows(&self) -> Option<i64> {
        i64::try_from(self.articles.len() + usize::from(self.more)).ok()
    }
}
