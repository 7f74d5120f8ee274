//! Compression of responses.

use std::io::Read as _;

use flate2::read::GzDecoder;
use serde_json::json;

use super::on_sqlite;
use crate::support::{api, raw};

#[tokio::test]
async fn responses_above_one_kibibyte_are_compressed_for_clients_that_accept_gzip() {
    let fixture = on_sqlite();
    let api = api::start(fixture.store.clone()).await;
    let address = api.address;
    let alice = raw::register(address, "alice@example.com").await;
    let mut targets = vec![
        "/api/articles/".to_owned(),
        "/api/openapi.json".to_owned(),
        "/api/docs".to_owned(),
    ];
    for (title, length) in [("Small", 10), ("Long", 2_000), ("Longest", 900_000)] {
        let body = json!({"title": title, "body": "x".repeat(length)});
        let created = raw::request(address, "POST", "/api/articles/", Some(&alice), Some(&body)).await;
        targets.push(created.header("location").unwrap().to_owned());
    }
    for target in &targets {
        let ask = async |method, fields: &[(&str, &str)]| {
            raw::request_with(address, method, target, None, fields, None).await
        };
        let plain = ask("GET", &[]).await;
        assert_eq!(plain.header("content-encoding"), None, "{target}");
        for rejecting in ["identity", "br", "gzip;q=0"] {
            let response = ask("GET", &[("Accept-Encoding", rejecting)]).await;
            assert_eq!(response.header("content-encoding"), None, "{target} {rejecting}");
            assert_eq!(response.body, plain.body);
        }
        let accepting = ("Accept-Encoding", "gzip, deflate, br");
        let response = ask("GET", &[accepting]).await;
        let head = ask("HEAD", &[accepting]).await;
        assert_eq!((response.status, head.status), (200, 200));
        for field in ["content-encoding", "content-length", "etag", "vary"] {
            assert_eq!(head.header(field), response.header(field), "{target} {field}");
        }
        // RFC 9110, section 15.4.5: 304 has the fields that caches need as 200 would have them.
        let unchanged = ask("GET", &[accepting, ("If-None-Match", "*")]).await;
        let fields = ["cache-control", "etag", "vary"];
        if response.header("etag").is_some() {
            assert_eq!(unchanged.status, 304, "{target}");
            assert_eq!(
                fields.map(|field| unchanged.header(field)),
                fields.map(|field| response.header(field)),
                "{target}"
            );
            for field in ["content-encoding", "content-length", "content-type"] {
                assert_eq!(unchanged.header(field), None, "{target} {field}");
            }
        }
        let Some(tag) = plain.header("etag") else {
            assert_eq!(response.header("content-encoding"), Some("gzip"), "{target}");
            continue;
        };
        if plain.body.len() <= 1024 {
            assert_eq!(response.header("content-encoding"), None, "{target}");
            assert_eq!(response.header("etag"), Some(tag));
            continue;
        }
        assert_eq!(response.header("content-encoding"), Some("gzip"), "{target}");
        assert!(response.body.len() < plain.body.len());
        let mut decoded = Vec::new();
        GzDecoder::new(response.body.as_slice())
            .read_to_end(&mut decoded)
            .unwrap();
        assert_eq!(decoded, plain.body);
        // The strong tag identifies the uncompressed bytes only, but both tags match a cached response.
        let weak = format!("W/{tag}");
        assert_eq!(response.header("etag"), Some(weak.as_str()));
        for listed in [tag, weak.as_str()] {
            let cached = ask("GET", &[accepting, ("If-None-Match", listed)]).await;
            assert_eq!((cached.status, cached.body.len()), (304, 0), "{target} {listed}");
        }
    }
}
