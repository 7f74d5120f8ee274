//! Tests of the router without a socket, with a store of known contents.

mod problems;
mod query;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use axum::{
    body::Body,
    http::{Method, Request, header},
};
use http_body_util::BodyExt as _;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::{
    config::Addresses,
    export::Signal,
    ingest::Received,
    receive,
    store::{
        Store,
        fixture::{MS, NOW, counted, failed, metrics as metrics_of, of_kind, record, records, span, spans},
    },
};

mod metrics;

const SCRIPT: &str = "</script><script>alert(1)</script>";

fn store() -> Arc<Store> {
    use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
    let store = Arc::new(Store::new(16 << 20));
    let request = of_kind(
        span(1, 1, 0, "POST /api/articles/"),
        SpanKind::Server,
        &[
            ("http.request.method", "POST"),
            ("http.route", "/api/articles/"),
            ("title", SCRIPT),
        ],
    );
    store.insert_at(spans("app", vec![span(1, 2, 1, SCRIPT), request]), NOW);
    store.insert_at(spans("worker", vec![failed(span(1, 3, 2, "celery.run"))]), NOW);
    store.insert_at(records("app", vec![record(1, 9, "article created")]), NOW);
    store
}

fn explorer(store: Arc<Store>, pages: [u8; 4]) -> Router {
    let received = Arc::new(Received::default());
    for _ in 0..3 {
        received.count_rejected("unsupported content type");
    }
    let access = Access::new(pages.into(), &[], &[]);
    let explorer = Explorer {
        store,
        archive: None,
        addresses: Addresses {
            http: SocketAddr::from(([127, 0, 0, 1], 4318)),
            grpc: None,
            health: None,
            pages: SocketAddr::from((Ipv4Addr::from(pages), 4319)),
        },
        received,
        forwarder: None,
        first_steps: crate::first_steps::FirstSteps::default(),
    };
    router(routes(explorer), access)
}

async fn send(router: Router, request: Request<Body>) -> (StatusCode, HeaderMap, String) {
    let response = router.oneshot(request).await.expect("infallible");
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    (
        head.status,
        head.headers,
        String::from_utf8(body.to_vec()).expect("text"),
    )
}

fn request(address: &str) -> Request<Body> {
    Request::get(address)
        .header(header::HOST, "localhost:4319")
        .body(Body::empty())
        .expect("a request")
}

async fn get_json(router: Router, address: &str) -> (StatusCode, Value) {
    let (status, headers, body) = send(router, request(address)).await;
    assert_eq!(headers[header::CONTENT_TYPE], "application/json", "{address}");
    (status, serde_json::from_str(&body).expect("JSON"))
}

fn explore() -> Router {
    explorer(store(), [127, 0, 0, 1])
}

#[tokio::test]
async fn traces_are_listed_with_their_services_and_logs() {
    let (status, json) = get_json(explore(), "/traces?status=error&service=worker").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        json,
        json!({
            "generation": 3,
            "next": null,
            "traces": [{
                "trace_id": "00000000000000000000000000000001",
                "root": {"service": "app", "name": "POST /api/articles/"},
                "start_unix_nano": "1799999999999000000",
                "duration_ns": 1_000_000,
                "spans": 3,
                "errors": 1,
                "logs": 1,
                "dropped_spans": 0,
                "services": [{"service": "app", "spans": 2}, {"service": "worker", "spans": 1}],
            }],
        })
    );
}

#[tokio::test]
async fn a_trace_has_spans_in_waterfall_order_and_logs() {
    let (status, json) = get_json(explore(), "/traces/00000000000000000000000000000001").await;
    assert_eq!(status, StatusCode::OK);
    let ids: Vec<_> = json["spans"]
        .as_array()
        .expect("spans")
        .iter()
        .map(|span| &span["span_id"])
        .collect();
    assert_eq!(ids, ["0000000000000001", "0000000000000002", "0000000000000003"]);
    assert_eq!(json["spans"][0]["parent_span_id"], Value::Null);
    assert_eq!(json["spans"][0]["kind"], "server");
    assert_eq!(json["spans"][0]["resource"], json!({"service.name": "app"}));
    assert_eq!(json["spans"][2]["status"], "error");
    assert_eq!(json["spans"][2]["status_message"], "it failed");
    assert_eq!(json["logs"][0]["body"], "article created");
    assert_eq!(json["logs"][0]["span_id"], "0000000000000001");
    assert_eq!(json["logs"][0]["level"], "info");
}

#[tokio::test]
async fn skewed_clocks_and_missing_parents_are_marked_and_clocks_can_be_aligned() {
    let store = store();
    let mut inner = span(5, 2, 1, "inner");
    inner.start_time_unix_nano -= 3_000 * MS;
    inner.end_time_unix_nano -= 3_000 * MS;
    inner.events = vec![Event {
        time_unix_nano: inner.start_time_unix_nano,
        ..Event::default()
    }];
    store.insert_at(
        spans("app", vec![span(5, 1, 0, "outer"), span(5, 3, 9, "orphan")]),
        NOW,
    );
    store.insert_at(spans("worker", vec![inner, span(5, 4, 2, "below")]), NOW);
    let router = explorer(store, [127, 0, 0, 1]);
    let path = "/traces/00000000000000000000000000000005";
    let (_, raw) = get_json(router.clone(), path).await;
    let (_, aligned) = get_json(router.clone(), &format!("{path}?align=clocks")).await;
    for json in [&raw, &aligned] {
        assert_eq!(
            (&json["duration_ns"], &json["skewed_spans"]),
            (&json!(1_000_000), &json!(2))
        );
        let list = json["spans"].as_array().expect("spans");
        let named = |name: &str| list.iter().find(|span| span["name"] == name).expect("a span");
        assert_eq!(named("inner")["clock_offset_ns"], 3_000_000_000_u64);
        assert_eq!(named("outer")["clock_offset_ns"], 0);
        assert_eq!(
            (
                &named("orphan")["missing_parent"],
                &named("orphan")["parent_index"]
            ),
            (&json!(true), &Value::Null)
        );
        let parent = named("inner")["parent_index"].as_u64().expect("an index");
        assert_eq!(list[parent as usize]["name"], "outer");
        assert_eq!(named("inner")["missing_parent"], false);
    }
    let inner = |json: &Value| {
        let list = json["spans"].as_array().expect("spans");
        let inner = list
            .iter()
            .find(|span| span["name"] == "inner")
            .expect("a span")
            .clone();
        [
            inner["start_unix_nano"].clone(),
            inner["events"][0]["time_unix_nano"].clone(),
        ]
    };
    assert_eq!(
        inner(&raw),
        [json!("1799999996999000000"), json!("1799999996999000000")]
    );
    assert_eq!(
        inner(&aligned),
        [json!("1799999999999000000"), json!("1799999999999000000")]
    );
    let (status, _) = get_json(router, &format!("{path}?align=yes")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn scripts_in_names_are_sent_as_json_strings() {
    let (_, headers, body) = send(explore(), request("/traces/00000000000000000000000000000001")).await;
    assert_eq!(headers[header::CONTENT_TYPE], "application/json");
    assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    let json: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(json["spans"][1]["name"], SCRIPT);
    assert_eq!(json["spans"][0]["attributes"]["title"], SCRIPT);
}

#[tokio::test]
async fn status_has_counts_and_receiver_addresses() {
    let (status, json) = get_json(explore(), "/status").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        json["endpoints"],
        json!({"http": "http://127.0.0.1:4318", "grpc": null})
    );
    assert_eq!(json["kept"]["spans"], 3);
    assert_eq!(json["refused"]["requests"], 3);
    assert_eq!(json["services"], json!(["app", "worker"]));
    assert_eq!(json["forwarding"], Value::Null);
}

#[tokio::test]
async fn names_of_one_attribute_are_listed_together() {
    let (status, json) = get_json(explore(), "/attribute-names").await;
    assert_eq!(status, StatusCode::OK);
    let names = json["names"].as_array().expect("a list");
    assert!(
        names.contains(&json!(["db.system.name", "db.system"])),
        "{names:?}"
    );
}

#[tokio::test]
async fn invalid_parameters_are_named() {
    for (address, name) in [
        ("/traces?servcie=app", "servcie"),
        ("/traces?limit=0", "limit"),
        ("/traces?limit=501", "limit"),
        ("/traces?status=bad", "status"),
        ("/traces?min_duration=10", "min_duration"),
        ("/traces?from=yesterday", "from"),
        ("/traces?before=x", "before"),
        ("/traces?service=a&service=b", "service"),
        ("/traces/xyz/links", "trace_id"),
        ("/attribute-names?x=1", "x"),
        ("/traces/xyz", "trace_id"),
        ("/traces/00000000000000000000000000000000", "trace_id"),
        ("/traces/00000000000000000000000000000001?x=1", "x"),
        ("/?window=0s", "window"),
        ("/?window=5", "window"),
        ("/map?windw=5m", "windw"),
        ("/metrics?servcie=app", "servcie"),
        ("/metrics?attribute=a", "attribute"),
        ("/metrics/a?text=b", "text"),
        ("/?windw=5m", "windw"),
        ("/logs?level=loud", "level"),
        ("/logs?servcie=app", "servcie"),
        ("/logs?trace_id=1", "trace_id"),
        ("/status?verbose=1", "verbose"),
    ] {
        let (status, json) = get_json(explore(), address).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{address}");
        let error = json["error"].as_str().expect("an error");
        assert!(error.contains(&format!("`{name}`")), "{address}: {error}");
    }
}

#[tokio::test]
async fn timestamps_are_ages_nanoseconds_or_rfc_3339() {
    for from in [
        "15m",
        "1.5h",
        "0",
        "1799999999999000000",
        "2027-01-15T07:00:00Z",
        "2027-01-15T07:00:00%2B02:00",
    ] {
        let (status, json) = get_json(explore(), &format!("/traces?from={from}")).await;
        assert_eq!(status, StatusCode::OK, "{from}: {json}");
    }
}

#[tokio::test]
async fn unknown_addresses_are_404_and_other_methods_405() {
    let (status, _) = get_json(explore(), "/traces/00000000000000000000000000000009").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) = get_json(explore(), "/nowhere").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let mut post = request("/traces");
    *post.method_mut() = Method::POST;
    let (status, headers, _) = send(explore(), post).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(headers[header::ALLOW], "GET, HEAD");
}

#[tokio::test]
async fn a_response_is_not_repeated_until_telemetry_arrives() {
    let store = store();
    let (_, headers, _) = send(explorer(store.clone(), [127, 0, 0, 1]), request("/traces")).await;
    let tag = headers[header::ETAG].clone();
    let mut again = request("/traces");
    again.headers_mut().insert(header::IF_NONE_MATCH, tag.clone());
    let (status, _, body) = send(explorer(store.clone(), [127, 0, 0, 1]), again).await;
    assert_eq!((status, body.as_str()), (StatusCode::NOT_MODIFIED, ""));

    store.insert_at(spans("app", vec![span(2, 1, 0, "new")]), NOW);
    let mut again = request("/traces");
    again.headers_mut().insert(header::IF_NONE_MATCH, tag);
    let (status, _, body) = send(explorer(store, [127, 0, 0, 1]), again).await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains("\"new\""));
}

#[tokio::test]
async fn browsers_get_the_document_and_head_gets_no_body() {
    let mut browser = request("/traces");
    browser.headers_mut().insert(
        header::ACCEPT,
        "text/html,application/xhtml+xml,*/*;q=0.8"
            .parse()
            .expect("a value"),
    );
    let (status, headers, _) = send(explore(), browser).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
    assert_eq!(headers[header::VARY], "Accept");
    assert!(
        headers[header::CONTENT_SECURITY_POLICY]
            .to_str()
            .expect("text")
            .starts_with("default-src 'none'")
    );

    for unknown in ["/nope", "/traces/", "/logs/"] {
        let mut browser = request(unknown);
        let html = "text/html".parse().expect("a value");
        browser.headers_mut().insert(header::ACCEPT, html);
        let (status, headers, body) = send(explore(), browser).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{unknown}");
        assert_eq!(headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
        assert!(body.contains("/assets/app.js"), "{unknown}");
    }

    let mut head = request("/traces");
    *head.method_mut() = Method::HEAD;
    let (status, _, body) = send(explore(), head).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, ""));
}

#[tokio::test]
async fn a_rebound_host_name_is_rejected() {
    let from = |host: &str| {
        let mut request = request("/traces");
        request
            .headers_mut()
            .insert(header::HOST, host.parse().expect("a host"));
        request
    };
    let (status, headers, body) = send(explore(), from("evil.example:4319")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(!body.contains("articles"));
    assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    let (status, _, _) = send(explore(), from("127.0.0.1:4319")).await;
    assert_eq!(status, StatusCode::OK);

    let mut nameless = request("/traces");
    nameless.headers_mut().remove(header::HOST);
    let (status, _, _) = send(explore(), nameless).await;
    assert_eq!(status, StatusCode::FORBIDDEN);

    // Any host name is allowed if the pages do not listen on loopback.
    let (status, _, _) = send(explorer(store(), [0, 0, 0, 0]), from("observatory.example")).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn instruments_are_listed_and_have_series() {
    let store = store();
    for (service, value) in [("app", 5), ("app", 15), ("worker", 7)] {
        let metric = counted(
            "http/requests total",
            "/api/",
            NOW + value * 1_000_000_000,
            value as i64,
        );
        store.insert_at(metrics_of(service, vec![metric]), NOW);
    }
    let explore = || explorer(store.clone(), [127, 0, 0, 1]);
    let (status, json) = get_json(explore(), "/metrics?service=app&text=REQUESTS").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        json["instruments"],
        json!([{
            "name": "http/requests total", "service": "app", "type": "counter", "unit": "{request}",
            "description": "Requests.", "series": 1, "attributes": {"http.route": ["/api/"]},
            "last_unix_nano": (NOW + 15_000_000_000).to_string(),
        }])
    );

    let (status, json) = get_json(
        explore(),
        "/metrics/http/requests%20total?attribute=http.route=/api/",
    )
    .await;
    assert_eq!(status, StatusCode::OK, "{json}");
    assert_eq!(json["service"], "app");
    assert_eq!(json["matches"].as_array().map(Vec::len), Some(2));
    assert_eq!(json["series"][0]["attributes"], json!({"http.route": "/api/"}));
    assert_eq!(json["series"][0]["points"][1]["rate"], 1.0);
    assert_eq!(json["series"][0]["points"][1]["value"], 15.0);
    let (_, json) = get_json(explore(), "/metrics/http/requests%20total?service=worker").await;
    assert_eq!(json["series"][0]["points"][0]["value"], 7.0);
    let (status, _) = get_json(explore(), "/metrics/nothing").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_overview_and_the_map_are_json() {
    let (status, json) = get_json(explore(), "/?window=15m").await;
    assert_eq!((status, &json["window_seconds"]), (StatusCode::OK, &json!(900.0)));
    let (status, json) = get_json(explore(), "/map").await;
    assert_eq!((status, &json["window_seconds"]), (StatusCode::OK, &json!(300.0)));
}

#[tokio::test]
async fn an_exported_trace_or_everything_is_shown_identically_after_it_is_received_again() {
    let original = store();
    original.insert_at(spans("app", vec![failed(span(2, 1, 9, "other"))]), NOW);
    original.insert_at(records("worker", vec![record(0, 17, "no trace")]), NOW);
    let pages = [
        "/traces",
        "/traces/00000000000000000000000000000001",
        "/logs",
        "/",
        "/map",
    ];
    for (address, content_type, shown) in [
        (
            "/export?trace_id=00000000000000000000000000000001",
            "application/json",
            &pages[1..2],
        ),
        ("/export", "application/x-ndjson", &pages[..]),
    ] {
        let router = explorer(original.clone(), [127, 0, 0, 1]);
        let (status, headers, body) = send(router.clone(), request(address)).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(headers[header::CONTENT_TYPE], content_type);
        let copy = Arc::new(Store::new(16 << 20));
        for signal in [Signal::Traces, Signal::Logs] {
            copy.insert_at(receive::decode_json(signal, body.as_bytes()), NOW);
        }
        for page in shown {
            let (_, mut expected) = get_json(router.clone(), page).await;
            let (_, mut json) = get_json(explorer(copy.clone(), [127, 0, 0, 1]), page).await;
            for json in [&mut expected, &mut json] {
                json["generation"] = Value::Null;
                // The window ends at the time of the request.
                json["series"]["start_unix_nano"] = Value::Null;
                let logs = json.get_mut("logs").and_then(Value::as_array_mut);
                logs.into_iter()
                    .flatten()
                    .for_each(|log| log["sequence"] = Value::Null);
            }
            assert_eq!(json, expected, "{page}");
        }
    }
    let router = explorer(original, [127, 0, 0, 1]);
    let (status, _) = get_json(
        router.clone(),
        "/export?trace_id=00000000000000000000000000000009",
    )
    .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) = get_json(router, "/export?trace=1").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn clear_removes_everything_unless_another_site_asks_for_it() {
    let store = store();
    let router = explorer(store.clone(), [127, 0, 0, 1]);
    let clear = |headers: &[(&str, &str)]| {
        let host = Request::post("/clear").header(header::HOST, "localhost:4319");
        let request = headers
            .iter()
            .fold(host, |request, (name, value)| request.header(*name, *value));
        send(router.clone(), request.body(Body::empty()).expect("a request"))
    };
    for headers in [
        &[("origin", "http://evil.example")][..],
        &[("origin", "null")],
        &[("origin", "http://localhost:3000")],
        &[("origin", "http://localhost")],
        &[("sec-fetch-site", "cross-site")],
        &[
            ("origin", "http://localhost:4319"),
            ("sec-fetch-site", "same-site"),
        ],
    ] {
        let (status, ..) = clear(headers).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{headers:?}");
    }
    assert_eq!(store.usage().kept.spans, 3);
    let generation = store.generation();
    let (status, _, body) = clear(&[
        ("origin", "http://localhost:4319"),
        ("sec-fetch-site", "same-origin"),
    ])
    .await;
    assert_eq!(status, StatusCode::OK);
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(body["cleared"], json!({"logs": 1, "points": 0, "spans": 3}));
    assert!(store.generation() > generation);
    let usage = store.usage();
    assert_eq!(
        (usage.kept.spans, usage.kept.logs, usage.evicted.spans),
        (0, 0, 0)
    );
    store.insert_at(records("app", vec![record(0, 9, "later")]), NOW);
    let (_, json) = get_json(router.clone(), "/logs?after=1").await;
    assert_eq!(json["logs"][0]["body"], "later", "sequence numbers continue");
    let (status, _, _) = clear(&[]).await;
    assert_eq!(status, StatusCode::OK);
    let (status, _) = get_json(router, "/clear").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn instances_are_named_where_a_service_has_several() {
    let store = store();
    let of = |instance: &str, trace| {
        let mut export = spans("worker", vec![span(trace, 1, 0, "task")]);
        let crate::export::Export::Traces(request) = &mut export else {
            unreachable!("spans are traces");
        };
        let resource = request.resource_spans[0].resource.as_mut().expect("a resource");
        resource
            .attributes
            .push(crate::store::fixture::text("service.instance.id", instance));
        export
    };
    let services = async |address| {
        let (_, json) = get_json(explorer(store.clone(), [127, 0, 0, 1]), address).await;
        json["traces"][0]["services"].clone()
    };
    store.insert_at(of("one", 2), NOW);
    let address = "/traces?query=name%3Dtask";
    assert_eq!(
        services(address).await,
        json!([{"service": "worker", "spans": 1}])
    );
    store.insert_at(of("two", 2), NOW);
    for address in [address, "/traces?query=name%3Dtask&sort=-start"] {
        let expected = json!([{"service": "worker", "spans": 2, "instances": ["one", "two"]}]);
        assert_eq!(services(address).await, expected);
    }
}
