//! Lists articles: one statement reads the page, another counts all matches in the same snapshot.

use rusqlite::params;
use telemetry::{Returned, Statement};

use super::{SqliteStore, value::folded};
use crate::{
    domain::{ArticlePage, ListQuery, PageStart},
    store::{
        Result,
        rows::{self, Utc},
        sql::{article_columns, statement},
    },
};

/// `?1` is the folded search text or null, `?2` the viewer's id, and `?3` the maximum number of articles.
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
    let statement = match query.start {
        PageStart::Offset(_) => &FROM_OFFSET,
        PageStart::After(_) => &AFTER,
    };
    let page = store.read(statement, move |db| {
        let search = query.search.as_deref().map(folded);
        let (viewer, fetched) = (query.viewer.map(|viewer| viewer.0), query.fetched());
        let articles = match query.start {
            PageStart::Offset(offset) => {
                let params = params![search, viewer, fetched, offset.max(0)];
                db.rows(statement, params, |row| rows::article(row))?
            }
            PageStart::After(last) => {
                let params = params![search, viewer, fetched, Utc(last.created_at), last.id.0];
                db.rows(statement, params, |row| rows::article(row))?
            }
        };
        let total = db.row(&COUNT, [search], |row| row.get(0))?;
        Ok(ArticlePage::new(&query, articles, total.unwrap_or_default()))
    });
    page.await
}

/// Counts the articles of the page, and the extra article read to find out whether more follow.
impl Returned for ArticlePage {
    fn returned_rows(&self) -> Option<i64> {
        i64::try_from(self.articles.len() + usize::from(self.more)).ok()
    }
}
