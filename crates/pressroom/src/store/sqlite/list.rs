//! The list of articles, read by two statements that see the same snapshot.
//!
//! Triggers maintain the number of all articles. Other totals are counted.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use rusqlite::{Row, params_from_iter, types::Value};
use telemetry::{Returned, Statement};
use tokio::time::timeout;

use super::{SqliteStore, value::folded};
use crate::{
    domain::{ArticlePage, ListQuery, PageStart},
    store::{
        Result, StoreError,
        list::{Shape, Statements},
        rows,
        sql::{article_columns, statement},
    },
};

/// Maximum wait until a page may be read.
const MAX_WAIT: Duration = Duration::from_secs(5);

static PAGE: Statements<Shape> = Statements::new(page);
static COUNT: Statements<Shape> = Statements::new(count);

const COUNT_ALL: Statement = statement!("SELECT article_count", "SELECT articles FROM article_count",);

/// Returns the statement that reads a page. Its parameters are the viewer, those of the filter, the cursor, the
/// number of articles and the offset.
///
/// The inner query reads skipped articles from the index only. `CROSS JOIN` makes SQLite run it first, and return
/// the articles in its order; sorting them would read all of their texts into memory.
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
        FROM (
            SELECT article.id
            FROM articles AS article
            WHERE {filter} AND {start}
            ORDER BY article.created_at {direction}, article.id {direction}
            LIMIT ? {skip}
        ) AS page
        CROSS JOIN articles AS article ON article.id = page.id
        JOIN users AS author ON author.id = article.author_id",
        columns = article_columns!(),
    )
}

fn count(shape: Shape) -> String {
    format!("SELECT count(*) FROM articles AS article WHERE {}", filter(shape))
}

/// Returns the condition for the articles of a query. Its parameters are the search text, the author and the
/// viewer, as far as the query needs them.
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
    let shape = Shape::of(&query);
    let permits = if shape.filters() {
        &store.searches
    } else {
        &store.lists
    };
    let Ok(Ok(permit)) = timeout(MAX_WAIT, Arc::clone(permits).acquire_owned()).await else {
        let reason = "too many pages of the list are being read";
        return Err(StoreError::Unavailable(reason.to_owned()));
    };
    // Names the span, whichever end of the list the page is read from.
    let statement = PAGE.get(shape);
    let page = store.read(statement, move |db| {
        // A page that its caller no longer waits for occupies its connection until it has been read.
        let _permit = permit;
        let viewer: Value = query.viewer.map(|viewer| viewer.0).into();
        let search = query.search.as_deref().map(|search| Value::from(folded(search)));
        let author = query.author.map(|author| Value::from(author.0));
        let favorited = query.favorited.map(|_| viewer.clone());
        let filter: Vec<Value> = search.into_iter().chain(author).chain(favorited).collect();
        let total = if shape.filters() {
            db.row(COUNT.get(shape), params_from_iter(&filter), |row| row.get(0))?
        } else {
            db.row(&COUNT_ALL, [], |row| row.get(0))?
        };
        let total: i64 = total.unwrap_or_default();

        let mut params = vec![viewer];
        params.extend(filter);
        let (mut statement, mut reversed) = (statement, false);
        match query.start {
            PageStart::Offset(offset) => {
                let mut skipped = offset.max(0);
                let fetched = query.fetched().min(total.saturating_sub(skipped)).max(0);
                if skipped > total - skipped {
                    // The page is nearer to the end of the list.
                    (statement, reversed) = (PAGE.get(shape.reversed()), true);
                    skipped = total.saturating_sub(skipped).saturating_sub(fetched).max(0);
                }
                params.extend([fetched.into(), skipped.into()]);
            }
            PageStart::After(last) => params.extend([
                last.created_at.as_microsecond().into(),
                last.id.0.into(),
                query.fetched().into(),
            ]),
        }
        let mut articles = VecDeque::new();
        let (mut found, mut bytes) = (0, 0);
        // If the articles together exceed the maximum size, the last ones are dropped.
        let keep = |row: &Row<'_>| {
            let article = rows::article(row)?;
            found += 1;
            bytes += article.text_bytes();
            if reversed {
                articles.push_front(article);
                while bytes > ListQuery::MAX_BYTES && articles.len() > 1 {
                    bytes -= articles.pop_back().map_or(0, |last| last.text_bytes());
                }
            } else if found == 1 || bytes <= ListQuery::MAX_BYTES {
                articles.push_back(article);
            } else {
                return Ok(None);
            }
            Ok(Some(()))
        };
        db.rows_while(statement, params_from_iter(params), keep)?;
        Ok(ArticlePage::new(&query, articles.into(), found, total))
    });
    page.await
}

/// Counts the articles of the page, and the extra article read to find out whether more follow.
impl Returned for ArticlePage {
    fn returned_rows(&self) -> Option<i64> {
        i64::try_from(self.articles.len() + usize::from(self.more)).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::{
        super::{
            connections::{Transaction, connect::connect},
            migrations,
        },
        *,
    };
    use crate::{domain::ListOrder, store::sql::PING};

    fn query(search: Option<&str>) -> ListQuery {
        ListQuery {
            start: PageStart::Offset(0),
            limit: 20,
            order: ListOrder::Newest,
            search: search.map(str::to_owned),
            author: None,
            favorited: None,
            viewer: None,
        }
    }

    /// Polls a search for a moment and drops it.
    async fn abandon_search(store: &SqliteStore) {
        let search = timeout(Duration::from_millis(50), list_articles(store, query(Some("x"))));
        assert!(search.await.is_err());
    }

    #[tokio::test]
    async fn searches_that_take_long_do_not_delay_lists() {
        let store = SqliteStore::open(":memory:").unwrap();
        let searches = Arc::clone(&store.searches).try_acquire_many_owned(2).unwrap();
        abandon_search(&store).await;
        list_articles(&store, query(None)).await.unwrap();
        drop(searches);
        list_articles(&store, query(Some("x"))).await.unwrap();
    }

    #[tokio::test]
    async fn an_abandoned_search_counts_until_its_connection_is_free() {
        let store = Arc::new(SqliteStore::open(":memory:").unwrap());
        let (release, released) = mpsc::channel::<()>();
        let busy = Arc::clone(&store);
        let busy = tokio::spawn(async move {
            let wait = move |_: &Transaction<'_>| Ok(u64::from(released.recv().is_ok()));
            busy.read(&PING, wait).await
        });
        tokio::task::yield_now().await;
        abandon_search(&store).await;
        assert_eq!(store.searches.available_permits(), 1);
        release.send(()).unwrap();
        busy.await.unwrap().unwrap();
        let all = timeout(MAX_WAIT, store.searches.acquire_many(2)).await;
        drop(all.unwrap().unwrap());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "asks for the plan of a statement")]
    fn skipped_articles_are_read_from_the_index_only() {
        let mut connection = connect(":memory:").unwrap();
        migrations::apply(&mut connection).unwrap();
        for order in [ListOrder::Newest, ListOrder::Oldest] {
            for after in [false, true] {
                let shape = Shape {
                    search: false,
                    author: false,
                    favorited: None,
                    order,
                    after,
                };
                let explain = format!("EXPLAIN QUERY PLAN {}", PAGE.get(shape).text);
                let mut statement = connection.prepare(&explain).unwrap();
                let steps = statement.raw_query().mapped(|row| row.get(3));
                let steps: Vec<String> = steps.collect::<Result<_, _>>().unwrap();
                assert!(
                    !steps.iter().any(|step| step.contains("TEMP B-TREE")),
                    "{steps:?}"
                );
                let mut reads = steps
                    .iter()
                    .filter(|step| step.split(' ').nth(1) == Some("article"));
                let first = reads.next().unwrap();
                assert!(first.contains("COVERING INDEX ix_articles_newest"), "{steps:?}");
                assert!(
                    reads.all(|step| step.contains("INTEGER PRIMARY KEY")),
                    "{steps:?}"
                );
            }
        }
    }
}
