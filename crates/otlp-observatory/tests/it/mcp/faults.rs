//! The faults of the demo service in tests/demo are named on the page of problems and by the tools.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use super::{call, http::respond, text};
use crate::support::{Running, client, within};

/// Maximum size of an answer, in bytes.
const MAX_ANSWER: usize = 4 << 10;

/// Routes of the service, each with the kind of the problem that it causes and a part of the problem's title.
const FAULTS: [(&str, &str, &str); 25] = [
    (
        "exception",
        "error",
        "ValueError in File \"/app/orders.py\", line 12, in load",
    ),
    ("failed_statement", "error", "it failed in SELECT"),
    (
        "n_plus_one_statements",
        "n_plus_one",
        "20 × SELECT name FROM author WHERE id = ? in GET /authors",
    ),
    ("n_plus_one_calls", "n_plus_one", "7 × GET in GET /prices"),
    ("slow_statement", "slow_statement", "SELECT a FROM b WHERE c = ?"),
    ("slow_request", "slow_request", "GET /report is slow"),
    ("slow_call", "slow_call", "the call GET is slow"),
    ("slow_task", "slow_task", "report.write is slow"),
    (
        "failed_task",
        "failed_task",
        "mail.send failed: SMTPError in File \"/app/orders.py\"",
    ),
    (
        "poison_message",
        "poison_message",
        "a message of mail.parse failed 4 times",
    ),
    (
        "duplicate_message",
        "duplicate_message",
        "a message of mail.count was processed 2 times",
    ),
    (
        "retry_storm",
        "retry_storm",
        "6 × GET in GET /ship, after failures",
    ),
    ("pool_exhausted", "pool_exhausted", "TimeoutError in GET /stock"),
    (
        "pool_exhausted_in_the_log",
        "pool_exhausted",
        "pool timed out while waiting for an open connection",
    ),
    ("pool_wait", "pool_wait", "pool.acquire waited for a connection"),
    (
        "pool_timeouts_in_metrics",
        "pool_exhausted",
        "requests for a connection of the pool main timed out",
    ),
    (
        "status_without_error",
        "wrong_status",
        "GET /login got 500, but its status is not an error",
    ),
    (
        "error_without_status",
        "wrong_status",
        "GET /missing responded 404, but its status is an error",
    ),
    (
        "hidden_failure",
        "wrong_status",
        "GET /hidden responded 200 although SELECT failed",
    ),
    (
        "queue_delay",
        "queue_delay",
        "messages of mail.welcome waited in the queue",
    ),
    ("lost_parent", "lost_parent", "the parent of step is missing"),
    (
        "clock_behind",
        "clock_skew",
        "the clock of pay is behind that of shop",
    ),
    (
        "clock_ahead",
        "clock_skew",
        "the clock of bank is ahead of that of shop",
    ),
    (
        "unnamed_service",
        "unnamed_service",
        "unnamed step has no service name",
    ),
    ("error_in_the_log", "error_log", "cannot write order #"),
];

/// The running service, killed on drop.
struct Shop(Child);

impl Drop for Shop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_the_demo_service_is_named_within_two_calls() {
    let observatory = Running::start().await;
    let mut command = Command::new("python3");
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/demo/shop.py"))
        .arg(observatory.http(""))
        .stdout(Stdio::piped());
    let mut shop = Shop(command.spawn().unwrap());
    let mut url = String::new();
    BufReader::new(shop.0.stdout.take().unwrap())
        .read_line(&mut url)
        .unwrap();
    let get = async |route: &str| {
        let response = within(client().get(format!("{}/{route}", url.trim())).send())
            .await
            .unwrap();
        assert_eq!(response.status(), 200, "{route}");
        within(response.text()).await.unwrap()
    };
    let routes = get("").await;
    assert_eq!(routes.lines().count(), FAULTS.len());
    for route in routes.lines() {
        get(route.trim_start_matches('/')).await;
    }

    let is_named = |problem: &Value, kind: &str, title: &str| {
        problem["kind"] == kind && problem["title"].as_str().unwrap().contains(title)
    };
    let missing = |json: &Value| -> Vec<&str> {
        let problems = json["problems"].as_array().unwrap();
        let named = |kind: &str, title: &str| problems.iter().any(|problem| is_named(problem, kind, title));
        let missing = FAULTS.iter().filter(|(_, kind, title)| !named(kind, title));
        missing.map(|(route, ..)| *route).collect()
    };
    // A parent is missing only after some seconds.
    observatory
        .json_when("/problems?limit=500", |json| missing(json).is_empty())
        .await;

    let first = respond(&observatory, &call(1, "find_problems", &json!({}))).await;
    let first = text(&first);
    assert!(first.len() <= MAX_ANSWER, "{first}");
    for (route, kind, title) in FAULTS {
        let names = |answer: &str| {
            answer
                .lines()
                .any(|line| line.starts_with(kind) && line.contains(title))
        };
        if names(first) {
            continue;
        }
        let second = respond(&observatory, &call(2, "find_problems", &json!({ "kind": kind }))).await;
        let second = text(&second);
        assert!(
            second.len() <= MAX_ANSWER && names(second),
            "{route}: {first}\n{second}"
        );
    }
}
