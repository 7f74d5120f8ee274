//! Crafted entity tags and propagation headers. Both stores reject or ignore the same values, and none causes an
//! internal error. [`lists`](super::lists) has crafted cursors.

use std::sync::Arc;

use pressroom::store::Store;
use serde_json::json;

use super::over_both_stores;
use crate::support::{api, raw};

over_both_stores! {
    crafted_entity_tags_match_no_version
    crafted_trace_headers_do_not_prevent_writes
}

/// Times in microseconds since the Unix epoch at the limits of jiff, PostgreSQL and 64 bits.
const TIMES: [i64; 8] = [
    i64::MIN,
    -377_705_023_201_000_001,
    -377_705_023_201_000_000,
    -210_866_803_200_000_001,
    -210_866_803_200_000_000,
    253_402_207_200_000_000,
    253_402_207_201_000_000,
    i64::MAX,
];

async fn crafted_entity_tags_match_no_version(store: Arc<dyn Store>) {
    let api = api::start(store).await;
    let address = api.address;
    let alice = raw::register(address, "alice@example.com").await;
    let body = json!({"title": "Tagged", "body": "x"});
    let created = raw::request(address, "POST", "/api/articles/", Some(&alice), Some(&body)).await;
    let target = created.header("location").unwrap().to_owned();
    let change = json!({"title": "Changed"});
    for time in TIMES {
        let tag = format!("\"{time:x}-0000000000000001\"");
        for (method, body) in [("PUT", Some(&change)), ("DELETE", None)] {
            let fields = [("If-Match", tag.as_str())];
            let response = raw::request_with(address, method, &target, Some(&alice), &fields, body).await;
            assert_eq!(response.status, 412, "{method} {tag}");
        }
        let fields = [("If-None-Match", tag.as_str())];
        for (method, body) in [("GET", None), ("PUT", Some(&change))] {
            let response = raw::request_with(address, method, &target, Some(&alice), &fields, body).await;
            assert_eq!(response.status, 200, "{method} {tag}");
        }
    }
}

async fn crafted_trace_headers_do_not_prevent_writes(store: Arc<dyn Store>) {
    let api = api::start(store).await;
    let address = api.address;
    let alice = raw::register(address, "alice@example.com").await;
    let trace = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01";
    for (name, value) in [
        ("baggage", "k=%00"),
        ("baggage", "k=%C3%28"),
        ("baggage", "k=\\u0000,l=%5Cu0000;p=%00"),
        ("tracestate", "a=\\u0000"),
    ] {
        let fields = [("traceparent", trace), (name, value)];
        let body = json!({"title": "Traced", "body": "x"});
        let created = raw::request_with(
            address,
            "POST",
            "/api/articles/",
            Some(&alice),
            &fields,
            Some(&body),
        );
        assert_eq!(created.await.status, 201, "{name}: {value}");
    }
}
