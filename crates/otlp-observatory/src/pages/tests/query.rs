//! Queries, sorted lists and completions as parameters.

use super::*;

async fn ids(address: &str) -> Vec<String> {
    let (status, json) = get_json(explore(), address).await;
    assert_eq!(status, StatusCode::OK, "{address}: {json}");
    let list = json["traces"]
        .as_array()
        .or(json["logs"].as_array())
        .expect("a list");
    list.iter()
        .map(|one| one["trace_id"].as_str().expect("an id").to_owned())
        .collect()
}

const ID: &str = "00000000000000000000000000000001";

#[tokio::test]
async fn a_query_filters_traces_and_logs() {
    for address in [
        "/traces?query=service%3Dapp+!name~health",
        "/traces?query=errors%3D1&status=error&service=worker",
        "/traces?query=",
        "/traces?query=00000000000000000000000000000001",
        "/traces?text=00000000000000000000000000000001",
        "/traces?text=00000000000000000000000000000001&query=errors%3D1",
        "/traces?attribute=http.route!%3D/health",
        "/traces?attribute=title~SCRIPT",
        "/logs?query=level%3Dinfo+body~created",
        "/logs?text=00000000000000000000000000000001",
    ] {
        assert_eq!(ids(address).await, [ID], "{address}");
    }
    for address in [
        "/traces?query=service%3Dnobody",
        "/traces?text=00000000000000000000000000000002",
        "/traces?text=00000000000000000000000000000001&query=errors%3D2",
        "/traces?attribute=http.route!%3D/api/articles/",
        "/logs?query=level%3Dwarn",
    ] {
        assert!(ids(address).await.is_empty(), "{address}");
    }
}

#[tokio::test]
async fn a_wrong_query_is_answered_with_its_problem() {
    for (address, problem) in [
        (
            "/traces?query=dur%3E5",
            "parameter `query`: `dur` needs a duration such as `250us`, `10ms`, `1.5s` or `2m` at character 5",
        ),
        (
            "/logs?query=dur%3E5ms",
            "parameter `query`: `dur` is no field of log records; quote an attribute of this name at character 1",
        ),
        (
            "/traces?attribute=http.response.status_code%3Ehigh",
            "parameter `attribute`: must have a number after `<`, `<=`, `>` or `>=`",
        ),
        (
            "/traces?sort=-duration&before=17",
            "parameter `before`: must be the value of `next` in an earlier response in the same order",
        ),
        (
            "/traces?sort=size",
            "parameter `sort`: must be `start`, `duration`, `spans`, `errors`, `logs`, `services`, `name` or `service`, \
             with `-` before it for descending order",
        ),
        (
            "/completions?page=metrics",
            "parameter `page`: must be `traces` or `logs`",
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
async fn sorted_lists_have_pages() {
    let store = store();
    for trace in 2..=4 {
        let steps = (1..=trace + 5).map(|id| span(trace, id, 0, "a/b &?."));
        store.insert_at(spans("app", steps.collect()), NOW);
    }
    let explore = || explorer(store.clone(), [127, 0, 0, 1]);
    for sort in ["-spans", "name"] {
        let mut address = format!("/traces?sort={sort}&limit=1");
        let mut found = Vec::new();
        loop {
            let (status, json) = get_json(explore(), &address).await;
            assert_eq!(
                (status, &json["complete"]),
                (StatusCode::OK, &json!(true)),
                "{json}"
            );
            let traces = json["traces"].as_array().expect("traces").iter();
            found.extend(traces.map(|trace| trace["spans"].as_u64().expect("a number")));
            let Some(next) = json["next"].as_str() else {
                break;
            };
            let next: String = url::form_urlencoded::byte_serialize(next.as_bytes()).collect();
            address = format!("/traces?sort={sort}&limit=1&before={next}");
        }
        found.sort_unstable();
        assert_eq!(found, [3, 7, 8, 9], "{sort}");
    }
}

#[tokio::test]
async fn completions_are_json() {
    let (status, json) = get_json(explore(), "/completions?page=traces").await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        json["fields"]
            .as_array()
            .expect("fields")
            .contains(&json!("trace.dur"))
    );
    assert_eq!(json["keys"][0], json!({"text": "service.name", "count": 3}));
    let (_, json) = get_json(explore(), "/completions?page=traces&key=service").await;
    assert_eq!(
        json["values"],
        json!([{"text": "app", "count": 2}, {"text": "worker", "count": 1}])
    );
    let (_, json) = get_json(explore(), "/completions?page=logs&key=level").await;
    assert_eq!(
        json["fields"],
        json!(["trace", "debug", "info", "warn", "error", "fatal"])
    );
}
