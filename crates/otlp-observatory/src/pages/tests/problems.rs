//! Problems and comparisons as JSON.

use super::*;

#[tokio::test]
async fn problems_are_json() {
    let (status, json) = get_json(explore(), "/problems?kind=error&limit=1&since=0").await;
    assert_eq!(status, StatusCode::OK, "{json}");
    assert_eq!((&json["complete"], &json["total"]), (&json!(true), &json!(1)));
    assert_eq!(json["problems"][0]["title"], "it failed in celery.run");
    assert_eq!(
        json["problems"][0]["trace_ids"],
        json!(["00000000000000000000000000000001"])
    );
    assert_eq!(json["services"][1]["service"], "worker");
    for since in ["restart", "15m", "2026-11-22T10:00:00Z"] {
        let (status, json) = get_json(explore(), &format!("/problems?since={since}")).await;
        assert_eq!(status, StatusCode::OK, "{json}");
    }
    for (address, problem) in [
        (
            "/problems?kind=noise",
            "parameter `kind`: is not a kind of problem",
        ),
        (
            "/problems?limit=0",
            "parameter `limit`: must be a number from 1 to 500",
        ),
        (
            "/problems?page=1",
            "parameter `page`: is not a parameter of this page",
        ),
    ] {
        let (status, json) = get_json(explore(), address).await;
        assert_eq!(
            (status, &json["error"]),
            (StatusCode::BAD_REQUEST, &json!(problem))
        );
    }
}

#[tokio::test]
async fn comparisons_are_json() {
    let id = "00000000000000000000000000000001";
    let (status, json) = get_json(explore(), &format!("/compare?a={id}&b={id}")).await;
    assert_eq!(
        (status, &json["a"]["trace_id"]),
        (StatusCode::OK, &json!(id)),
        "{json}"
    );
    assert_eq!(json["spans"][0]["a"], json["spans"][0]["b"]);
    let (status, json) = get_json(explore(), "/compare?at=1m&window=5m").await;
    assert_eq!(
        (status, &json["before_seconds"]),
        (StatusCode::OK, &json!(300.0)),
        "{json}"
    );
    for (address, expected) in [
        (format!("/compare?a={id}"), StatusCode::BAD_REQUEST),
        (format!("/compare?b={id}"), StatusCode::BAD_REQUEST),
        (
            format!("/compare?a={id}&b={}", id.replace('1', "2")),
            StatusCode::NOT_FOUND,
        ),
        ("/compare?a=1&b=2".to_owned(), StatusCode::BAD_REQUEST),
        (format!("/compare?a={id}&b={id}&at=1m"), StatusCode::BAD_REQUEST),
        ("/compare?window=never".to_owned(), StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(get_json(explore(), &address).await.0, expected, "{address}");
    }
}
