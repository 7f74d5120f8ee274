//! Rate limits of logins, changes to credentials, registrations and writes.

use std::{net::SocketAddr, num::NonZeroU32, sync::Arc, time::Instant};

use celeriac::{RedisBroker, RedisConfig};
use futures_util::future::join_all;
use pressroom::{
    accounts::{RateLimiter, Rates, SecretKey},
    health::TaskQueue,
    store::{Store, postgres::migrate},
};
use serde_json::json;

use super::{TestStore, on_sqlite};
use crate::support::{
    api::{self, Api, RecordedTime, Setup},
    postgres, raw,
    redis_server::RedisServer,
    sqlite::File,
};

/// Starts an API on the store of `fixture`, with changes to the default set-up.
async fn api_with(fixture: &TestStore<File>, change: impl FnOnce(&mut Setup)) -> Api {
    let clock = Arc::new(RecordedTime);
    api::start_with_setup(fixture.store.clone(), TaskQueue::InProcess, clock, change).await
}

fn limiter(rates: Rates) -> RateLimiter {
    RateLimiter::new(rates, SecretKey::new(api::SECRET_KEY))
}

fn only_accounts(limit: u32) -> Rates {
    Rates {
        login_account: NonZeroU32::new(limit),
        ..Rates::UNLIMITED
    }
}

async fn login(address: SocketAddr, email: &str, forwarded: &str) -> raw::Response {
    let body = json!({"email": email, "password": "a wrong password"});
    let fields = [("X-Forwarded-For", forwarded)];
    raw::request_with(address, "POST", "/api/login", None, &fields, Some(&body)).await
}

fn assert_rejected(response: &raw::Response) {
    assert_eq!(response.status, 429, "{}", response.head);
    let wait: u64 = response.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert!(response.header("ratelimit-policy").is_some() && response.header("ratelimit").is_some());
    assert_eq!(response.json()["error"]["code"], "too_many_attempts");
    assert_eq!(response.json()["error"]["status_code"], 429);
}

#[tokio::test]
async fn the_eleventh_login_is_rejected_even_for_an_unknown_account() {
    let fixture = on_sqlite();
    let api = api_with(&fixture, |setup| setup.limiter = limiter(Rates::default())).await;
    raw::register(api.address, "alice@example.com").await;
    for email in ["alice@example.com", "nobody@example.com"] {
        for _ in 0..10 {
            assert_eq!(login(api.address, email, "").await.status, 401);
        }
        assert_rejected(&login(api.address, &email.to_uppercase(), "").await);
    }
    // The right password is rejected too; otherwise a client could continue to guess.
    let right = json!({"email": "alice@example.com", "password": "password123"});
    let response = raw::request(api.address, "POST", "/api/login", None, Some(&right)).await;
    assert_rejected(&response);
    assert_eq!(login(api.address, "bob@example.com", "").await.status, 401);
}

#[tokio::test]
async fn a_rejected_login_computes_no_hash() {
    let fixture = on_sqlite();
    let api = api_with(&fixture, |setup| setup.limiter = limiter(only_accounts(1))).await;
    assert_eq!(login(api.address, "a@example.com", "").await.status, 401);
    let hashed = Instant::now();
    assert_eq!(login(api.address, "b@example.com", "").await.status, 401);
    let hashed = hashed.elapsed();
    let rejected = Instant::now();
    for _ in 0..5 {
        assert_rejected(&login(api.address, "a@example.com", "").await);
    }
    let rejected = rejected.elapsed() / 5;
    assert!(rejected < hashed / 2, "{rejected:?}, with a hash {hashed:?}");
}

#[tokio::test]
async fn an_invalid_request_does_not_count_as_an_attempt() {
    let fixture = on_sqlite();
    let api = api_with(&fixture, |setup| setup.limiter = limiter(only_accounts(1))).await;
    for _ in 0..3 {
        let body = json!({"email": "a@example.com"});
        let response = raw::request(api.address, "POST", "/api/login", None, Some(&body)).await;
        assert_eq!(response.status, 400);
    }
    assert_eq!(login(api.address, "a@example.com", "").await.status, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_credentials_are_limited_like_logins_to_the_account() {
    let fixture = on_sqlite();
    let api = api_with(&fixture, |setup| setup.limiter = limiter(only_accounts(10))).await;
    let alice = raw::register(api.address, "alice@example.com").await;
    raw::register(api.address, "bob@example.com").await;
    let change = async |body| raw::request(api.address, "PUT", "/api/user", Some(&alice), Some(&body)).await;

    // Probes whether an address is registered, with the right password and with a wrong one.
    for (i, current) in ["password123", "a wrong one"]
        .into_iter()
        .cycle()
        .take(9)
        .enumerate()
    {
        let body = json!({"email": "bob@example.com", "current_password": current});
        let expected = if i % 2 == 0 { 409 } else { 403 };
        assert_eq!(change(body).await.status, expected);
    }
    assert_eq!(login(api.address, "alice@example.com", "").await.status, 401);
    assert_rejected(&change(json!({"email": "x@example.com", "current_password": "password123"})).await);
    assert_rejected(&change(json!({"password": "another", "current_password": "password123"})).await);
    assert_rejected(&login(api.address, "alice@example.com", "").await);

    assert_eq!(change(json!({"bio": "needs no password"})).await.status, 200);
    let bob = json!({"email": "bob@example.com", "password": "password123"});
    let bob = raw::request(api.address, "POST", "/api/login", None, Some(&bob)).await;
    assert_eq!(bob.status, 200);
}

/// PostgreSQL folds a capital I with a dot to `i`, so all these spellings belong to one account.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_spellings_that_postgresql_accepts_share_the_limit_of_the_account() {
    let database = postgres::Database::empty_unicode().await;
    migrate(&database.config()).await.unwrap();
    let store: Arc<dyn Store> = Arc::new(database.store());
    let api = api::start_with_setup(store, TaskQueue::InProcess, Arc::new(RecordedTime), |setup| {
        setup.limiter = limiter(only_accounts(10));
    })
    .await;
    raw::register(api.address, "mississippi@example.com").await;
    let spellings = [
        "mississippi@example.com",
        "m\u{130}ssissippi@example.com",
        "MISSISSIPP\u{130}@EXAMPLE.COM",
        "miss\u{130}ss\u{130}ppi@example.com",
    ];
    for spelling in spellings.into_iter().cycle().take(9) {
        assert_eq!(login(api.address, spelling, "").await.status, 401, "{spelling}");
    }
    let right = json!({"email": spellings[1], "password": "password123"});
    let response = raw::request(api.address, "POST", "/api/login", None, Some(&right)).await;
    assert_eq!(response.status, 200, "the same account");
    for spelling in spellings {
        assert_rejected(&login(api.address, spelling, "").await);
    }
    let body = json!({"email": spellings[2], "password": "password123", "name": "Other"});
    let taken = raw::request(api.address, "POST", "/api/register", None, Some(&body)).await;
    assert_eq!(taken.status, 409);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_are_limited_for_each_user_and_the_response_shows_the_quota() {
    let fixture = on_sqlite();
    let rates = Rates {
        writes_user: NonZeroU32::new(6),
        ..Rates::UNLIMITED
    };
    let api = api_with(&fixture, |setup| setup.limiter = limiter(rates)).await;
    let alice = raw::register(api.address, "alice@example.com").await;
    let bob = raw::register(api.address, "bob@example.com").await;
    let send = async |method: &str, target: &str, token: &str, body: Option<serde_json::Value>| {
        raw::request(api.address, method, target, Some(token), body.as_ref()).await
    };
    let draft = || Some(json!({"title": "T", "body": "x"}));
    let created = send("POST", "/api/articles/", &alice, draft()).await;
    assert_eq!(created.status, 201);
    let article = format!("/api/articles/{}", created.json()["slug"].as_str().unwrap());
    let favorite = format!("{article}/favorite");
    let rest = [
        send("PUT", &article, &alice, Some(json!({"title": "U"}))).await,
        send("POST", &favorite, &alice, None).await,
        send("DELETE", &favorite, &alice, None).await,
        send("PUT", "/api/user", &alice, Some(json!({"bio": "b"}))).await,
        // An invalid request counts, too.
        send("POST", "/api/articles/", &alice, Some(json!({}))).await,
    ];
    let mut remaining = 5;
    for response in std::iter::once(&created).chain(&rest) {
        assert_eq!(response.header("RateLimit-Policy"), Some("\"writes\";q=6;w=60"));
        let state = response.header("RateLimit").unwrap();
        let reset = state.strip_prefix(&format!("\"writes\";r={remaining};t="));
        let reset: u32 = reset.unwrap_or_else(|| panic!("{state}")).parse().unwrap();
        assert!((1..=60).contains(&reset), "{state}");
        remaining -= 1;
    }
    for (method, target) in [
        ("DELETE", article.as_str()),
        ("PUT", "/api/user"),
        ("POST", "/api/articles/"),
    ] {
        let refused = send(method, target, &alice, draft()).await;
        assert_rejected(&refused);
        assert_eq!(refused.header("RateLimit-Policy"), Some("\"writes\";q=6;w=60"));
        let wait = refused.header("Retry-After").unwrap();
        assert_eq!(
            refused.header("RateLimit"),
            Some(format!("\"writes\";r=0;t={wait}").as_str())
        );
    }
    let read = send("GET", &article, &alice, None).await;
    assert_eq!((read.status, read.header("RateLimit")), (200, None));
    assert_eq!(send("POST", "/api/articles/", &bob, draft()).await.status, 201);
    assert_eq!(send("POST", "/api/logout", &alice, None).await.status, 200);
}

#[tokio::test]
async fn registrations_are_limited_by_address() {
    let fixture = on_sqlite();
    let rates = Rates {
        register_address: NonZeroU32::new(2),
        ..Rates::UNLIMITED
    };
    let api = api_with(&fixture, |setup| setup.limiter = limiter(rates)).await;
    for email in ["a@example.com", "b@example.com"] {
        raw::register(api.address, email).await;
    }
    let body = json!({"email": "c@example.com", "password": "password123", "name": "C"});
    let response = raw::request(api.address, "POST", "/api/register", None, Some(&body)).await;
    assert_rejected(&response);
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_has_its_own_limit() {
    let fixture = on_sqlite();
    let rates = Rates {
        login_address: NonZeroU32::new(1),
        ..Rates::UNLIMITED
    };
    let behind = api_with(&fixture, |setup| {
        setup.limiter = limiter(rates);
        setup.proxies = "127.0.0.0/8, 10.0.0.0/8".parse().unwrap();
    })
    .await;
    let first = login(behind.address, "a@example.com", "192.0.2.1").await;
    assert_eq!(first.status, 401);
    let second = login(behind.address, "a@example.com", "198.51.100.7, 10.0.0.2").await;
    assert_eq!(second.status, 401);
    // The client's forged entry is left of the entry that the proxy adds.
    assert_rejected(&login(behind.address, "a@example.com", "203.0.113.1, 192.0.2.1").await);

    let direct = api_with(&fixture, |setup| setup.limiter = limiter(rates)).await;
    let first = login(direct.address, "a@example.com", "192.0.2.1").await;
    assert_eq!(first.status, 401);
    assert_rejected(&login(direct.address, "a@example.com", "192.0.2.2").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_shared_by_all_processes_and_fall_back_to_each_process_without_redis() {
    let redis = RedisServer::start();
    let fixture = on_sqlite();
    let shared = || {
        let broker = RedisBroker::new(RedisConfig::new(redis.url())).unwrap();
        limiter(only_accounts(5)).shared_through(&broker)
    };
    let one = api_with(&fixture, |setup| setup.limiter = shared()).await;
    let other = api_with(&fixture, |setup| setup.limiter = shared()).await;
    let addresses = [one.address, other.address];

    let attempts = (0..32).map(|i| login(addresses[i % 2], "alice@example.com", ""));
    let responses = join_all(attempts).await;
    let admitted = responses.iter().filter(|response| response.status == 401).count();
    assert_eq!(admitted, 5);
    for response in responses.iter().filter(|response| response.status != 401) {
        assert_rejected(response);
    }
    let keys = redis.command(&["KEYS", "*"]).unwrap();
    assert!(keys.starts_with("*1\r\n") && !keys.contains("alice"), "{keys}");
    let key = keys.lines().last().unwrap();
    let left = redis.command(&["TTL", key]).unwrap();
    let left: i64 = left.trim_start_matches(':').trim().parse().unwrap();
    assert!((1..=60).contains(&left), "{left}");

    redis.stop();
    for address in addresses {
        for _ in 0..5 {
            let sent = Instant::now();
            assert_eq!(login(address, "alice@example.com", "").await.status, 401);
            assert!(sent.elapsed().as_secs() < 2, "{:?}", sent.elapsed());
        }
        assert_rejected(&login(address, "alice@example.com", "").await);
    }
    redis.resume();
    crate::support::eventually("the processes to share their counts again", async || {
        login(one.address, "bob@example.com", "").await;
        (redis.command(&["KEYS", "pressroom:rate:*"])? != "*0\r\n").then_some(())
    })
    .await;
}
