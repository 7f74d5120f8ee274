//! The list of articles, read by two statements that see the same snapshot.

use std::time::Duration;

use rusqlite::{Row, params_from_iter, types::Value};
use telemetry::Returned;
use tokio::time::timeout;

use super::{SqliteStore, value::folded};
use crate::{
    domain::{ArticlePage, ListQuery, PageStart},
    store::{
        Result, StoreError,
        list::{Shape, Statements},
        rows,
        sql::article_columns,
    },
};

/// Maximum wait for other pages.
const MAX_WAIT: Duration = Duration::from_secs(5);

static PAGE: Statements = Statements::new(page);
static COUNT: Statements = Statements::new(count);

/// The parameters are the viewer, those of the filter, the cursor, the number of articles and the offset.
fn page(shape: Shape) -> String {
    let (start, skip) = if shape.after {
        (
            format!("(article.created_at, article.id) {} (?, ?)", shape.beyond()),
            "",
        )
    } else {
        ("true".to_owned(), "OFFSET ?")
    };
    let (filter, direction) = (filter(shape), shape.direction());
    format!(
        "
        SELECT {columns},
            EXISTS (SELECT 1 FROM favorites WHERE article_id = article.id AND user_id = ?) AS favorited
        FROM articles AS article
        JOIN users AS author ON author.id = article.author_id
        WHERE {filter} AND {start}
        ORDER BY article.created_at {direction}, article.id {direction}
        LIMIT ? {skip}",
        columns = article_columns!(),
    )
}

fn count(shape: Shape) -> String {
    format!("SELECT count(*) FROM articles AS article WHERE {}", filter(shape))
}

/// The parameters are the search text, the author and the viewer, if the query needs them.
fn filter(shape: Shape) -> String {
    let mut filter = "true".to_owned();
    if shape.search {
        filter += " AND instr(article.title_folded, ?) > 0";
    }
    if shape.author {
        filter += " AND article.author_id = ?";
    }
    if let Some(favorited) = shape.favorited {
        filter += if favorited { " AND " } else { " AND NOT " };
        filter += "EXISTS (SELECT 1 FROM favorites WHERE article_id = article.id AND user_id = ?)";
    }
    filter
}

pub(super) async fn list_articles(store: &SqliteStore, query: ListQuery) -> Result<ArticlePage> {
    let Ok(Ok(_permit)) = timeout(MAX_WAIT, store.pages.acquire()).await else {
        let reason = "too many pages of the list are read";
        return Err(StoreError::Unavailable(reason.to_owned()));
    };
    let shape = Shape::of(&query);
    let statement = PAGE.get(shape);
    let page = store.read(statement, move |db| {
        let viewer: Value = query.viewer.map(|viewer| viewer.0).into();
        let search = query.search.as_deref().map(|search| Value::from(folded(search)));
        let author = query.author.map(|author| Value::from(author.0));
        let favorited = query.favorited.map(|_| viewer.clone());
        let filter: Vec<Value> = search.into_iter().chain(author).chain(favorited).collect();
        let mut params = vec![viewer];
        params.extend(filter.iter().cloned());
        match query.start {
            PageStart::Offset(offset) => params.extend([query.fetched().into(), offset.max(0).into()]),
            PageStart::After(last) => params.extend([
                last.created_at.as_microsecond().into(),
                last.id.0.into(),
                query.fetched().into(),
            ]),
        }
        let (mut found, mut bytes) = (0, 0);
        // The articles after those that fit into the maximum size are not read.
        let fits = |row: &Row<'_>| {
            let article = rows::article(row)?;
            found += 1;
            bytes += article.text_bytes();
            Ok((found == 1 || bytes <= ListQuery::MAX_BYTES).then_some(article))
        };
        let articles = db.rows_while(statement, params_from_iter(params), fits)?;
        let total = db.row(COUNT.get(shape), params_from_iter(filter), |row| row.get(0))?;
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
