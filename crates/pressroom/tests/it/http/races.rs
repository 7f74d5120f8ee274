//! Concurrent requests on the same resource.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::join_all;
use pressroom::{
    accounts::{
        Accounts, NewCredentials, Password, PasswordScheme, Passwords, RateLimiter, Rates, SecretKey, Tokens,
    },
    articles::Articles,
    clock::SystemClock,
    domain::{ArticleChanges, Email, Precondition, UserChanges},
    ids::RandomIds,
    store::Store,
};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{on_postgres, on_sqlite, over_both_stores};
use crate::{
    store::fixture::{at, new_article, new_user, task},
    support::{api, raw},
};

over_both_stores! {
    an_update_is_compared_with_the_article_that_it_replaces
    a_new_address_is_compared_with_the_current_one
}

const CLIENTS: usize = 64;

async fn register(address: SocketAddr, email: &str) -> raw::Response {
    let body = json!({"email": email, "password": "password123", "name": "Racer"});
    raw::request(address, "POST", "/api/register", None, Some(&body)).await
}

async fn create(address: SocketAddr, token: &str, title: &str) -> raw::Response {
    let body = json!({"title": title, "body": "x"});
    raw::request(address, "POST", "/api/articles/", Some(token), Some(&body)).await
}

/// All articles are created in the same second of the fixed clock.
async fn create_one_title_concurrently(store: Arc<dyn Store>) {
    let api = api::start(store).await;
    let token = raw::register(api.address, "alice@example.com").await;
    let responses = join_all((0..CLIENTS).map(|_| create(api.address, &token, "The same title"))).await;
    let mut slugs = Vec::new();
    for response in responses {
        assert_eq!(
            response.status,
            201,
            "{}",
            String::from_utf8_lossy(&response.body)
        );
        slugs.push(response.json()["slug"].as_str().unwrap().to_owned());
    }
    slugs.sort();
    slugs.dedup();
    assert_eq!(slugs.len(), CLIENTS, "slugs are distinct");
}

async fn favourite_concurrently(store: Arc<dyn Store>) {
    let api = api::start(store).await;
    let tokens =
        join_all((0..8).map(async |i| raw::register(api.address, &format!("racer{i}@example.com")).await))
            .await;
    let article = create(api.address, &tokens[0], "Popular").await.json();
    let target = format!("/api/articles/{}/favorite", article["slug"].as_str().unwrap());
    join_all((0..CLIENTS).map(async |client| {
        let token = &tokens[client % tokens.len()];
        for turn in 0..4 {
            let method = if (client + turn) % 3 == 0 {
                "DELETE"
            } else {
                "POST"
            };
            let response = raw::request(api.address, method, &target, Some(token), None).await;
            assert_eq!(
                response.status,
                200,
                "{}",
                String::from_utf8_lossy(&response.body)
            );
        }
    }))
    .await;
    // `favorited` shows each caller's row in the table; the count must be the number of rows.
    let target = target.trim_end_matches("/favorite");
    let seen: Vec<Value> = join_all(tokens.iter().map(async |token| {
        raw::request(api.address, "GET", target, Some(token), None)
            .await
            .json()
    }))
    .await;
    let favourites = seen.iter().filter(|article| article["favorited"] == true).count();
    assert_eq!(seen[0]["favorites_count"], favourites);
}

async fn register_one_address_concurrently(store: Arc<dyn Store>) {
    let api = api::start(store).await;
    let spellings = ["racer@example.com", "Racer@Example.com"];
    let responses = join_all((0..16).map(|i| register(api.address, spellings[i % 2]))).await;
    let mut statuses: Vec<u16> = responses.iter().map(|response| response.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses[0], 201);
    assert_eq!(statuses[1..], [409; 15]);
}

/// Two requests have read the article before either of them updates it.
async fn an_update_is_compared_with_the_article_that_it_replaces(store: Arc<dyn Store>) {
    let ann = store.insert_user(new_user("ann@example.com")).await.unwrap();
    let new = new_article("Old", ann.id, at(0));
    let created = store.insert_article(new, task(1, at(0))).await.unwrap();
    let (clock, ids) = (Arc::new(SystemClock), Arc::new(RandomIds));
    let articles = Articles::new(store.clone(), clock, ids, Arc::new(Notify::new()));
    let read = articles.find_to_update(&created.slug, &ann).await.unwrap();
    for (title, tasks) in [("New", 2), ("Old", 3), ("Old", 3)] {
        let changes = ArticleChanges {
            title: Some(title.to_owned()),
            ..ArticleChanges::default()
        };
        let updated = articles
            .update(&read, changes, Precondition::default())
            .await
            .unwrap();
        assert_eq!(updated.title, title);
        assert_eq!(store.outbox_backlog().await.unwrap().tasks, tasks);
    }
}

/// Two requests of one session have been authenticated before either of them changes the address.
async fn a_new_address_is_compared_with_the_current_one(store: Arc<dyn Store>) {
    let (clock, ids) = (Arc::new(SystemClock), Arc::new(RandomIds));
    let secret = || SecretKey::new(api::SECRET_KEY);
    let passwords = Passwords::new(PasswordScheme::Argon2id, 2, ids.clone());
    let tokens = Tokens::new(secret(), Duration::from_hours(1), clock.clone(), ids);
    let limiter = RateLimiter::new(Rates::UNLIMITED, secret());
    let accounts = Accounts::new(store, passwords, tokens, limiter, clock);
    let password = || Password("password123".to_owned());
    let email = |text| Email::parse(text).unwrap();
    let old = "ann@example.com";
    let session = accounts
        .register(email(old), password(), "Ann".to_owned(), None)
        .await
        .unwrap();
    let (user, claims) = accounts.authenticate(&session.token).await.unwrap();
    let change = async |address| {
        let credentials = NewCredentials {
            email: Some(email(address)),
            password: None,
            current_password: password(),
        };
        let changes = UserChanges::default();
        let updated = accounts
            .update(&user, &claims, changes, Some(credentials), None)
            .await;
        updated.unwrap().email
    };
    let new = "ann@mail.example";
    assert_eq!(change(new).await, new);
    let other = accounts.login(email(new), password(), None).await.unwrap();
    assert_eq!(change(new).await, new);
    accounts
        .authenticate(&other.token)
        .await
        .expect("an unchanged address ends no session");
    assert_eq!(change(old).await, old);
    accounts
        .authenticate(&other.token)
        .await
        .expect_err("a changed address ends other sessions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn articles_with_one_title_in_one_second_get_distinct_slugs_on_postgresql() {
    let fixture = on_postgres().await;
    create_one_title_concurrently(fixture.store.clone()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn articles_with_one_title_in_one_second_get_distinct_slugs_on_sqlite() {
    let fixture = on_sqlite();
    create_one_title_concurrently(fixture.store.clone()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_count_of_favourites_equals_the_table_on_postgresql() {
    let fixture = on_postgres().await;
    favourite_concurrently(fixture.store.clone()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_count_of_favourites_equals_the_table_on_sqlite() {
    let fixture = on_sqlite();
    favourite_concurrently(fixture.store.clone()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_registers_once_on_postgresql() {
    let fixture = on_postgres().await;
    register_one_address_concurrently(fixture.store.clone()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_registers_once_on_sqlite() {
    let fixture = on_sqlite();
    register_one_address_concurrently(fixture.store.clone()).await;
}
