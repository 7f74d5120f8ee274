//! Entity tags and conditional requests.

use std::{net::SocketAddr, sync::Arc};

use futures_util::future::join_all;
use pressroom::store::Store;
use serde_json::{Value, json};

use super::over_both_stores;
use crate::support::{api, raw};

over_both_stores! {
    a_matching_if_none_match_returns_304
    the_tag_changes_with_the_response_content
    an_update_of_a_version_not_listed_in_if_match_is_rejected
    a_deletion_of_a_version_not_listed_in_if_match_is_rejected
    one_of_several_concurrent_updates_of_a_version_succeeds
    one_of_several_concurrent_updates_and_deletions_of_a_version_succeeds
    preconditions_are_checked_last
    a_tag_changed_by_a_proxy_is_treated_like_the_original
}

const IF_MATCH: &str = "If-Match";
const IF_NONE_MATCH: &str = "If-None-Match";

/// An API with one article, written by Alice.
struct Fixture {
    address: SocketAddr,
    _api: api::Api,
    alice: String,
    target: String,
    created: raw::Response,
}

impl Fixture {
    async fn on(store: Arc<dyn Store>) -> Self {
        let api = api::start(store).await;
        let address = api.address;
        let alice = raw::register(address, "alice@example.com").await;
        let body = json!({"title": "Tagged", "body": "x"});
        let created = raw::request(address, "POST", "/api/articles/", Some(&alice), Some(&body)).await;
        assert_eq!(created.status, 201);
        Self {
            address,
            _api: api,
            alice,
            target: created.header("location").unwrap().to_owned(),
            created,
        }
    }

    async fn get(&self, token: Option<&str>) -> raw::Response {
        let response = raw::request(self.address, "GET", &self.target, token, None).await;
        assert_eq!(response.status, 200);
        response
    }

    async fn send(&self, method: &str, fields: &[(&str, &str)], body: Option<&Value>) -> raw::Response {
        raw::request_with(
            self.address,
            method,
            &self.target,
            Some(&self.alice),
            fields,
            body,
        )
        .await
    }
}

fn tag(response: &raw::Response) -> String {
    response.header("etag").expect("ETag is present").to_owned()
}

async fn a_matching_if_none_match_returns_304(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let shown = fixture.get(Some(&fixture.alice)).await;
    let tag = tag(&shown);
    assert_eq!(
        fixture.created.header("etag"),
        Some(tag.as_str()),
        "the response to the creation has the same tag"
    );
    for (listed, status) in [
        (tag.clone(), 304),
        (format!("W/{tag}"), 304),
        ("*".to_owned(), 304),
        (format!("\"x\", {tag}"), 304),
        ("\"x\"".to_owned(), 200),
        (String::new(), 200),
    ] {
        for method in ["GET", "HEAD"] {
            let response = fixture.send(method, &[(IF_NONE_MATCH, &listed)], None).await;
            assert_eq!(response.status, status, "{method} {listed}");
            assert_eq!(response.header("etag"), Some(tag.as_str()));
            assert_eq!(response.header("cache-control"), Some("no-cache"));
            assert!(response.lists("vary", "Authorization"), "{}", response.head);
            assert_eq!(response.body.is_empty(), status == 304 || method == "HEAD");
        }
    }
}

async fn the_tag_changes_with_the_response_content(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let Fixture { address, target, .. } = &fixture;
    let bob = raw::register(*address, "bob@example.com").await;
    let before = tag(&fixture.get(None).await);
    assert_eq!(
        tag(&fixture.get(Some(&bob)).await),
        before,
        "the content is the same"
    );

    let favorite = format!("{target}/favorite");
    raw::request(*address, "POST", &favorite, Some(&bob), None).await;
    let (anonymous, bob_tag) = (tag(&fixture.get(None).await), tag(&fixture.get(Some(&bob)).await));
    assert_ne!(anonymous, before, "favorites_count has changed");
    assert_ne!(bob_tag, anonymous, "favorited is true only for Bob");

    let name = json!({"name": "Alice B."});
    raw::request(*address, "PUT", "/api/user", Some(&fixture.alice), Some(&name)).await;
    let renamed = tag(&fixture.get(None).await);
    assert_ne!(renamed, anonymous, "the author's name has changed");

    let change = json!({"body": "y"});
    let changed = fixture.send("PUT", &[], Some(&change)).await;
    assert_eq!(changed.header("content-location"), Some(target.as_str()));
    assert_ne!(tag(&changed), renamed, "an update within the same microsecond");
    assert_eq!(tag(&changed), tag(&fixture.get(None).await));
}

async fn an_update_of_a_version_not_listed_in_if_match_is_rejected(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let old = tag(&fixture.get(None).await);
    let first = fixture
        .send("PUT", &[(IF_MATCH, &old)], Some(&json!({"body": "first"})))
        .await;
    assert_eq!(first.status, 200);
    let new = tag(&first);
    let crafted = format!("\"{:x}-1\"", (-377_705_023_201_000_000_i64).cast_unsigned());
    let old_compressed = format!("W/{}", with_suffix(&old, "-gzip"));
    for listed in [
        old.as_str(),
        &old_compressed,
        &crafted,
        "\"7fffffffffffffff-1\"",
        "\"8000000000000000-1\"",
        "\"1-1\"",
        "\"x\"",
        "x",
        "",
    ] {
        let rejected = fixture
            .send("PUT", &[(IF_MATCH, listed)], Some(&json!({"body": "lost"})))
            .await;
        assert_eq!(rejected.status, 412, "{listed:?}");
        assert_eq!(rejected.json()["error"]["code"], "precondition_failed");
    }
    for listed in ["*", &new, &format!("W/{new}"), &with_suffix(&new, "-gzip")] {
        let fields = [(IF_NONE_MATCH, listed)];
        let rejected = fixture.send("PUT", &fields, Some(&json!({"body": "lost"}))).await;
        assert_eq!(rejected.status, 412, "{listed:?}");
    }
    let current = fixture.get(None).await;
    assert_eq!(current.json()["body"], "first");

    // A favourite does not create a new version.
    let favorite = format!("{}/favorite", fixture.target);
    raw::request(fixture.address, "POST", &favorite, Some(&fixture.alice), None).await;
    let listed = format!("{old}, {new}");
    let second = fixture
        .send("PUT", &[(IF_MATCH, &listed)], Some(&json!({"body": "second"})))
        .await;
    assert_eq!(second.status, 200);
    let any = fixture
        .send("PUT", &[(IF_MATCH, "*")], Some(&json!({"body": "third"})))
        .await;
    assert_eq!(any.status, 200);
}

async fn a_deletion_of_a_version_not_listed_in_if_match_is_rejected(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let favorite = format!("{}/favorite", fixture.target);
    raw::request(fixture.address, "POST", &favorite, Some(&fixture.alice), None).await;
    let old = tag(&fixture.get(None).await);
    let changed = fixture.send("PUT", &[], Some(&json!({"body": "y"}))).await;
    assert_eq!(
        fixture.send("DELETE", &[(IF_MATCH, &old)], None).await.status,
        412
    );
    let current = fixture.get(Some(&fixture.alice)).await.json();
    assert_eq!(
        (&current["favorites_count"], &current["favorited"]),
        (&json!(1), &json!(true)),
        "a rejected deletion keeps the favourites"
    );
    assert_eq!(
        fixture
            .send("DELETE", &[(IF_MATCH, &tag(&changed))], None)
            .await
            .status,
        204
    );
    assert_eq!(fixture.send("DELETE", &[(IF_MATCH, "*")], None).await.status, 404);
}

/// Proxies that compress a response make its tag weak or append the coding.
async fn a_tag_changed_by_a_proxy_is_treated_like_the_original(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    for change in ["-gzip", "--gzip", ";gzip", "-br", "-zstd", "-deflate", ""] {
        for prefix in ["", "W/"] {
            let current = tag(&fixture.get(None).await);
            let changed = format!("{prefix}{}", with_suffix(&current, change));
            let cached = fixture.send("GET", &[(IF_NONE_MATCH, &changed)], None).await;
            assert_eq!(cached.status, 304, "{changed}");
            let fields = [(IF_MATCH, changed.as_str())];
            let updated = fixture
                .send("PUT", &fields, Some(&json!({"body": changed})))
                .await;
            assert_eq!(updated.status, 200, "{changed}");
            let lost = fixture.send("PUT", &fields, Some(&json!({"body": "lost"}))).await;
            assert_eq!(lost.status, 412, "{changed}");
        }
    }
    let current = format!("W/{}", with_suffix(&tag(&fixture.get(None).await), "-gzip"));
    let deleted = fixture.send("DELETE", &[(IF_MATCH, &current)], None).await;
    assert_eq!(deleted.status, 204);
}

/// Appends `suffix` inside the quotes of a tag.
fn with_suffix(tag: &str, suffix: &str) -> String {
    format!("{}{suffix}\"", tag.trim_end_matches('"'))
}

/// All updates happen in the same microsecond of the fixed clock, and none may be lost.
async fn one_of_several_concurrent_updates_of_a_version_succeeds(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    for _round in 0..4 {
        let tag = tag(&fixture.get(None).await);
        let changes = (0..16).map(async |client| {
            let body = json!({"body": format!("by {client}")});
            let response = fixture.send("PUT", &[(IF_MATCH, &tag)], Some(&body)).await;
            (response.status, client)
        });
        let responses = join_all(changes).await;
        let winners: Vec<_> = responses.iter().filter(|(status, _)| *status == 200).collect();
        assert_eq!(winners.len(), 1, "{responses:?}");
        assert_eq!(responses.iter().filter(|(status, _)| *status == 412).count(), 15);
        let shown = fixture.get(None).await.json();
        assert_eq!(shown["body"], format!("by {}", winners[0].1));
    }
}

async fn one_of_several_concurrent_updates_and_deletions_of_a_version_succeeds(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let tag = tag(&fixture.get(None).await);
    let responses = join_all((0..16).map(async |client| {
        let body = json!({"body": "y"});
        let fields = [(IF_MATCH, tag.as_str())];
        if client % 2 == 0 {
            fixture.send("DELETE", &fields, None).await.status
        } else {
            fixture.send("PUT", &fields, Some(&body)).await.status
        }
    }))
    .await;
    let succeeded = responses
        .iter()
        .filter(|status| matches!(status, 200 | 204))
        .count();
    assert_eq!(succeeded, 1, "{responses:?}");
    assert!(
        responses
            .iter()
            .all(|status| matches!(status, 200 | 204 | 404 | 412))
    );
}

async fn preconditions_are_checked_last(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let bob = raw::register(fixture.address, "bob@example.com").await;
    let body = json!({"body": "y"});
    let (wrong, missing) = (json!({"body": 1}), format!("{}-x", fixture.target));
    for (token, target, body, status) in [
        (None, &fixture.target, &body, 401),
        (Some(&fixture.alice), &missing, &body, 404),
        (Some(&bob), &fixture.target, &body, 403),
        (Some(&fixture.alice), &fixture.target, &wrong, 400),
        (Some(&fixture.alice), &fixture.target, &body, 412),
    ] {
        let token = token.map(String::as_str);
        let fields = [(IF_MATCH, "\"x\"")];
        let response = raw::request_with(fixture.address, "PUT", target, token, &fields, Some(body)).await;
        assert_eq!(response.status, status);
    }
}
