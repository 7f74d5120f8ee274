//! Filters, order, cursors and entity tags of the list of articles.

use std::{net::SocketAddr, sync::Arc};

use jiff::Timestamp;
use pressroom::{clock::Clock, health::TaskQueue, store::Store};
use serde_json::{Value, json};

use super::over_both_stores;
use crate::support::{api, raw};

over_both_stores! {
    filters_and_order_combine_with_search_and_both_kinds_of_pagination
    favorites_are_the_callers_own
    crafted_cursors_are_rejected_and_invalid_filters_ignored
    the_tag_of_a_page_changes_with_the_page
}

/// A clock that advances by a second whenever it is read.
#[derive(Debug, Default)]
struct Ticking(std::sync::atomic::AtomicI64);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        let seconds = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Timestamp::from_second(1_795_329_860 + seconds).unwrap()
    }
}

struct Fixture {
    address: SocketAddr,
    _api: api::Api,
    ann: String,
    bob: String,
}

impl Fixture {
    /// Ann writes articles 0, 2 and 4, and Bob writes 1, 3 and 5. Ann favourites 0, 1 and 5, and Bob
    /// favourites 1.
    async fn on(store: Arc<dyn Store>) -> Self {
        let api = api::start_with(store, TaskQueue::InProcess, Arc::<Ticking>::default()).await;
        let address = api.address;
        let fixture = Self {
            address,
            ann: raw::register(address, "ann@example.com").await,
            bob: raw::register(address, "bob@example.com").await,
            _api: api,
        };
        for n in 0..6 {
            let author = if n % 2 == 0 { &fixture.ann } else { &fixture.bob };
            let body = json!({"title": format!("Article {n}"), "body": "x"});
            let created = raw::request(address, "POST", "/api/articles/", Some(author), Some(&body)).await;
            assert_eq!(created.status, 201);
            let favorite = format!("{}/favorite", created.header("location").unwrap());
            for (token, favorites) in [(&fixture.ann, &[0, 1, 5][..]), (&fixture.bob, &[1])] {
                if favorites.contains(&n) {
                    let liked = raw::request(address, "POST", &favorite, Some(token), None).await;
                    assert_eq!(liked.status, 200);
                }
            }
        }
        fixture
    }

    async fn get(&self, query: &str, token: Option<&str>) -> raw::Response {
        raw::request(
            self.address,
            "GET",
            &format!("/api/articles/?{query}"),
            token,
            None,
        )
        .await
    }

    /// Returns the numbers of the listed articles. Reads pages of two, both by cursor and by page number, and
    /// checks that the articles and the totals are the same.
    async fn listed(&self, query: &str, token: Option<&str>) -> Vec<u8> {
        let (mut by_cursor, mut by_number) = (Vec::new(), Vec::new());
        let (mut cursor, mut total) = (String::new(), Value::Null);
        for page in 1.. {
            let target = format!("{query}&per_page=2&cursor={cursor}");
            let shown = self.get(&target, token).await.json();
            by_cursor.extend(numbers(&shown));
            let numbered = self
                .get(&format!("{query}&per_page=2&page={page}"), token)
                .await
                .json();
            by_number.extend(numbers(&numbered));
            total = shown["total"].clone();
            assert_eq!(numbered["total"], total);
            match shown["next_cursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
        }
        assert_eq!(by_cursor, by_number, "{query}");
        assert_eq!(total, by_cursor.len(), "{query}");
        by_cursor
    }
}

fn numbers(page: &Value) -> Vec<u8> {
    let articles = page["articles"].as_array().unwrap().iter();
    articles
        .map(|article| article["title"].as_str().unwrap()[8..].parse().unwrap())
        .collect()
}

async fn filters_and_order_combine_with_search_and_both_kinds_of_pagination(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let user = raw::request(fixture.address, "GET", "/api/user", Some(&fixture.ann), None).await;
    let ann = user.json()["id"].to_string();
    for (query, expected) in [
        ("sort=newest", vec![5, 4, 3, 2, 1, 0]),
        ("sort=oldest", vec![0, 1, 2, 3, 4, 5]),
        ("author={ann}", vec![4, 2, 0]),
        ("author={ann}&sort=oldest", vec![0, 2, 4]),
        ("author={ann}&search=CLE%204", vec![4]),
        ("author={ann}&search=cle%205", vec![]),
        ("author=2147483647", vec![]),
        ("favorited=true", vec![5, 1, 0]),
        ("favorited=false", vec![4, 3, 2]),
        ("favorited=true&sort=oldest", vec![0, 1, 5]),
        ("favorited=true&author={ann}", vec![0]),
        (
            "favorited=false&author={ann}&sort=oldest&search=article",
            vec![2, 4],
        ),
        ("favorited=true&search=e%201", vec![1]),
    ] {
        let query = query.replace("{ann}", &ann);
        let listed = fixture.listed(&query, Some(&fixture.ann)).await;
        assert_eq!(listed, expected, "{query}");
    }
}

async fn favorites_are_the_callers_own(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    assert_eq!(fixture.listed("favorited=true", Some(&fixture.bob)).await, [1]);
    assert!(fixture.listed("favorited=true", None).await.is_empty());
    assert_eq!(fixture.listed("favorited=false", None).await, [5, 4, 3, 2, 1, 0]);
}

async fn crafted_cursors_are_rejected_and_invalid_filters_ignored(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    for cursor in [
        // A position in the year -9999, in the format of earlier cursors.
        "LTM3NzcwNTAyMzIwMTAwMDAwMC4x",
        "ffffffffffffffffffffff",
        "00000000000000ffffffff",
        "0000000000000000000001%00",
        "-0000000000001000000001",
        "%ff",
    ] {
        for more in ["", "&search=x", "&author=1", "&favorited=true", "&sort=oldest"] {
            let response = fixture
                .get(&format!("cursor={cursor}{more}"), Some(&fixture.ann))
                .await;
            assert_eq!(response.status, 400, "{cursor}{more}");
            let error = response.json();
            assert!(error["error"]["fields"]["cursor"].is_array(), "{error}");
        }
    }
    for query in [
        "author=",
        "author=0",
        "author=-1",
        "author=bob",
        "author=2147483648",
        "author=1%00",
        "author=1;--",
        "favorited=",
        "favorited=1",
        "favorited=TRUE",
        "sort=",
        "sort=title",
        "sort=oldest%00",
    ] {
        let listed = fixture.listed(query, Some(&fixture.ann)).await;
        assert_eq!(listed, [5, 4, 3, 2, 1, 0], "{query}");
    }
    // The first and the last position that a cursor can name.
    for cursor in ["0000000000000000000000", "ffffffffffffff7fffffff"] {
        for sort in ["newest", "oldest"] {
            let response = fixture.get(&format!("cursor={cursor}&sort={sort}"), None).await;
            assert_eq!(response.status, 200, "{cursor}");
        }
    }
}

async fn the_tag_of_a_page_changes_with_the_page(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let tag = async |token: Option<&str>| {
        let response = fixture.get("per_page=3", token).await;
        response.header("etag").unwrap().to_owned()
    };
    let before = tag(None).await;
    assert_eq!(tag(None).await, before);
    assert_ne!(
        tag(Some(&fixture.ann)).await,
        before,
        "`favorited` depends on the user"
    );
    for (listed, status) in [
        (before.clone(), 304),
        (format!("W/{before}"), 304),
        (format!("\"x\", {before}"), 304),
        ("\"x\"".to_owned(), 200),
    ] {
        let fields = [("If-None-Match", listed.as_str())];
        let target = "/api/articles/?per_page=3";
        let response = raw::request_with(fixture.address, "GET", target, None, &fields, None).await;
        assert_eq!(
            (response.status, response.body.is_empty()),
            (status, status == 304)
        );
        assert_eq!(response.header("etag"), Some(before.as_str()));
        assert_eq!(response.header("cache-control"), Some("no-cache"));
    }
    let body = json!({"title": "Article 6", "body": "x"});
    raw::request(
        fixture.address,
        "POST",
        "/api/articles/",
        Some(&fixture.ann),
        Some(&body),
    )
    .await;
    assert_ne!(tag(None).await, before);
}
