//! Checks the HTTP contract: this service returns the status that was recorded on the reference implementation for
//! every request, with either store, except for the listed differences.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use pressroom::store::Store;
use serde_json::Value;

use super::{on_postgres, on_sqlite};
use crate::support::{api, raw};

/// Deliberate differences: name of the recorded request, and expected status.
const DIFFERENCES: &[(&str, u16)] = &[
    ("create-nul-title", 400),
    ("create-title-242", 201),
    ("create-title-255", 201),
    ("get-nul", 404),
    ("list-page-huge", 200),
    ("list-search-nul", 400),
    // RFC 9112, section 3.2.
    ("proto-no-host", 400),
    ("register-duplicate-upper-email", 409),
    ("register-email-300chars", 400),
    ("register-json-utf16", 400),
    ("register-name-nul", 400),
    ("register-name-surrogate", 400),
    // The reference implementation has no limit of 1024 bytes.
    ("register-password-long", 400),
    ("update-nul", 400),
    ("user-bearer-two-spaces", 200),
    ("user-lowercase-bearer", 200),
    ("user-no-exp", 401),
    ("user-userid-huge", 401),
    ("user-userid-string", 401),
    ("user-userid-string-abc", 401),
];

/// Prefixes of requests recorded while the database or Redis was stopped, which `outages.rs` tests.
const OUTAGES: [&str; 3] = ["redisdown-", "pgdown-", "bothdown-"];

pub struct Recorded {
    pub name: String,
    pub request: String,
    pub status: u16,
}

/// Returns all recorded requests in order of recording.
pub fn recorded() -> impl Iterator<Item = Recorded> {
    include_str!("../../vectors/reference.jsonl").lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        Recorded {
            name: line["name"].as_str().unwrap().to_owned(),
            request: line["request"].as_str().unwrap().to_owned(),
            status: u16::try_from(line["reference_status"].as_u64().unwrap()).unwrap(),
        }
    })
}

fn recorded_without_outage() -> Vec<Recorded> {
    recorded()
        .filter(|recorded| !OUTAGES.iter().any(|outage| recorded.name.starts_with(outage)))
        .collect()
}

/// Returns the bytes of a recorded request. The file contains one character per byte, and abbreviates long runs of
/// one character.
fn bytes(recorded: &Recorded, known: &HashMap<&'static str, String>) -> Vec<u8> {
    let mut request = recorded.request.trim_end_matches("...").to_owned();
    if let Some((before, rest)) = request.split_once("...[") {
        let (total, after) = rest.split_once(" bytes total]...").unwrap();
        let elided = total.parse::<usize>().unwrap() - before.len() - after.len();
        let run = before.chars().last().unwrap().to_string().repeat(elided);
        request = format!("{before}{run}{after}");
    }
    for (name, value) in known {
        request = request.replace(&format!("{{{name}}}"), value);
    }
    request
        .chars()
        .map(|c| u8::try_from(u32::from(c)).unwrap())
        .collect()
}

async fn log_in(address: SocketAddr, email: &str) -> String {
    let body = serde_json::json!({"email": email, "password": "password123"});
    let response = raw::request(address, "POST", "/api/login", None, Some(&body)).await;
    assert_eq!(response.status, 200, "{}", response.head);
    response.json()["token"]["access_token"]
        .as_str()
        .unwrap()
        .to_owned()
}

async fn check_recorded_requests(store: Arc<dyn Store>) {
    let api = api::start(store).await;
    let mut known: HashMap<&'static str, String> = HashMap::new();
    let mut wrong = Vec::new();
    let requests = recorded_without_outage();
    assert!(requests.len() > 230);
    for recorded in requests {
        let response = raw::send(api.address, &bytes(&recorded, &known)).await;
        let expected = DIFFERENCES
            .iter()
            .find(|(name, _)| *name == recorded.name)
            .map_or(recorded.status, |(_, status)| *status);
        if response.status != expected {
            wrong.push(format!(
                "{}: {} instead of {expected}",
                recorded.name, response.status
            ));
        }
        if response.status >= 400 && !recorded.request.starts_with("HEAD") && response.status != 400 {
            let error = &response.json()["error"];
            assert_eq!(error["status_code"], response.status, "{}", recorded.name);
            assert_eq!(error["trace_id"].as_str().unwrap().len(), 32, "{}", recorded.name);
        }
        match recorded.name.as_str() {
            "register-ok" => {
                known.insert("alice_token", log_in(api.address, "alice@example.com").await);
            }
            "register-ok-bob" => {
                known.insert("bob_token", log_in(api.address, "bob@example.com").await);
            }
            name if name.starts_with("logout-") && response.status == 200 => {
                known.insert("alice_token", log_in(api.address, "alice@example.com").await);
            }
            name if name.starts_with("create-") && response.status == 201 && !known.contains_key("slug") => {
                known.insert("slug", response.json()["slug"].as_str().unwrap().to_owned());
            }
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn every_recorded_request_gets_its_status_on_postgresql() {
    let fixture = on_postgres().await;
    check_recorded_requests(fixture.store.clone()).await;
}

#[tokio::test]
async fn every_recorded_request_gets_its_status_on_sqlite() {
    let fixture = on_sqlite();
    check_recorded_requests(fixture.store.clone()).await;
}

#[test]
fn each_difference_refers_to_a_recorded_request() {
    let names: Vec<String> = recorded().map(|recorded| recorded.name).collect();
    for (name, _) in DIFFERENCES {
        assert!(names.iter().any(|recorded| recorded == name), "{name}");
    }
}

/// A small random number generator with a fixed seed, which makes failures reproducible.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let index = self.below(items.len());
        &items[index]
    }
}

/// Returns an unusual JSON value, as from a faulty or hostile client.
fn odd_value(random: &mut Random, depth: usize) -> Value {
    let odd = [
        Value::Null,
        Value::Bool(true),
        serde_json::json!(-1),
        serde_json::json!(1e308),
        serde_json::json!(u64::MAX),
        serde_json::json!(""),
        serde_json::json!("\u{0}"),
        serde_json::json!("%_\\"),
        serde_json::json!("\u{202e}\u{feff}\u{1f600}"),
        serde_json::json!("x".repeat(300)),
        serde_json::json!("щ".repeat(255)),
        serde_json::json!("a@b.co"),
        serde_json::json!("'; DROP TABLE users; --"),
        serde_json::json!("&#x110000;&#xd800;&#99999999999;&;"),
    ];
    match random.below(8) {
        0 if depth > 0 => Value::Array(vec![odd_value(random, depth - 1)]),
        1 if depth > 0 => serde_json::json!({"x": odd_value(random, depth - 1)}),
        _ => random.pick(&odd).clone(),
    }
}

async fn send_odd_requests(store: Arc<dyn Store>) {
    const SEED: u64 = 0x005E_ED0F_9E55_0001;
    let mut random = Random(SEED);
    let api = api::start(store).await;
    let body = serde_json::json!({"email": "alice@example.com", "password": "password123", "name": "Alice"});
    let registered = raw::request(api.address, "POST", "/api/register", None, Some(&body)).await;
    let token = registered.json()["token"]["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    let fields = [
        "email",
        "password",
        "name",
        "bio",
        "image",
        "title",
        "description",
        "body",
        "\u{0}",
        "x",
    ];
    let odd_texts = [
        "%00",
        "%ff",
        "%F0%9F%98%80",
        "..%2f..",
        "''",
        "%25",
        "a",
        "-1",
        "9".repeat(40).leak(),
        "1e9",
        "%20",
        "_",
        "1_0",
        "",
        "OTk5OTk5OTk5OTk5OTk5OTk5OS4x",
        "LTEuLTE",
        "MTc5NTMyOTg2MDAwMDAwMC45OTk5OTk5OTk5",
    ];
    for _ in 0..1500 {
        let method = *random.pick(&[
            "GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "QUERY",
        ]);
        let odd = *random.pick(&odd_texts);
        let target = match random.below(7) {
            0 => format!("/api/articles/?page={odd}&per_page={}", random.pick(&odd_texts)),
            1 => format!("/api/articles/?search={odd}&cursor={}", random.pick(&odd_texts)),
            2 => format!("/api/articles/{odd}"),
            3 => format!("/api/articles/{odd}/favorite"),
            4 => "/api/articles/".to_owned(),
            5 => format!(
                "/api/{}",
                random.pick(&[
                    "register",
                    "login",
                    "user",
                    "user",
                    "health",
                    "docs",
                    "openapi.json"
                ])
            ),
            _ => format!("/{odd}/{odd}"),
        };
        let body: serde_json::Map<String, Value> = (0..random.below(5))
            .map(|_| ((*random.pick(&fields)).to_owned(), odd_value(&mut random, 2)))
            .collect();
        let token = (random.below(4) > 0).then_some(token.as_str());
        let response = raw::request(
            api.address,
            method,
            &target,
            token,
            Some(&Value::Object(body.clone())),
        )
        .await;
        assert!(
            response.status < 500,
            "{method} {target} {body:?}: {}",
            response.head
        );
        // The requests may change the password or the address, but the account must remain usable.
        if let Some(token) = token {
            let me = raw::request(api.address, "GET", "/api/user", Some(token), None).await;
            assert_eq!(me.status, 200, "after {method} {target} {body:?}");
        }
    }
}

#[tokio::test]
async fn odd_requests_cause_no_server_error_on_postgresql() {
    let fixture = on_postgres().await;
    send_odd_requests(fixture.store.clone()).await;
}

#[tokio::test]
async fn odd_requests_cause_no_server_error_on_sqlite() {
    let fixture = on_sqlite();
    send_odd_requests(fixture.store.clone()).await;
}

#[tokio::test]
async fn deeply_nested_json_is_a_bad_request() {
    let fixture = on_sqlite();
    let api = api::start(fixture.store.clone()).await;
    for depth in [100, 1_000, 100_000] {
        let body = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let request = format!(
            "POST /api/register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let response = raw::send(api.address, request.as_bytes()).await;
        assert_eq!(response.status, 400, "depth {depth}");
    }
}
