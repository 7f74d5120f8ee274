//! OAuth2 client credentials.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::{super::*, backend::Answer, *};

const ENOUGH: Duration = Duration::from_secs(20);

fn refusal(error: &str) -> Answer {
    Answer::status(401)
        .header("content-type", "application/json")
        .body(format!(
            r#"{{"error":"{error}","error_description":"not {CLIENT_SECRET}"}}"#
        ))
}

#[tokio::test]
async fn one_token_is_asked_for_and_used_for_all_signals() {
    let (backend, scratch) = (Backend::start().await, Scratch::new());
    backend.then_token(Answer::token("first", 3600));
    let forwarder = start(&with_tokens(&backend, &scratch));
    forwarder.accept(&one(1));
    forwarder.accept(&log("started"));
    forwarder.accept(&contents::gauge(&[1]));
    forwarder.finish(ENOUGH).await;
    for path in ["/v1/traces", "/v1/logs", "/v1/metrics"] {
        assert_eq!(backend.asked(path)[0].header("authorization"), "Bearer first");
    }
    let asked = backend.asked("/token");
    assert_eq!(asked.len(), 1);
    assert_eq!(
        asked[0].header("authorization"),
        format!(
            "Basic {}",
            BASE64_STANDARD.encode(format!("pressroom:{CLIENT_SECRET}"))
        )
    );
    assert_eq!(
        asked[0].header("content-type"),
        "application/x-www-form-urlencoded"
    );
    let form: Vec<(String, String)> = url::form_urlencoded::parse(&asked[0].body).into_owned().collect();
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
async fn a_token_endpoint_that_is_down_is_waited_for() {
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
    assert_eq!(backend.asked("/v1/traces").len(), 0);
    issuer.up().await;
    until("it is accepted", || backend.accepted() == set([1])).await;
}

#[tokio::test]
async fn what_a_token_endpoint_may_answer_loses_nothing() {
    let text = |text: &'static str| {
        Answer::status(200)
            .header("content-type", "application/json")
            .body(text)
    };
    let unreadable = "the token endpoint's response contains no valid token";
    for (answer, error) in [
        (Answer::status(503), "the token endpoint responded with HTTP 503"),
        (
            Answer::status(307).header("location", "/elsewhere"),
            "the token endpoint responded with HTTP 307",
        ),
        (
            refusal("invalid_client"),
            "the token endpoint refused the request: invalid_client",
        ),
        (
            refusal(CLIENT_SECRET),
            "the token endpoint refused the request: an error that RFC 6749 does not define",
        ),
        (Answer::status(401), "the token endpoint responded with HTTP 401"),
        (Answer::status(429), "the token endpoint responded with HTTP 429"),
        (text(""), unreadable),
        (text("<html>"), unreadable),
        (text(r#"{"access_token":1}"#), unreadable),
        (
            text("{\"access_token\":\"a\\nb\",\"token_type\":\"Bearer\"}"),
            unreadable,
        ),
        (
            Answer::status(200)
                .header("content-type", "application/json")
                .body(vec![b' '; 1 << 20]),
            unreadable,
        ),
    ] {
        let (backend, scratch) = (Backend::start().await, Scratch::new());
        // In the header and in the body.
        backend.then_token(answer.clone());
        backend.then_token(answer.clone());
        let timing = Timing {
            min_back_off: Duration::from_millis(100),
            ..quick()
        };
        let forwarder = Forwarder::start_with(&with_tokens(&backend, &scratch), timing).unwrap();
        forwarder.accept(&one(1));
        until("the failure is reported", || {
            forwarder.status().last_error.is_some()
        })
        .await;
        assert_eq!(
            forwarder.status().last_error.as_deref(),
            Some(error),
            "{answer:?}"
        );
        until("it is accepted", || backend.accepted() == set([1])).await;
        assert_eq!(backend.asked("/elsewhere").len(), 0);
    }
}

#[tokio::test]
async fn a_secret_that_is_taken_only_in_the_body_is_given_there() {
    let (backend, scratch) = (Backend::start().await, Scratch::new());
    backend.then_token(refusal("invalid_client"));
    // Renewed for every batch.
    backend.then_token(Answer::token("first", 0));
    let forwarder = start(&with_tokens(&backend, &scratch));
    for id in 1..=2 {
        forwarder.accept(&one(id));
        until("it is accepted", || forwarder.status().sent.spans == id).await;
    }
    let asked = backend.asked("/token");
    let in_body: Vec<bool> = asked
        .iter()
        .map(|asked| {
            let body = String::from_utf8_lossy(&asked.body);
            body.contains(&format!("client_id=pressroom&client_secret={CLIENT_SECRET}"))
        })
        .collect();
    assert_eq!(in_body, [false, true, true]);
    assert_eq!(asked[1].header("authorization"), "");
}

#[tokio::test]
async fn a_token_that_is_not_good_any_more_is_renewed_at_once() {
    for status in [401, 403] {
        let (backend, scratch) = (Backend::start().await, Scratch::new());
        backend.then_token(Answer::token("first", 3600));
        backend.then_token(Answer::token("second", 3600));
        backend.then(Answer::status(status));
        let timing = Timing {
            min_back_off: Duration::from_secs(3600),
            max_back_off: Duration::from_secs(3600),
            ..quick()
        };
        let forwarder = Forwarder::start_with(&with_tokens(&backend, &scratch), timing).unwrap();
        forwarder.accept(&one(1));
        until("it is accepted", || backend.accepted() == set([1])).await;
        let used: Vec<String> = backend
            .asked("/v1/traces")
            .iter()
            .map(|asked| asked.header("authorization").to_owned())
            .collect();
        assert_eq!(used, ["Bearer first", "Bearer second"]);
    }
}

#[tokio::test]
async fn a_backend_that_takes_no_token_is_asked_again_later() {
    let (backend, scratch) = (Backend::start().await, Scratch::new());
    for _ in 0..6 {
        backend.then(Answer::status(401));
    }
    let forwarder = start(&with_tokens(&backend, &scratch));
    forwarder.accept(&one(1));
    until("it is accepted", || backend.accepted() == set([1])).await;
    assert_eq!(backend.asked("/v1/traces").len(), 7);
    assert_eq!(backend.asked("/token").len(), 7);
    assert_eq!(forwarder.status().dropped_requests, 0);
}

#[tokio::test]
async fn a_token_is_used_until_it_is_renewed_and_not_after() {
    let (backend, scratch) = (Backend::start().await, Scratch::new());
    backend.then_token(Answer::token("first", 1));
    backend.then_token(Answer::token("second", 3600));
    let forwarder = start(&with_tokens(&backend, &scratch));
    let mut id = 0;
    while backend.asked("/token").len() < 2 {
        forwarder.accept(&one(id));
        id += 1;
        until("it is accepted", || forwarder.status().sent.spans == id).await;
    }
    let tokens = backend.asked("/token");
    let life = tokens[1].at - tokens[0].at;
    assert!(life >= Duration::from_millis(450), "{life:?}");
    for asked in backend.asked("/v1/traces") {
        let token = match asked.at < tokens[1].at {
            true => "Bearer first",
            false => "Bearer second",
        };
        assert_eq!(asked.header("authorization"), token);
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_renewed_is_used_until_it_expires() {
    let (backend, scratch) = (Backend::start().await, Scratch::new());
    backend.then_token(Answer::token("first", 4));
    for _ in 0..1000 {
        backend.then_token(Answer::status(503));
    }
    let forwarder = start(&with_tokens(&backend, &scratch));
    let mut id = 0;
    // A renewal has failed, and still something is sent.
    while backend.asked("/token").len() < 2 {
        forwarder.accept(&one(id));
        id += 1;
        until("it is accepted", || forwarder.status().sent.spans == id).await;
    }
    assert_eq!(forwarder.status().last_error, None);
    let tokens = backend.asked("/token");
    let last = backend.asked("/v1/traces").pop().unwrap();
    assert!(last.at > tokens[1].at);
}

#[tokio::test]
async fn no_secret_is_shown() {
    let (backend, scratch) = (Backend::start().await, Scratch::new());
    backend.then_token(Answer::token("t0ken", 3600));
    let forwarding = Forwarding {
        endpoint: backend.url("/?key=k3y"),
        headers: vec![("x-api-key".to_owned(), Secret::new("v4lue"))],
        ..with_tokens(&backend, &scratch)
    };
    let forwarder = start(&forwarding);
    forwarder.accept(&one(1));
    until("it is accepted", || forwarder.status().sent.spans == 1).await;
    let status = serde_json::to_string(&forwarder.status()).unwrap();
    let exchange = exchange::Exchange::new(&forwarding, &quick()).unwrap();
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
