//! Rate limits, client addresses and the URLs that clients use, with processes that share a Redis.

use std::{collections::BTreeSet, net::SocketAddr};

use opentelemetry_proto::tonic::{metrics::v1::metric, trace::v1::span::SpanKind};
use serde_json::json;

use super::installation::Installation;
use crate::support::{
    eventually,
    otlp::{integer, text},
    raw,
};

async fn login(address: SocketAddr, email: &str) -> u16 {
    let body = json!({"email": email, "password": "a wrong password"});
    raw::request(address, "POST", "/api/login", None, Some(&body))
        .await
        .status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_share_rate_limits_and_log_once_when_they_cannot() {
    const ALONE: &str = "this process enforces rate limits on its own until Redis is available again";
    let installation = Installation::new().await;
    let (one, first) = installation.serve().await;
    let (_other, second) = installation.serve().await;
    for address in [first, second] {
        for _ in 0..5 {
            assert_eq!(login(address, "nobody@example.com").await, 401);
        }
    }
    for address in [first, second] {
        assert_eq!(login(address, "nobody@example.com").await, 429);
    }

    installation.redis.stop();
    for _ in 0..10 {
        assert_eq!(login(first, "nobody@example.com").await, 401);
    }
    assert_eq!(login(first, "nobody@example.com").await, 429);
    eventually("the log line", async || {
        one.output().contains(ALONE).then_some(())
    })
    .await;
    assert_eq!(one.output().matches(ALONE).count(), 1, "{}", one.output());
    assert!(!one.output().contains("nobody@example.com"), "{}", one.output());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_span_of_a_request_names_the_client_behind_the_proxy() {
    const UNTRUSTED: &str = "X-Forwarded-For from an untrusted peer is ignored";
    let installation = Installation::new().await;
    let (_behind, trusting) = installation
        .serve_with(&[("TRUSTED_PROXIES", "127.0.0.0/8")])
        .await;
    let (serve, plain) = installation.serve().await;
    for (address, trace, client, warnings) in [
        (trusting, "11111111111111111111111111111111", "198.51.100.7", 0),
        (plain, "22222222222222222222222222222222", "127.0.0.1", 1),
    ] {
        let parent = format!("00-{trace}-b7ad6b7169203331-01");
        let fields = [
            ("X-Forwarded-For", "203.0.113.1, 198.51.100.7"),
            ("traceparent", parent.as_str()),
        ];
        for _ in 0..2 {
            let response = raw::request_with(address, "GET", "/api/articles/", None, &fields, None).await;
            assert_eq!(response.status, 200);
        }
        let span = eventually("the server span", async || {
            let spans = installation.otlp.trace(trace);
            spans
                .into_iter()
                .find(|(_, span)| span.kind() == SpanKind::Server)
        })
        .await;
        let address = text(&span.1.attributes, "client.address");
        assert_eq!(address.as_deref(), Some(client));
        let peer = text(&span.1.attributes, "network.peer.address");
        assert_eq!(peer.as_deref(), Some("127.0.0.1"));
        // Both processes write to the same file.
        assert_eq!(
            serve.output().matches(UNTRUSTED).count(),
            warnings,
            "{}",
            serve.output()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_span_and_the_metrics_of_a_request_have_the_url_that_the_client_used() {
    let installation = Installation::new().await;
    let (_behind, trusting) = installation
        .serve_with(&[
            ("TRUSTED_PROXIES", "127.0.0.0/8"),
            ("OTEL_SERVICE_NAME", "trusting"),
        ])
        .await;
    let (_serve, plain) = installation.serve_with(&[("OTEL_SERVICE_NAME", "plain")]).await;
    let forwarded = "for=203.0.113.9;proto=https;host=blog.example";
    let quoted = "FOR=\"[2001:db8::7]:4711\";Proto=HTTPS;host=\"[2001:db8::1]:8443\"";
    let own = ("127.0.0.1", "http", "internal", 8000);
    for (index, (address, fields, expected)) in [
        (
            trusting,
            &[
                ("X-Forwarded-Proto", "https"),
                ("X-Forwarded-Host", "blog.example"),
                ("Forwarded", forwarded),
            ][..],
            ("203.0.113.9", "https", "blog.example", 443),
        ),
        (
            trusting,
            &[("Forwarded", quoted)],
            ("2001:db8::7", "https", "2001:db8::1", 8443),
        ),
        (
            trusting,
            &[
                ("X-Forwarded-For", "1.1.1.1, 203.0.113.9"),
                ("X-Forwarded-Proto", "http, https"),
                ("X-Forwarded-Port", "444"),
            ],
            ("203.0.113.9", "https", "internal", 444),
        ),
        (trusting, &[("Forwarded", "host=\"unclosed, for=1.1.1.1")], own),
        (trusting, &[], own),
        (
            plain,
            &[("X-Forwarded-Proto", "https"), ("Forwarded", forwarded)],
            own,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let trace = format!("{:032x}", index + 1);
        let mut request =
            "GET /api/articles/ HTTP/1.1\r\nHost: internal:8000\r\nConnection: close\r\n".to_owned();
        request.push_str(&format!("traceparent: 00-{trace}-b7ad6b7169203331-01\r\n"));
        for (name, value) in fields {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        assert_eq!(raw::send(address, request.as_bytes()).await.status, 200);
        let (_, span) = eventually("the server span", async || {
            let spans = installation.otlp.trace(&trace);
            spans
                .into_iter()
                .find(|(_, span)| span.kind() == SpanKind::Server)
        })
        .await;
        let text = |key| text(&span.attributes, key).unwrap();
        let (client, scheme, host, port) = expected;
        assert_eq!(
            (text("client.address"), text("url.scheme"), text("server.address")),
            (client.to_owned(), scheme.to_owned(), host.to_owned()),
            "{fields:?}"
        );
        assert_eq!(integer(&span.attributes, "server.port"), Some(port), "{fields:?}");
    }
    for (service, expected) in [("trusting", &["http", "https"][..]), ("plain", &["http"])] {
        eventually("the schemes in the metrics", async || {
            let metric = installation
                .otlp
                .metric(service, "http.server.request.duration")?;
            let Some(metric::Data::Histogram(histogram)) = metric.data else {
                return None;
            };
            let points = histogram.data_points.iter();
            let schemes: BTreeSet<_> = points
                .map(|point| text(&point.attributes, "url.scheme").unwrap())
                .collect();
            schemes.iter().eq(expected).then_some(())
        })
        .await;
    }
}
