//! Tests of OAuth2 client credentials.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::{super::*, backend::Reply, *};

const ENOUGH: Duration = Duration::from_secs(20);

fn rejection(error: &str) -> Reply {
    Reply::status(401)
        .header("content-type", "application/json")
        .body(format!(
            r#"{{"error":"{error}","error_description":"not {CLIENT_SECRET}"}}"#
        ))
}

#[tokio::test]
async fn one_token_is_requested_and_used_for_all_signals() {
    let (backend, scratch) = (Backend::start().await, Scratch::new());
    backend.reply_to_token_request(Reply::token("first", 3600));
    let forwarder = start(&with_tokens(&backend, &scratch));
    forwarder.accept(&one(1));
    forwarder.accept(&log("started"));
    forwarder.accept(&contents::gauge(&[1]));
    forwarder.finish(ENOUGH).await;
    for path in ["/v1/traces", "/v1/logs", "/v1/metrics"] {
        assert_eq!(
            backend.requests_to(path)[0].header("authorization"),
            "Bearer first"
        );
    }
    let requests = backend.requests_to("/token");
    assert_eq!(requests.len(), 1);
    assert_eq!(
        requests[0].header("authorization"),
        format!(
            "Basic {}",
            BASE64_STANDARD.encode(format!("pressroom:{CLIENT_SECRET}"))
        )
    );
    assert_eq!(
        requests[0].header("content-type"),
        "application/x-www-form-urlencoded"
    );
    let form: Vec<(String, String)> = url::form_urlencoded::parse(&requests[0].body)
        .into_owned()
        .collect();
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(
        form,
        [
            pair("grant_type", "client_credentials"),
            pair("audience", "b14collector")
        ]
    );
}

#[tokio::test]
async fn a_token_endpoint_that_is_down_is_retried_until_it_is_up() {
    let (backend, mut issuer, scratch) = (Backend::start().await, Backend::down().await, Scratch::new());
    let mut forwarding = with_tokens(&backend, &scratch);
    forwarding.credentials.as_mut().unwrap().token_url = issuer.url("/token");
    let forwarder = start(&forwarding);
    forwarder.accept(&one(1));
    until("the failure is reported", || {
        forwarder.status().last_error.is_some()
    })
    .await;
    let error = forwarder.status().last_error.unwrap();
    assert!(error.starts_with("cannot reach the token endpoint: "), "{error}");
    assert_eq!(backend.requests_to("/v1/traces").len(), 0);
    issuer.up().await;
    until("the request is accepted", || backend.accepted() == set([1])).await;
}

#[tokio::test]
async fn no_reply_from_a_token_endpoint_loses_requests() {
    let text = |text: &'static str| {
        Reply::status(200)
            .header("content-type", "application/json")
            .body(text)
    };
    let unreadable = "the token endpoint responded without a valid token";
    for (reply, error) in [
        (Reply::status(503), "the token endpoint responded with HTTP 503"),
        (
            Reply::status(307).header("location", "/elsewhere"),
            "the token endpoint responded with HTTP 307",
        ),
        (
            rejection("invalid_client"),
            "the token endpoint rejected the request: invalid_client",
        ),
        (
            rejection(CLIENT_SECRET),
            "the token endpoint rejected the request: an error that RFC 6749 does not define",
        ),
        (Reply::status(401), "the token endpoint responded with HTTP 401"),
        (Reply::status(429), "the token endpoint responded with HTTP 429"),
        (text(""), unreadable),
        (text("<html>"), unreadable),
        (text(r#"{"access_token":1}"#), unreadable),
        (
            text("{\"access_token\":\"a\\nb\",\"token_type\":\"Bearer\"}"),
            unreadable,
        ),
        (
            Reply::status(200)
                .header("content-type", "application/json")
                .body(vec![b' '; 1 << 20]),
            unreadable,
        ),
    ] {
        let (backend, scratch) = (Backend::start().await, Scratch::new());
        // One reply for the request with the secret in the header, one for the request with it in the body.
        backend.reply_to_token_request(reply.clone());
        backend.reply_to_token_request(reply.clone());
        let timing = Timing {
            min_back_off: Duration::from_millis(100),
            ..quick_timing()
        };
        let forwarder = Forwarder::start_with(&with_tokens(&backend, &scratch), timing).unwrap();
        forwarder.accept(&one(1));
        until("the failure is reported", || {
            forwarder.status().last_error.is_some()
        })
        .await;
        assert_eq!(forwarder.status().last_error.as_deref(), Some(error), "{reply:?}");
        until("the request is accepted", || backend.accepted() == set([1])).await;
        assert_eq!(backend.requests_to("/elsewhere").len(), 0);
    }
}

#[tokio::test]
async fn a_secret_accepted_only_in_the_body_is_sent_there() {
    let (backend, scratch) = (Backend::start().await, Scratch::new());
    backend.reply_to_token_request(rejection("invalid_client"));
    // This token expires immediately, so every batch renews it.
    backend.reply_to_token_request(Reply::token("first", 0));
    let forwarder = start(&with_tokens(&backend, &scratch));
    for id in 1..=2 {
        forwarder.accept(&one(id));
        until("the request is accepted", || forwarder.status().sent.spans == id).await;
    }
    let requests = backend.requests_to("/token");
    let in_body: Vec<bool> = requests
        .iter()
        .map(|request| {
            let body = String::from_utf8_lossy(&request.body);
            body.contains(&format!("client_id=pressroom&client_secret={CLIENT_SECRET}"))
        })
        .collect();
    assert_eq!(in_body, [false, true, true]);
    assert_eq!(requests[1].header("authorization"), "");
}

#[tokio::test]
async fn a_rejected_token_is_renewed_immediately() {
    for status in [401, 403] {
        let (backend, scratch) = (Backend::start().await, Scratch::new());
        backend.reply_to_token_request(Reply::token("first", 3600));
        backend.reply_to_token_request(Reply::token("second", 3600));
        backend.reply(Reply::status(status));
        let timing = Timing {
            min_back_off: Duration::from_secs(3600),
            max_back_off: Duration::from_secs(3600),
            ..quick_timing()
        };
        let forwarder = Forwarder::start_with(&with_tokens(&backend, &scratch), timing).unwrap();
        forwarder.accept(&one(1));
        until("the request is accepted", || backend.accepted() == set([1])).await;
        let used: Vec<String> = backend
            .requests_to("/v1/traces")
            .iter()
            .map(|request| request.header("authorization").to_owned())
            .collect();
        assert_eq!(used, ["Bearer first", "Bearer second"]);
    }
}

#[tokio::test]
async fn a_backend_that_rejects_every_token_is_retried() {
    let (backend, scratch) = (Backend::start().await, Scratch::new());
    for _ in 0..6 {
        backend.reply(Reply::status(401));
    }
    let forwarder = start(&with_tokens(&backend, &scratch));
    forwarder.accept(&one(1));
    until("the request is accepted", || backend.accepted() == set([1])).await;
    assert_eq!(backend.requests_to("/v1/traces").len(), 7);
    assert_eq!(backend.requests_to("/token").len(), 7);
    assert_eq!(forwarder.status().dropped_requests, 0);
}

#[tokio::test]
async fn a_token_is_used_until_it_is_renewed() {
    let (backend, scratch) = (Backend::start().await, Scratch::new());
    backend.reply_to_token_request(Reply::token("first", 1));
    backend.reply_to_token_request(Reply::token("second", 3600));
    let forwarder = start(&with_tokens(&backend, &scratch));
    let mut id = 0;
    while backend.requests_to("/token").len() < 2 {
        forwarder.accept(&one(id));
        id += 1;
        until("the request is accepted", || forwarder.status().sent.spans == id).await;
    }
    let tokens = backend.requests_to("/token");
    let life = tokens[1].at - tokens[0].at;
    assert!(life >= Duration::from_millis(450), "{life:?}");
    for request in backend.requests_to("/v1/traces") {
        let token = match request.at < tokens[1].at {
            true => "Bearer first",
            false => "Bearer second",
        };
        assert_eq!(request.header("authorization"), token);
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_renewed_is_used_until_it_expires() {
    let (backend, scratch) = (Backend::start().await, Scratch::new());
    backend.reply_to_token_request(Reply::token("first", 4));
    for _ in 0..1000 {
        backend.reply_to_token_request(Reply::status(503));
    }
    let forwarder = start(&with_tokens(&backend, &scratch));
    let mut id = 0;
    // Sending continues after a renewal has failed.
    while backend.requests_to("/token").len() < 2 {
        forwarder.accept(&one(id));
        id += 1;
        until("the request is accepted", || forwarder.status().sent.spans == id).await;
    }
    assert_eq!(forwarder.status().last_error, None);
    let tokens = backend.requests_to("/token");
    let last = backend.requests_to("/v1/traces").pop().unwrap();
    assert!(last.at > tokens[1].at);
}

#[tokio::test]
async fn secrets_are_not_shown() {
    let (backend, scratch) = (Backend::start().await, Scratch::new());
    backend.reply_to_token_request(Reply::token("t0ken", 3600));
    let forwarding = Forwarding {
        endpoint: backend.url("/?key=k3y"),
        headers: vec![("x-api-key".to_owned(), Secret::new("v4lue"))],
        ..with_tokens(&backend, &scratch)
    };
    let forwarder = start(&forwarding);
    forwarder.accept(&one(1));
    until("the request is accepted", || forwarder.status().sent.spans == 1).await;
    let status = serde_json::to_string(&forwarder.status()).unwrap();
    let exchange = exchange::Exchange::new(&forwarding, &quick_timing()).unwrap();
    for shown in [
        format!("{:?}", forwarding.credentials),
        format!("{:?}", forwarding.headers),
        format!("{forwarder:?}"),
        format!("{exchange:?}"),
        status,
    ] {
        for secret in [CLIENT_SECRET, "t0ken", "v4lue"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
    let status = forwarder.status();
    assert_eq!(status.endpoint, backend.url("/").to_string());
}
