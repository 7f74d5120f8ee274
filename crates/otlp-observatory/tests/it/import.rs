//! Telemetry that is exported from one observatory and imported into another.

use reqwest::Response;
use serde_json::{Value, json};

use crate::support::{Running, client, within};

async fn import(observatory: &Running, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> Response {
    let request = client().post(format!("http://{}/import", observatory.addresses.pages));
    let request = headers
        .iter()
        .fold(request, |request, (name, value)| request.header(*name, *value));
    within(request.body(body).send()).await.unwrap()
}

async fn json_of(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    (
        status,
        serde_json::from_slice(&within(response.bytes()).await.unwrap()).unwrap(),
    )
}

/// Returns a document with a trace of `spans` spans, a record and a point.
fn document(trace: u64, spans: u64) -> Value {
    let resource = json!({"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]});
    let time = |offset: u64| (1_795_342_907_000_000_000 + trace * 1_000_000 + offset).to_string();
    let span = |id: u64| {
        json!({
            "traceId": format!("{trace:032x}"), "spanId": format!("{:016x}", id + 1), "name": "GET /",
            "startTimeUnixNano": time(id), "endTimeUnixNano": time(id + 5),
            "attributes": [{"key": "note", "value": {"stringValue": "x".repeat(1_000)}}],
        })
    };
    let spans: Vec<_> = (0..spans).map(span).collect();
    let record =
        json!({"timeUnixNano": time(0), "body": {"stringValue": "done"}, "traceId": format!("{trace:032x}")});
    let points = json!([{"asInt": trace.to_string(), "timeUnixNano": time(0)}]);
    let metric = json!({"name": "carts", "gauge": {"dataPoints": points}});
    json!({
        "resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}],
        "resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": [record]}]}],
        "resourceMetrics": [{"resource": resource, "scopeMetrics": [{"metrics": [metric]}]}],
    })
}

/// Returns the kept numbers of spans, records and points.
fn kept(status: &Value) -> [u64; 3] {
    ["spans", "logs", "points"].map(|signal| status["kept"][signal].as_u64().unwrap())
}

#[tokio::test]
async fn an_export_of_any_size_is_imported_and_shown_identically() {
    let original = Running::start().await;
    // Larger than a request may be.
    let lines: Vec<_> = (1..=800).map(|trace| document(trace, 20).to_string()).collect();
    let body = lines.join("\n");
    assert!(body.len() > 16 << 20, "{}", body.len());
    let (status, json) = json_of(import(&original, &[], body).await).await;
    let counts = json!({"spans": 16_000, "logs": 800, "points": 800});
    assert_eq!((status, &json), (200, &json!({"imported": counts, "refused": 0})));
    original
        .json_when("/status", |status| kept(status) == [16_000, 800, 720])
        .await;

    let export = client().get(format!("http://{}/export", original.addresses.pages));
    let export = within(within(export.send()).await.unwrap().bytes())
        .await
        .unwrap();
    let copy = Running::start().await;
    assert_eq!(
        import(&copy, &[("content-type", "application/x-ndjson")], export)
            .await
            .status(),
        200
    );
    copy.json_when("/status", |status| kept(status) == [16_000, 800, 720])
        .await;
    for page in [
        "/traces?limit=500",
        "/traces/00000000000000000000000000000007",
        "/logs?limit=500",
        "/metrics/carts",
    ] {
        let [mut expected, mut json] = [original.json(page).await, copy.json(page).await];
        for json in [&mut expected, &mut json] {
            json["generation"] = Value::Null;
            json["next"] = Value::Null;
            for log in json
                .get_mut("logs")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                log["sequence"] = Value::Null;
            }
        }
        assert_eq!(json, expected, "{page}");
    }
}

#[tokio::test]
async fn files_with_added_bytes_are_imported_and_others_are_refused_with_the_reason() {
    let observatory = Running::start().await;
    let pretty = serde_json::to_string_pretty(&document(1, 3)).unwrap();
    let utf16: Vec<u8> = [0xfeff]
        .into_iter()
        .chain(document(2, 3).to_string().encode_utf16())
        .flat_map(u16::to_le_bytes)
        .collect();
    for body in [
        format!("\u{feff}{pretty}\r\n").into_bytes(),
        format!("{pretty}\r\n{pretty}\u{1a}").into_bytes(),
        utf16,
    ] {
        let (status, json) =
            json_of(import(&observatory, &[("origin", &observatory.origin())], body).await).await;
        assert_eq!(status, 200, "{json}");
    }
    observatory
        .json_when("/status", |status| kept(status) == [6, 2, 2])
        .await;

    for (headers, body, expected, cause) in [
        (
            &[][..],
            b"{\"spans\": []}".to_vec(),
            400,
            "no OTLP/JSON telemetry",
        ),
        (&[], Vec::new(), 400, "cannot be decoded"),
        (&[], b"{\"resourceSpans\": [".to_vec(), 400, "cannot be decoded"),
        (&[], vec![b' '; 17 << 20], 413, "larger than 16777216 bytes"),
        (
            &[("content-encoding", "gzip")],
            pretty.clone().into_bytes(),
            415,
            "content encoding",
        ),
        (
            &[("origin", "http://evil.example")],
            pretty.clone().into_bytes(),
            403,
            "other sites",
        ),
    ] {
        let (status, json) = json_of(import(&observatory, headers, body).await).await;
        assert_eq!(status, expected, "{json}");
        assert!(json["error"].as_str().unwrap().contains(cause), "{json}");
    }

    // Only the first piece of this file has telemetry.
    let body = format!("{}\n{{}}", document(3, 1_000));
    assert!(body.len() > 1 << 20, "{}", body.len());
    let (status, json) = json_of(import(&observatory, &[], body).await).await;
    assert_eq!((status, &json["imported"]["spans"]), (200, &json!(1_000)));
}
