//! The list of articles: pages, cursors and searches.

use std::collections::BTreeSet;

use pressroom::domain::{Cursor, ListQuery, PageStart};

use super::{list, over_all_stores, search};
use crate::store::fixture::{Fixture, at};

over_all_stores! {
    the_list_starts_with_the_newest_article_and_counts_all
    cursors_visit_all_articles_with_equal_timestamps
    a_page_beyond_the_end_is_empty_and_counts_all
    wildcards_in_a_search_are_literal
    a_search_ignores_case_beyond_ascii
    a_search_pages_like_the_list
    the_list_shows_the_viewers_favorites
}

async fn the_list_starts_with_the_newest_article_and_counts_all(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await.id;
    let empty = store.list_articles(list(PageStart::Offset(0), 20)).await.unwrap();
    assert_eq!((empty.articles.len(), empty.total, empty.more), (0, 0, false));

    for (title, time) in [("b", 20), ("a", 10), ("d", 30), ("c", 20)] {
        fixture.article(title, ann, at(time)).await;
    }
    let mut seen = Vec::new();
    for (offset, more) in [(0, true), (3, false)] {
        let page = store
            .list_articles(list(PageStart::Offset(offset), 3))
            .await
            .unwrap();
        assert_eq!((page.total, page.more), (4, more));
        seen.extend(page.articles.into_iter().map(|article| article.title));
    }
    // With equal timestamps, the higher id comes first.
    assert_eq!(seen, ["d", "c", "b", "a"]);
    let whole = store.list_articles(list(PageStart::Offset(0), 4)).await.unwrap();
    assert_eq!((whole.articles.len(), whole.more), (4, false));
    assert_eq!(whole.articles[0].author.email, "ann@example.com");
}

async fn cursors_visit_all_articles_with_equal_timestamps(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await.id;
    for n in 0..23 {
        // Most articles have the same timestamp; a few are older.
        fixture
            .article(&format!("No {n}"), ann, at(if n % 5 == 0 { n } else { 100 }))
            .await;
    }
    let mut start = PageStart::Offset(0);
    let mut visited = Vec::new();
    loop {
        let page = store.list_articles(list(start, 4)).await.unwrap();
        assert_eq!(page.total, 23);
        let last = page.articles.last().unwrap();
        start = PageStart::After(Cursor {
            created_at: last.created_at,
            id: last.id,
        });
        visited.extend(
            page.articles
                .iter()
                .map(|article| (article.created_at, article.id)),
        );
        if !page.more {
            break;
        }
    }
    let mut sorted = visited.clone();
    sorted.sort_by(|a, b| b.cmp(a));
    assert_eq!(visited, sorted);
    assert_eq!(visited.into_iter().collect::<BTreeSet<_>>().len(), 23);
    let after_all = store.list_articles(list(start, 4)).await.unwrap();
    assert_eq!(
        (after_all.articles.len(), after_all.total, after_all.more),
        (0, 23, false)
    );
}

async fn a_page_beyond_the_end_is_empty_and_counts_all(fixture: Fixture) {
    let ann = fixture.user("ann@example.com").await.id;
    fixture.article("One", ann, at(0)).await;
    for offset in [1, 1_000, i64::MAX] {
        let page = fixture
            .store
            .list_articles(list(PageStart::Offset(offset), 20))
            .await
            .unwrap();
        assert_eq!((page.articles.len(), page.total, page.more), (0, 1, false));
    }
}

async fn wildcards_in_a_search_are_literal(fixture: Fixture) {
    let ann = fixture.user("ann@example.com").await.id;
    for title in ["100% sure", "1000 sure", "snake_case", "snakecase", "back\\slash"] {
        fixture.article(title, ann, at(0)).await;
    }
    for (text, found) in [
        ("0%", vec!["100% sure"]),
        ("E_C", vec!["snake_case"]),
        ("k\\s", vec!["back\\slash"]),
        ("\\", vec!["back\\slash"]),
        ("%", vec!["100% sure"]),
        ("_", vec!["snake_case"]),
        ("nothing", vec![]),
    ] {
        let page = fixture.store.list_articles(search(text)).await.unwrap();
        let titles: Vec<_> = page
            .articles
            .iter()
            .map(|article| article.title.as_str())
            .collect();
        assert_eq!(titles, found, "{text}");
        assert_eq!(page.total, i64::try_from(found.len()).unwrap());
    }
}

async fn a_search_ignores_case_beyond_ascii(fixture: Fixture) {
    let ann = fixture.user("ann@example.com").await.id;
    for title in ["Crème BRÛLÉE", "ЖИЗНЬ", "Ὀδυσσεύς"] {
        fixture.article(title, ann, at(0)).await;
    }
    for (text, title) in [
        ("brûlée", "Crème BRÛLÉE"),
        ("CRÈME", "Crème BRÛLÉE"),
        ("жизнь", "ЖИЗНЬ"),
    ] {
        let page = fixture.store.list_articles(search(text)).await.unwrap();
        assert_eq!(page.articles.len(), 1, "{text}");
        assert_eq!(page.articles[0].title, title);
    }
}

async fn a_search_pages_like_the_list(fixture: Fixture) {
    let ann = fixture.user("ann@example.com").await.id;
    for n in 0..7 {
        fixture.article(&format!("Found {n}"), ann, at(5)).await;
        fixture.article(&format!("Other {n}"), ann, at(5)).await;
    }
    let mut titles = Vec::new();
    let mut start = PageStart::Offset(1);
    for more in [true, false] {
        let query = ListQuery {
            start,
            limit: 3,
            ..search("FOUND")
        };
        let page = fixture.store.list_articles(query).await.unwrap();
        assert_eq!((page.total, page.more), (7, more));
        let last = page.articles.last().unwrap();
        start = PageStart::After(Cursor {
            created_at: last.created_at,
            id: last.id,
        });
        titles.extend(page.articles.into_iter().map(|article| article.title));
    }
    assert_eq!(
        titles,
        ["Found 5", "Found 4", "Found 3", "Found 2", "Found 1", "Found 0"]
    );
}

async fn the_list_shows_the_viewers_favorites(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await.id;
    let bob = fixture.user("bob@example.com").await.id;
    let one = fixture.article("One", ann, at(1)).await;
    fixture.article("Two", ann, at(2)).await;
    store.favorite(&one.slug, bob, at(3)).await.unwrap();
    for (viewer, expected) in [
        (Some(bob), [false, true]),
        (Some(ann), [false; 2]),
        (None, [false; 2]),
    ] {
        let query = ListQuery {
            viewer,
            ..list(PageStart::Offset(0), 20)
        };
        let page = store.list_articles(query).await.unwrap();
        let favorited: Vec<_> = page.articles.iter().map(|article| article.favorited).collect();
        assert_eq!(favorited, expected);
        assert_eq!(page.articles[1].favorites_count, 1);
    }
}
