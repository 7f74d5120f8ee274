//! Entity tags, and requests that depend on the state of what they are about.

use std::{net::SocketAddr, sync::Arc};

use futures_util::future::join_all;
use pressroom::store::Store;
use serde_json::{Value, json};

use super::over_both_stores;
use crate::support::{api, raw};

over_both_stores! {
    a_reader_who_has_the_article_is_not_sent_it_again
    what_a_reader_is_shown_decides_the_tag
    a_change_of_another_version_than_the_one_meant_is_refused
    a_deletion_of_another_version_than_the_one_meant_is_refused
    of_many_changes_of_one_version_one_succeeds
    of_changes_and_a_deletion_of_one_version_one_succeeds
    conditions_come_after_everything_else
}

const IF_MATCH: &str = "If-Match";
const IF_NONE_MATCH: &str = "If-None-Match";

/// An article of Alice's, and where it is.
struct Written {
    address: SocketAddr,
    _api: api::Api,
    alice: String,
    target: String,
    created: raw::Answer,
}

impl Written {
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

    async fn get(&self, token: Option<&str>) -> raw::Answer {
        let answer = raw::request(self.address, "GET", &self.target, token, None).await;
        assert_eq!(answer.status, 200);
        answer
    }

    async fn ask(&self, method: &str, fields: &[(&str, &str)], body: Option<&Value>) -> raw::Answer {
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

fn tag(answer: &raw::Answer) -> String {
    answer.header("etag").expect("a tag").to_owned()
}

async fn a_reader_who_has_the_article_is_not_sent_it_again(store: Arc<dyn Store>) {
    let written = Written::on(store).await;
    let shown = written.get(Some(&written.alice)).await;
    let tag = tag(&shown);
    assert_eq!(
        written.created.header("etag"),
        Some(tag.as_str()),
        "a new article has the same"
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
            let answer = written.ask(method, &[(IF_NONE_MATCH, &listed)], None).await;
            assert_eq!(answer.status, status, "{method} {listed}");
            assert_eq!(answer.header("etag"), Some(tag.as_str()));
            assert_eq!(answer.header("cache-control"), Some("no-cache"));
            assert_eq!(answer.header("vary"), Some("Authorization"));
            assert_eq!(answer.body.is_empty(), status == 304 || method == "HEAD");
        }
    }
}

async fn what_a_reader_is_shown_decides_the_tag(store: Arc<dyn Store>) {
    let written = Written::on(store).await;
    let Written { address, target, .. } = &written;
    let bob = raw::register(*address, "bob@example.com").await;
    let before = tag(&written.get(None).await);
    assert_eq!(tag(&written.get(Some(&bob)).await), before, "the same is shown");

    let favorite = format!("{target}/favorite");
    raw::request(*address, "POST", &favorite, Some(&bob), None).await;
    let (anonymous, bobs) = (tag(&written.get(None).await), tag(&written.get(Some(&bob)).await));
    assert_ne!(anonymous, before, "the count has changed");
    assert_ne!(bobs, anonymous, "only Bob has it among his favourites");

    let name = json!({"name": "Alice B."});
    raw::request(*address, "PUT", "/api/user", Some(&written.alice), Some(&name)).await;
    let renamed = tag(&written.get(None).await);
    assert_ne!(renamed, anonymous, "the author's name is part of the answer");

    let change = json!({"body": "y"});
    let changed = written.ask("PUT", &[], Some(&change)).await;
    assert_eq!(changed.header("content-location"), Some(target.as_str()));
    assert_ne!(tag(&changed), renamed, "also within one microsecond");
    assert_eq!(tag(&changed), tag(&written.get(None).await));
}

async fn a_change_of_another_version_than_the_one_meant_is_refused(store: Arc<dyn Store>) {
    let written = Written::on(store).await;
    let old = tag(&written.get(None).await);
    let first = written
        .ask("PUT", &[(IF_MATCH, &old)], Some(&json!({"body": "first"})))
        .await;
    assert_eq!(first.status, 200);
    let new = tag(&first);
    for listed in [old.as_str(), &format!("W/{new}"), "\"x\"", "x", ""] {
        let refused = written
            .ask("PUT", &[(IF_MATCH, listed)], Some(&json!({"body": "lost"})))
            .await;
        assert_eq!(refused.status, 412, "{listed:?}");
        assert_eq!(refused.json()["error"]["code"], "precondition_failed");
    }
    for listed in ["*", &format!("W/{new}")] {
        let fields = [(IF_NONE_MATCH, listed)];
        let refused = written.ask("PUT", &fields, Some(&json!({"body": "lost"}))).await;
        assert_eq!(refused.status, 412, "{listed:?}");
    }
    let kept = written.get(None).await;
    assert_eq!(kept.json()["body"], "first");

    // A favourite is no change of what a PUT replaces.
    let favorite = format!("{}/favorite", written.target);
    raw::request(written.address, "POST", &favorite, Some(&written.alice), None).await;
    let listed = format!("{old}, {new}");
    let second = written
        .ask("PUT", &[(IF_MATCH, &listed)], Some(&json!({"body": "second"})))
        .await;
    assert_eq!(second.status, 200);
    let any = written
        .ask("PUT", &[(IF_MATCH, "*")], Some(&json!({"body": "third"})))
        .await;
    assert_eq!(any.status, 200);
}

async fn a_deletion_of_another_version_than_the_one_meant_is_refused(store: Arc<dyn Store>) {
    let written = Written::on(store).await;
    let favorite = format!("{}/favorite", written.target);
    raw::request(written.address, "POST", &favorite, Some(&written.alice), None).await;
    let old = tag(&written.get(None).await);
    let changed = written.ask("PUT", &[], Some(&json!({"body": "y"}))).await;
    assert_eq!(written.ask("DELETE", &[(IF_MATCH, &old)], None).await.status, 412);
    let kept = written.get(Some(&written.alice)).await.json();
    assert_eq!(
        (&kept["favorites_count"], &kept["favorited"]),
        (&json!(1), &json!(true)),
        "the favourites stay with it"
    );
    assert_eq!(
        written
            .ask("DELETE", &[(IF_MATCH, &tag(&changed))], None)
            .await
            .status,
        204
    );
    assert_eq!(written.ask("DELETE", &[(IF_MATCH, "*")], None).await.status, 404);
}

/// The clock stands still: not even within one microsecond is an update lost.
async fn of_many_changes_of_one_version_one_succeeds(store: Arc<dyn Store>) {
    let written = Written::on(store).await;
    for _round in 0..4 {
        let tag = tag(&written.get(None).await);
        let changes = (0..16).map(async |client| {
            let body = json!({"body": format!("by {client}")});
            let answer = written.ask("PUT", &[(IF_MATCH, &tag)], Some(&body)).await;
            (answer.status, client)
        });
        let answers = join_all(changes).await;
        let winners: Vec<_> = answers.iter().filter(|(status, _)| *status == 200).collect();
        assert_eq!(winners.len(), 1, "{answers:?}");
        assert_eq!(answers.iter().filter(|(status, _)| *status == 412).count(), 15);
        let shown = written.get(None).await.json();
        assert_eq!(shown["body"], format!("by {}", winners[0].1));
    }
}

async fn of_changes_and_a_deletion_of_one_version_one_succeeds(store: Arc<dyn Store>) {
    let written = Written::on(store).await;
    let tag = tag(&written.get(None).await);
    let answers = join_all((0..16).map(async |client| {
        let body = json!({"body": "y"});
        let fields = [(IF_MATCH, tag.as_str())];
        if client % 2 == 0 {
            written.ask("DELETE", &fields, None).await.status
        } else {
            written.ask("PUT", &fields, Some(&body)).await.status
        }
    }))
    .await;
    let succeeded = answers
        .iter()
        .filter(|status| matches!(status, 200 | 204))
        .count();
    assert_eq!(succeeded, 1, "{answers:?}");
    assert!(
        answers
            .iter()
            .all(|status| matches!(status, 200 | 204 | 404 | 412))
    );
}

async fn conditions_come_after_everything_else(store: Arc<dyn Store>) {
    let written = Written::on(store).await;
    let bob = raw::register(written.address, "bob@example.com").await;
    let body = json!({"body": "y"});
    let (wrong, missing) = (json!({"body": 1}), format!("{}-x", written.target));
    for (token, target, body, status) in [
        (None, &written.target, &body, 401),
        (Some(&written.alice), &missing, &body, 404),
        (Some(&bob), &written.target, &body, 403),
        (Some(&written.alice), &written.target, &wrong, 400),
        (Some(&written.alice), &written.target, &body, 412),
    ] {
        let token = token.map(String::as_str);
        let fields = [(IF_MATCH, "\"x\"")];
        let answer = raw::request_with(written.address, "PUT", target, token, &fields, Some(body)).await;
        assert_eq!(answer.status, status);
    }
}
