//! Lists of 50,000 articles on PostgreSQL: pages and totals compared with plain SQL, and the work of the
//! server.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use pressroom::{
    domain::{ArticleId, ArticlePage, Cursor, ListOrder, ListQuery, PageStart, UserId},
    store::{AccountStore, ArticleStore},
};
use tokio_postgres::Client;

use super::fixture::{at, new_article, new_user, task};
use crate::support::{
    eventually,
    postgres::{Database, until_stores_are_closed},
    sqlite,
};

const ARTICLES: i64 = 50_000;
/// Number of runs of a query whose work is measured: after five executions, PostgreSQL may use another plan.
const RUNS: i64 = 8;

/// Inserts users and articles. Five articles share each time. Seven titles contain `Needle`, and 12,493
/// contain `Dense`.
const INSERT: &str = r"
    INSERT INTO users (email, password_hash, name, bio, image, created_at, updated_at)
    SELECT 'user' || n || '@example.com', 'hash', 'User', '', '', now(), now() FROM generate_series(1, 20000) AS n;
    INSERT INTO articles (slug, title, description, body, author_id, favorites_count, created_at, updated_at)
    SELECT 'a-' || n,
        CASE
            WHEN n % 7000 = 0 THEN 'A Needle, 100% é_' || n
            WHEN n % 4 = 0 THEN 'Dense \ ' || n
            ELSE 'Article ' || n
        END,
        '', 'body', 1 + n % 5000, 0, timestamp '2025-01-01' + n / 5 * interval '1 second', now()
    FROM generate_series(1, 50000) AS n;
    VACUUM ANALYZE users, articles";

async fn database() -> (Database, Client) {
    let database = Database::migrated().await;
    let client = database.client().await;
    for statement in INSERT.split(';') {
        client.batch_execute(statement).await.unwrap();
    }
    (database, client)
}

/// Work of the server for lists.
#[derive(Debug, Clone, Copy)]
struct Work {
    /// Sequential scans of articles and users.
    scans: i64,
    /// Entries read from the index of the list.
    entries: i64,
    /// Scans of the index of trigrams.
    searches: i64,
}

impl Work {
    async fn so_far(client: &Client) -> Self {
        let row = client
            .query_one(
                "SELECT
                    (SELECT sum(seq_scan)::bigint FROM pg_stat_user_tables WHERE relname IN ('articles', 'users')),
                    (SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'ix_articles_newest'),
                    COALESCE((
                        SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'ix_articles_title_trigrams'
                    ), 0)",
                &[],
            )
            .await
            .unwrap();
        Self {
            scans: row.get(0),
            entries: row.get(1),
            searches: row.get(2),
        }
    }

    /// Lists a page [`RUNS`] times and returns the work of all runs.
    async fn of(query: &ListQuery, database: &Database, client: &Client) -> Self {
        let before = Self::so_far(client).await;
        let store = database.store();
        for _ in 0..RUNS {
            store.list_articles(query.clone()).await.unwrap();
        }
        drop(store);
        until_stores_are_closed(client).await;
        let after = Self::so_far(client).await;
        Self {
            scans: after.scans - before.scans,
            entries: after.entries - before.entries,
            searches: after.searches - before.searches,
        }
    }
}

fn page(start: PageStart) -> ListQuery {
    ListQuery {
        start,
        limit: 20,
        ..ListQuery::default()
    }
}

fn search(text: &str) -> ListQuery {
    ListQuery {
        search: Some(text.to_owned()),
        ..page(PageStart::Offset(0))
    }
}

fn slugs(page: &ArticlePage) -> Vec<&str> {
    page.articles
        .iter()
        .map(|article| article.slug.as_str())
        .collect()
}

/// Asserts that the pages at an offset have the slugs of `all`, the whole list.
async fn assert_pages_at(offset: i64, store: &impl ArticleStore, order: ListOrder, all: &[String]) {
    for limit in [0, 1, 20, 100] {
        let query = ListQuery {
            order,
            limit,
            ..page(PageStart::Offset(offset))
        };
        let page = store.list_articles(query).await.unwrap();
        let total = i64::try_from(all.len()).unwrap();
        let from = usize::try_from(offset.min(total)).unwrap();
        let to = (from + usize::try_from(limit).unwrap()).min(all.len());
        assert_eq!(slugs(&page), all[from..to], "{order:?} {offset} {limit}");
        assert_eq!(
            (page.total, page.more),
            (total, to < all.len()),
            "{order:?} {offset} {limit}"
        );
    }
}

/// Returns the cursor of the article at a position of the list.
fn cursor_at(position: i64, order: ListOrder) -> Cursor {
    let number = match order {
        ListOrder::Newest => ARTICLES - position,
        ListOrder::Oldest => position + 1,
    };
    let start: Timestamp = "2025-01-01T00:00:00Z".parse().unwrap();
    Cursor {
        created_at: start + SignedDuration::from_secs(number / 5),
        id: ArticleId(i32::try_from(number).unwrap()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_costs_the_same_at_any_depth_by_cursor_and_at_both_ends_by_offset() {
    let (database, client) = database().await;
    for order in [ListOrder::Newest, ListOrder::Oldest] {
        let mut entries = BTreeMap::new();
        for depth in [0, ARTICLES / 2, ARTICLES - 22] {
            let query = ListQuery {
                order,
                viewer: Some(UserId(3)),
                ..page(PageStart::After(cursor_at(depth, order)))
            };
            let work = Work::of(&query, &database, &client).await;
            assert_eq!(work.scans, 0, "{depth}: {work:?}");
            entries.insert(depth, work.entries);
        }
        assert!(
            entries
                .values()
                .all(|read| (RUNS * 20..=RUNS * 22).contains(read)),
            "{entries:?}"
        );

        let mut entries = BTreeMap::new();
        for offset in [0, 500, ARTICLES - 500, ARTICLES - 20] {
            let query = ListQuery {
                order,
                ..page(PageStart::Offset(offset))
            };
            let work = Work::of(&query, &database, &client).await;
            assert_eq!(work.scans, 0, "{offset}: {work:?}");
            entries.insert(offset, work.entries);
        }
        assert!(
            entries.values().all(|read| (1..=RUNS * 522).contains(read)),
            "{entries:?}"
        );
        // The middle is the farthest page.
        let query = ListQuery {
            order,
            ..page(PageStart::Offset(ARTICLES / 2))
        };
        let work = Work::of(&query, &database, &client).await;
        assert_eq!(work.scans, 0, "{work:?}");
        assert!(work.entries <= RUNS * (ARTICLES / 2 + 21), "{work:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_read_from_the_nearer_end_are_the_pages_at_their_offsets() {
    let (database, client) = database().await;
    let store = database.store();
    for (order, direction) in [(ListOrder::Newest, "DESC"), (ListOrder::Oldest, "ASC")] {
        let all = format!("SELECT slug FROM articles ORDER BY created_at {direction}, id {direction}");
        let all: Vec<String> = client
            .query(&all, &[])
            .await
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect();
        for offset in [
            0,
            980,
            999,
            1_000,
            1_001,
            24_979,
            24_980,
            24_999,
            25_000,
            25_001,
            49_979,
            49_980,
            49_981,
            49_999,
            50_000,
            50_001,
            i64::MAX - 1,
            i64::MAX,
        ] {
            assert_pages_at(offset, &store, order, &all).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searches_find_and_count_what_plain_sql_finds() {
    let (database, client) = database().await;
    let store = database.store();
    for text in [
        "needle",
        "NEEDLE, 100%",
        "00% É_",
        "dense",
        "Dense",
        "article",
        "a",
        "e",
        "A N",
        "\\",
        "%",
        "_",
        "1%",
        "777",
        "77",
        "4999",
        "article 49999",
        "é",
        "zzz",
        "nothing like this",
        "e \\ 4",
    ] {
        let expected = client
            .query(
                "SELECT slug FROM articles WHERE position(lower($1) IN lower(title)) > 0
                ORDER BY created_at DESC, id DESC",
                &[&text],
            )
            .await
            .unwrap();
        let expected: Vec<&str> = expected.iter().map(|row| row.get(0)).collect();
        let total = i64::try_from(expected.len()).unwrap();
        // The second page may use the total of the first.
        for offset in [0, 20, 9_990, total - 5, total] {
            let query = ListQuery {
                start: PageStart::Offset(offset.max(0)),
                ..search(text)
            };
            let page = store.list_articles(query).await.unwrap();
            let from = usize::try_from(offset.max(0)).unwrap().min(expected.len());
            let to = (from + 20).min(expected.len());
            assert_eq!(slugs(&page), expected[from..to], "{text} {offset}");
            assert_eq!(
                (page.total, page.more),
                (total, to < expected.len()),
                "{text} {offset}"
            );
        }
        let mut query = search(text);
        for page in expected.chunks(20).take(3) {
            let found = store.list_articles(query.clone()).await.unwrap();
            assert_eq!(slugs(&found), page, "{text}");
            assert_eq!(found.total, total, "{text}");
            let last = found.articles.last().unwrap();
            query.start = PageStart::After(Cursor {
                created_at: last.created_at,
                id: last.id,
            });
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_uses_trigrams_where_the_server_has_them() {
    let (database, client) = database().await;
    let available = "SELECT FROM pg_available_extensions WHERE name = 'pg_trgm'";
    let available = !client.query(available, &[]).await.unwrap().is_empty();
    let work = Work::of(&search("needle"), &database, &client).await;
    if available {
        assert_eq!((work.scans, work.searches), (0, RUNS), "{work:?}");
    } else {
        assert_eq!(work.searches, 0, "{work:?}");
    }
    // The text has no trigram, so the whole index would have to be read.
    let work = Work::of(&search("€"), &database, &client).await;
    assert_eq!(work.searches, 0, "{work:?}");
    assert!(work.scans >= RUNS, "{work:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_a_search_with_many_results_are_found_in_the_order_of_the_list() {
    let (database, client) = database().await;
    let query = ListQuery {
        start: PageStart::Offset(40),
        ..search("article")
    };
    let work = Work::of(&query, &database, &client).await;
    // Only the first run detects that there are many results, and counts them. Three of four articles match.
    assert!(work.scans <= 2, "{work:?}");
    assert!((RUNS * 61..RUNS * 100).contains(&work.entries), "{work:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_totals_of_searches_are_current_and_large_ones_soon_are() {
    let (database, client) = database().await;
    let store = database.store();
    let user = store.insert_user(new_user("ann@example.com")).await.unwrap();
    let total = async |text: &str| store.list_articles(search(text)).await.unwrap().total;
    assert_eq!((total("needle").await, total("dense").await), (7, 12_493));
    for number in 1..=3 {
        let article = new_article(&format!("A dense needle {number}"), user.id, at(number));
        store.insert_article(article, task(1, at(0))).await.unwrap();
        assert_eq!(total("needle").await, 7 + number);
    }
    eventually("the total to be counted again", async || {
        (total("dense").await == 12_496).then_some(())
    })
    .await;
    // The page is current, although the total is remembered.
    client
        .batch_execute("DELETE FROM articles WHERE title LIKE '%ense%'")
        .await
        .unwrap();
    let page = store.list_articles(search("dense")).await.unwrap();
    assert_eq!((slugs(&page).len(), page.total, page.more), (0, 0, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn totals_match_lists_of_favorites() {
    let (database, client) = database().await;
    client
        .batch_execute(
            "INSERT INTO favorites (user_id, article_id, created_at)
            SELECT 3, id, now() FROM articles WHERE id <= 30",
        )
        .await
        .unwrap();
    let store = database.store();
    for (favorited, author, viewer, total) in [
        (true, None, Some(3), 30),
        (false, None, Some(3), ARTICLES - 30),
        (true, None, Some(4), 0),
        (false, None, None, ARTICLES),
        (true, Some(8), Some(3), 1),
        (false, Some(8), Some(3), 9),
    ] {
        let query = ListQuery {
            favorited: Some(favorited),
            author: author.map(UserId),
            viewer: viewer.map(UserId),
            ..page(PageStart::Offset(0))
        };
        let page = store.list_articles(query).await.unwrap();
        assert_eq!(page.total, total, "{favorited} {author:?} {viewer:?}");
        assert_eq!(page.articles.len(), usize::try_from(total.min(20)).unwrap());
        assert!(page.articles.iter().all(|article| article.favorited == favorited));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_read_from_the_nearer_end_are_the_pages_at_their_offsets_on_sqlite() {
    let file = sqlite::File::new();
    let store = file.store();
    store.insert_user(new_user("ann@example.com")).await.unwrap();
    let client = rusqlite::Connection::open(file.path()).unwrap();
    client
        .execute_batch(
            "INSERT INTO articles
            WITH RECURSIVE n AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM n WHERE n < 500)
            SELECT n, 's' || n, 'T', 't', '', 'b', 1, 0, n / 5, n FROM n",
        )
        .unwrap();
    for order in [ListOrder::Newest, ListOrder::Oldest] {
        let mut all: Vec<String> = (1..=500).map(|number| format!("s{number}")).collect();
        if order == ListOrder::Newest {
            all.reverse();
        }
        for offset in [
            0,
            1,
            229,
            239,
            240,
            249,
            250,
            251,
            479,
            480,
            481,
            499,
            500,
            501,
            i64::MAX,
        ] {
            assert_pages_at(offset, &store, order, &all).await;
        }
    }
}
