//! The list of articles. One statement returns a page and the total from one snapshot, except for searches
//! with many results.
//!
//! The total of all articles is the sum of `article_count_changes`, which triggers maintain. All other totals
//! are counted.

use telemetry::Statement;
use tokio::time::Instant;
use tokio_postgres::types::ToSql;

use super::{
    connections::{Connections, Params, Primary, StatementResult},
    error::StatementError,
    search_totals::SearchTotals,
};
use crate::{
    domain::{Article, ArticlePage, ListQuery, PageStart},
    store::{
        list::{Shape, Statements},
        rows::{self, Utc},
        sql::{article_columns, statement},
    },
};

/// Maximum number of articles that are skipped from the start of the list of all articles. A page beyond that is
/// read from the nearer end.
const MAX_SKIPPED: i64 = 1_000;
/// Maximum offset. The statements calculate with it and must not overflow.
const MAX_OFFSET: i64 = i64::MAX / 2;
/// Maximum number of search results that are read together. If there are more, the page is read in the order of
/// the list, which soon finds enough of them.
const MAX_FOUND: i64 = 10_000;

static LIST: Statements<(Shape, Plan)> = Statements::new(text);

/// Replaces a batch of changes to the article count by their sum, if there are many of them. Skips rows that
/// another process is replacing.
const FOLD_COUNT: Statement = statement!(
    "DELETE article_count_changes",
    "
        WITH folded AS (
            DELETE FROM article_count_changes
            WHERE id IN (
                SELECT id
                FROM article_count_changes
                WHERE (SELECT count(*) FROM article_count_changes) > 100
                LIMIT $1
                FOR UPDATE SKIP LOCKED
            )
            RETURNING change
        ), inserted AS (
            INSERT INTO article_count_changes (change)
            SELECT sum(change) FROM folded HAVING count(*) > 0
        )
        SELECT count(*) FROM folded",
);

/// The way to read a page and its total.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Plan {
    /// All articles, whose number triggers maintain.
    All,
    /// All articles, from the nearer end of the index.
    AllFromNearerEnd,
    /// The articles that pass a filter, counted separately from the page.
    Counted,
    /// The results of a search, which are all read, counted and sorted, up to one more than [`MAX_FOUND`].
    Found {
        /// Whether the trigram index helps.
        by_trigrams: bool,
    },
    /// The results of a search in the order of the list, without a total.
    Remembered,
}

/// Returns the text of a statement. `$1` is the number of articles, and `$2` the viewer; the start of the
/// page, the search pattern and the author follow, if there are any. An empty page is a single row with nulls
/// and the total.
///
/// The articles after those that fit into the maximum size stay on the server, which knows the size of a text
/// without reading it.
fn text((shape, plan): (Shape, Plan)) -> String {
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
        // The planner does not know the pattern, and always uses the trigram index if the condition allows it.
        let title = match plan {
            Plan::Found { by_trigrams: true } => "title",
            _ => "(title || '')",
        };
        filter += &format!(" AND {title} ILIKE {}", next());
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
    let order = |shape: Shape| {
        let direction = shape.direction();
        format!("ORDER BY created_at {direction}, id {direction}")
    };
    let (forwards, backwards) = (order(shape), order(shape.reversed()));
    // The planner does not know `$1`; the constant limit tells it that a page is small.
    let max = ListQuery::MAX_LIMIT + 1;
    let page = |rows: &str| format!("SELECT * FROM ({rows} {forwards} LIMIT {max} {skip}) AS page LIMIT $1");
    let articles = if shape.search {
        // `OFFSET 0` makes the planner read the list in its order. Otherwise it would underestimate the number
        // of results, and read all articles to find them.
        let list = format!("SELECT * FROM articles WHERE {start} {forwards} OFFSET 0");
        page(&format!("SELECT * FROM ({list}) AS articles WHERE {filter}"))
    } else {
        page(&format!("SELECT * FROM articles WHERE {filter} AND {start}"))
    };
    let kept = "SELECT COALESCE(sum(change), 0)::bigint AS count FROM article_count_changes";
    let with = match plan {
        Plan::All => format!("total AS ({kept}), candidate AS ({articles})"),
        Plan::Counted => {
            let favorites = "SELECT count(*) FROM favorites WHERE user_id = $2";
            let total = match (shape.search || shape.author, shape.favorited) {
                (false, Some(true)) => favorites.to_owned(),
                (false, Some(false)) => format!("SELECT ({kept}) - ({favorites}) AS count"),
                _ => format!("SELECT count(*) FROM articles WHERE {filter}"),
            };
            format!("total AS ({total}), candidate AS ({articles})")
        }
        Plan::Remembered => format!("total AS (SELECT NULL::bigint AS count), candidate AS ({articles})"),
        Plan::Found { .. } => format!(
            "found AS MATERIALIZED (
                SELECT id, created_at FROM articles WHERE {filter} LIMIT {MAX_FOUND} + 1
            ), total AS (
                SELECT count(*) FROM found
            ), candidate AS (
                SELECT articles.* FROM ({page}) AS page JOIN articles ON articles.id = page.id
            )",
            page = page(&format!("SELECT * FROM found WHERE {start}")),
        ),
        // One of the branches has a limit of zero and is not executed.
        Plan::AllFromNearerEnd => format!(
            "total AS ({kept}), page AS (
                (
                    SELECT id
                    FROM (SELECT id FROM articles {forwards} LIMIT {max} OFFSET $3) AS near
                    LIMIT (SELECT CASE WHEN $3 <= count - $3 THEN $1::bigint ELSE 0 END FROM total)
                )
                UNION ALL
                (
                    SELECT id
                    FROM (
                        SELECT id
                        FROM articles
                        {backwards}
                        LIMIT {max}
                        OFFSET (SELECT GREATEST(count - $3 - $1::bigint, 0) FROM total)
                    ) AS far
                    LIMIT (
                        SELECT CASE
                            WHEN $3 <= count - $3 THEN 0
                            ELSE GREATEST(LEAST($1::bigint, count - $3), 0)
                        END
                        FROM total
                    )
                )
            ), candidate AS (
                SELECT articles.* FROM page JOIN articles ON articles.id = page.id
            )"
        ),
    };
    let direction = shape.direction();
    format!(
        "
        WITH {with}, article AS (
            SELECT *,
                count(*) OVER () AS found,
                row_number() OVER listed AS position,
                sum(octet_length(title) + octet_length(description) + octet_length(body))
                    OVER listed AS bytes
            FROM candidate
            WINDOW listed AS ({forwards} ROWS UNBOUNDED PRECEDING)
        )
        SELECT {columns},
            EXISTS (SELECT FROM favorites WHERE article_id = article.id AND user_id = $2) AS favorited,
            article.found,
            total.count AS total
        FROM total
        LEFT JOIN article ON article.position = 1 OR article.bytes <= {max_bytes}
        LEFT JOIN users AS author ON author.id = article.author_id
        ORDER BY article.created_at {direction}, article.id {direction}",
        columns = article_columns!(),
        max_bytes = ListQuery::MAX_BYTES,
    )
}

pub(super) async fn list_articles(
    server: &Connections,
    totals: &SearchTotals,
    query: &ListQuery,
) -> Result<ArticlePage, StatementError> {
    let shape = Shape::of(query);
    let viewer = query.viewer.map(|viewer| viewer.0);
    let fetched = query.fetched();
    let mut params: Vec<&(dyn ToSql + Sync)> = vec![&fetched, &viewer];
    let (skipped, created_at, id);
    match query.start {
        PageStart::Offset(offset) => {
            skipped = offset.clamp(0, MAX_OFFSET);
            params.push(&skipped);
        }
        PageStart::After(last) => {
            (skipped, created_at, id) = (0, Utc(last.created_at), last.id.0);
            params.push(&created_at);
            params.push(&id);
        }
    }
    let pattern = query.search.as_deref().map(containing);
    params.extend(pattern.iter().map(|pattern| pattern as &(dyn ToSql + Sync)));
    let author = query.author.map(|author| author.0);
    params.extend(author.iter().map(|author| author as &(dyn ToSql + Sync)));

    if let Some(search) = &query.search {
        return find(server, totals, query, search, &params).await;
    }
    let plan = if shape.filters() {
        Plan::Counted
    } else if skipped > MAX_SKIPPED {
        Plan::AllFromNearerEnd
    } else {
        Plan::All
    };
    let statement = LIST.get((shape, plan));
    let result = match plan {
        Plan::All => server.list(statement, &params).await?,
        _ => server.search(statement, &params).await?,
    };
    let (articles, total) = read(&result)?;
    Ok(articles.page(query, total.unwrap_or_default()))
}

/// Reads a page of search results.
async fn find(
    server: &Connections,
    totals: &SearchTotals,
    query: &ListQuery,
    search: &str,
    params: Params<'_>,
) -> Result<ArticlePage, StatementError> {
    let shape = Shape::of(query);
    let run = async |plan| read(&server.search(LIST.get((shape, plan)), params).await?);
    // Totals of searches with a further filter are not remembered.
    let only_search = query.author.is_none() && query.favorited.is_none();
    if only_search && let Some(total) = totals.get(search, Instant::now()) {
        let (articles, _) = run(Plan::Remembered).await?;
        return Ok(corrected(articles.page(query, total), query));
    }
    let by_trigrams = has_trigram(search);
    let (articles, total) = run(Plan::Found { by_trigrams }).await?;
    let total = total.unwrap_or_default();
    if total <= MAX_FOUND {
        return Ok(articles.page(query, total));
    }
    let (articles, total) = run(Plan::Counted).await?;
    let total = total.unwrap_or_default();
    if only_search {
        totals.insert(search, total, Instant::now());
    }
    Ok(articles.page(query, total))
}

/// The articles that a statement returned.
struct Found {
    articles: Vec<Article>,
    /// Number of articles found, including those that exceed the maximum size of a page.
    count: usize,
}

impl Found {
    fn page(self, query: &ListQuery, total: i64) -> ArticlePage {
        ArticlePage::new(query, self.articles, self.count, total)
    }
}

fn read(result: &StatementResult) -> Result<(Found, Option<i64>), StatementError> {
    let total: Option<Option<i64>> = result.first(|row| row.try_get("total"))?;
    let found: Option<Option<i64>> = result.first(|row| row.try_get("found"))?;
    let found = match found.flatten() {
        Some(count) => Found {
            articles: result.all(rows::article)?,
            count: usize::try_from(count).unwrap_or_default(),
        },
        None => Found {
            articles: Vec::new(),
            count: 0,
        },
    };
    Ok((found, total.flatten()))
}

/// Replaces a remembered total that contradicts the page.
fn corrected(page: ArticlePage, query: &ListQuery) -> ArticlePage {
    let length = i64::try_from(page.articles.len()).unwrap_or(i64::MAX);
    let total = match query.start {
        PageStart::Offset(offset) if !page.more && length > 0 => offset.max(0).saturating_add(length),
        PageStart::Offset(offset) if !page.more => page.total.min(offset.max(0)),
        PageStart::Offset(offset) => page.total.max(offset.max(0).saturating_add(length + 1)),
        PageStart::After(_) => page.total.max(length + i64::from(page.more)),
    };
    ArticlePage { total, ..page }
}

/// Replaces up to `limit` changes to the article count by their sum, and returns their number.
pub(super) async fn fold_count(primary: &Primary, limit: i64) -> Result<u64, StatementError> {
    let folded = primary.maintain(&FOLD_COUNT, &[&limit]).await?;
    let folded: Option<i64> = folded.first(|row| row.try_get("count"))?;
    Ok(folded.unwrap_or_default().unsigned_abs())
}

/// Returns a LIKE pattern that matches strings containing `text`, with the wildcards in `text` escaped.
fn containing(text: &str) -> String {
    let escaped = text.replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_");
    format!("%{escaped}%")
}

/// Whether `text` contains a trigram as `pg_trgm` defines it: three letters or digits in a row.
fn has_trigram(text: &str) -> bool {
    let mut words = text.split(|character: char| !character.is_alphanumeric());
    words.any(|word| word.chars().count() >= 3)
}
