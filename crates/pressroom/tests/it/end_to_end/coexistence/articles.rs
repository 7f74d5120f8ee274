//! Articles and favourites of each side, used on the other.

use serde_json::json;

use super::{SideBySide, create, expect, shown, slug, timestamp};
use crate::support::raw;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_article_of_one_side_is_listed_read_edited_favorited_and_deleted_on_the_other() {
    let sides = SideBySide::start().await;
    for (number, (here, there)) in sides.both().into_iter().enumerate() {
        let alice = raw::register(here, &format!("alice{number}@example.com")).await;
        let bob = raw::register(there, &format!("bob{number}@example.com")).await;
        let title = format!("Crème brûlée, part {number}");
        let article = create(here, &alice, &title).await;
        let path = format!("/api/articles/{}", slug(&article));

        let read = expect(200, there, ("GET", &path), None, None).await;
        assert_eq!(shown(&read), shown(&article));
        let list = format!("/api/articles/?search=part%20{number}");
        let found = expect(200, there, ("GET", &list), None, None).await;
        assert_eq!(found["total"], 1);
        assert_eq!(shown(&found["articles"][0]), shown(&article));

        let change = json!({"title": "Another title"});
        expect(403, there, ("PUT", &path), Some(&bob), Some(change.clone())).await;
        let edited = expect(200, there, ("PUT", &path), Some(&alice), Some(change)).await;
        assert!(timestamp(&edited["updated_at"]) > timestamp(&article["updated_at"]));
        let read = expect(200, here, ("GET", &path), None, None).await;
        assert_eq!(shown(&read), shown(&edited));
        assert_eq!(
            (&read["title"], &read["slug"]),
            (&json!("Another title"), &article["slug"])
        );

        let favorite = format!("{path}/favorite");
        for side in [there, here] {
            let favored = expect(200, side, ("POST", &favorite), Some(&bob), None).await;
            assert_eq!(favored["favorites_count"], 1, "counted once on both sides");
        }
        for side in [here, there] {
            let read = expect(200, side, ("GET", &path), Some(&bob), None).await;
            assert_eq!(
                (&read["favorited"], &read["favorites_count"]),
                (&json!(true), &json!(1))
            );
            let read = expect(200, side, ("GET", &path), Some(&alice), None).await;
            assert_eq!(read["favorited"], false);
        }
        let unfavored = expect(200, here, ("DELETE", &favorite), Some(&bob), None).await;
        assert_eq!(unfavored["favorites_count"], 0);
        let read = expect(200, there, ("GET", &path), Some(&bob), None).await;
        assert_eq!(
            (&read["favorited"], &read["favorites_count"]),
            (&json!(false), &json!(0))
        );

        // Deletes an article that has a favourite from the other side.
        expect(200, here, ("POST", &favorite), Some(&bob), None).await;
        expect(204, there, ("DELETE", &path), Some(&alice), None).await;
        expect(404, here, ("GET", &path), None, None).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_list_articles_in_the_same_order() {
    let sides = SideBySide::start().await;
    let alice = raw::register(sides.new, "alice@example.com").await;
    for number in 0..6 {
        let side = if number % 2 == 0 { sides.old } else { sides.new };
        create(side, &alice, &format!("Number {number}")).await;
    }
    let mut lists = Vec::new();
    for side in [sides.old, sides.new] {
        let list = expect(200, side, ("GET", "/api/articles/?per_page=4&page=1"), None, None).await;
        assert_eq!(list["total"], 6);
        let articles: Vec<_> = list["articles"].as_array().unwrap().iter().map(shown).collect();
        assert_eq!(articles.len(), 4);
        assert_eq!(articles[0]["title"], "Number 5");
        lists.push(articles);
    }
    assert_eq!(lists[0], lists[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_favorites_on_both_sides_are_all_counted() {
    const FANS: usize = 8;
    let sides = SideBySide::start().await;
    let alice = raw::register(sides.old, "alice@example.com").await;
    let article = create(sides.new, &alice, "Contended").await;
    let path = format!("/api/articles/{}", slug(&article));
    let mut requests = tokio::task::JoinSet::new();
    for fan in 0..FANS {
        let side = if fan % 2 == 0 { sides.old } else { sides.new };
        let target = format!("{path}/favorite");
        requests.spawn(async move {
            let token = raw::register(side, &format!("fan{fan}@example.com")).await;
            expect(200, side, ("POST", &target), Some(&token), None).await;
        });
    }
    requests.join_all().await;
    for side in [sides.old, sides.new] {
        let read = expect(200, side, ("GET", &path), None, None).await;
        assert_eq!(read["favorites_count"], FANS);
    }
}
