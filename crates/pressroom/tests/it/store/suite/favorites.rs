//! Favorites and their count.

use futures_util::future::join_all;
use pressroom::domain::Precondition;

use super::over_all_stores;
use crate::store::fixture::{Fixture, at};

over_all_stores! {
    deleting_an_article_deletes_its_favorites
    favoriting_twice_counts_once
    concurrent_favorites_of_many_users_keep_the_count_exact
    concurrent_favorites_of_one_user_keep_the_count_exact
    concurrent_deletions_and_favorites_all_succeed
}

async fn deleting_an_article_deletes_its_favorites(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await;
    let deleted = fixture.article("Deleted", ann.id, at(0)).await;
    let other = fixture.article("Other", ann.id, at(0)).await;
    store.favorite(&deleted.slug, ann.id, at(1)).await.unwrap();
    store.favorite(&other.slug, ann.id, at(1)).await.unwrap();
    assert!(
        store
            .delete_article(deleted.id, Precondition::default())
            .await
            .unwrap()
    );
    assert!(
        !store
            .delete_article(deleted.id, Precondition::default())
            .await
            .unwrap()
    );
    assert!(store.find_article(&deleted.slug, None).await.unwrap().is_none());
    assert!(store.find_article(&other.slug, None).await.unwrap().is_some());
    assert_eq!(fixture.count("SELECT count(*) FROM favorites").await, 1);
}

async fn favoriting_twice_counts_once(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await;
    let bob = fixture.user("bob@example.com").await;
    let slug = fixture.article("One", ann.id, at(0)).await.slug;
    for _ in 0..2 {
        let article = store.favorite(&slug, bob.id, at(1)).await.unwrap().unwrap();
        assert_eq!((article.favorites_count, article.favorited), (1, true));
        assert_eq!(article.updated_at, at(0));
        assert_eq!(article.author.id, ann.id);
    }
    let article = store.favorite(&slug, ann.id, at(1)).await.unwrap().unwrap();
    assert_eq!(article.favorites_count, 2);
    for _ in 0..2 {
        let article = store.unfavorite(&slug, bob.id).await.unwrap().unwrap();
        assert_eq!((article.favorites_count, article.favorited), (1, false));
    }
    let seen = store.find_article(&slug, Some(ann.id)).await.unwrap().unwrap();
    assert_eq!((seen.favorites_count, seen.favorited), (1, true));
    assert!(store.favorite("nothing", bob.id, at(1)).await.unwrap().is_none());
    assert!(store.unfavorite("nothing", bob.id).await.unwrap().is_none());
}

async fn concurrent_favorites_of_many_users_keep_the_count_exact(fixture: Fixture) {
    let store = &fixture.store;
    let mut users = Vec::new();
    for n in 0..64 {
        users.push(fixture.user(&format!("user{n}@example.com")).await.id);
    }
    let article = fixture.article("One", users[0], at(0)).await;
    let added = join_all(
        users
            .iter()
            .map(|user| store.favorite(&article.slug, *user, at(1))),
    )
    .await;
    assert!(added.iter().all(|result| matches!(result, Ok(Some(_)))));
    assert_eq!(fixture.favorites_of(article.id).await, (64, 64));

    // Half of the users remove their favourite while the others add theirs again.
    let mixed = users.iter().enumerate().map(async |(n, user)| {
        if n % 2 == 0 {
            store.unfavorite(&article.slug, *user).await
        } else {
            store.favorite(&article.slug, *user, at(2)).await
        }
    });
    for result in join_all(mixed).await {
        result.unwrap().unwrap();
    }
    assert_eq!(fixture.favorites_of(article.id).await, (32, 32));
}

async fn concurrent_favorites_of_one_user_keep_the_count_exact(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await.id;
    let article = fixture.article("One", ann, at(0)).await;
    let toggles = (0..64).map(async |n| {
        if n % 2 == 0 {
            store.favorite(&article.slug, ann, at(1)).await
        } else {
            store.unfavorite(&article.slug, ann).await
        }
    });
    for result in join_all(toggles).await {
        result.unwrap().unwrap();
    }
    let (counted, rows) = fixture.favorites_of(article.id).await;
    assert_eq!(counted, rows);
    assert!(rows <= 1);
}

async fn concurrent_deletions_and_favorites_all_succeed(fixture: Fixture) {
    let store = &fixture.store;
    let mut users = Vec::new();
    for n in 0..16 {
        users.push(fixture.user(&format!("user{n}@example.com")).await.id);
    }
    for round in 0..6 {
        let article = fixture.article(&format!("No {round}"), users[0], at(0)).await;
        for user in &users[..8] {
            store.favorite(&article.slug, *user, at(1)).await.unwrap();
        }
        let race = users.iter().enumerate().map(async |(n, user)| match n {
            4 => store
                .delete_article(article.id, Precondition::default())
                .await
                .map(|_| ()),
            n if n < 8 => store.unfavorite(&article.slug, *user).await.map(|_| ()),
            _ => store.favorite(&article.slug, *user, at(2)).await.map(|_| ()),
        });
        for result in join_all(race).await {
            result.unwrap();
        }
        assert!(store.find_article_by_id(article.id).await.unwrap().is_none());
    }
    assert_eq!(fixture.count("SELECT count(*) FROM favorites").await, 0);
}
