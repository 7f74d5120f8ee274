//! Masking: telemetry and output contain no unmasked e-mail address and no password, token, body or baggage,
//! regardless of the requests and messages that clients and senders of tasks send.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{TASK, bearer};
use crate::{
    end_to_end::installation::{Installation, People},
    support::{eventually, otlp::text, raw},
};

/// Domain of all e-mail addresses in this test.
const DOMAIN: &str = "mask-me.example";

/// Text in every password, token and body, and the key of every baggage entry.
const SECRET: &str = "hunter2";

/// A small random number generator (xorshift) with a fixed seed, which makes failures reproducible.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    /// Returns an e-mail address that the API accepts.
    fn address(&mut self) -> String {
        let parts = ["a", "b", "Z", "7", ".x", "_", "+", "-y", "o'b", "q/r", "%61"];
        let mut local = self.pick(&["a", "z", "Q", "5"]).to_owned();
        for _ in 0..self.below(9) {
            local.push_str(self.pick(&parts));
        }
        format!("{local}@{DOMAIN}")
    }

    /// Returns an e-mail address with one of several URL encodings.
    fn in_url(&mut self) -> String {
        let address = self.address();
        match self.below(3) {
            0 => address,
            1 => address.replace('@', "%40"),
            _ => address
                .replace('@', "%40")
                .replace('.', "%2E")
                .replace('%', "%25"),
        }
        .replace("%25", "%")
    }

    /// Returns a JSON value with addresses in keys and values.
    fn json(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 2 } else { 5 }) {
            0 => self.address().into(),
            1 => format!("to {}, and", self.address()).into(),
            2 => json!({self.address(): self.json(depth - 1), "x": self.json(depth - 1)}),
            3 => json!([self.json(depth - 1), self.json(depth - 1), 7]),
            _ => json!({"email": self.json(depth - 1), "title": self.json(depth - 1)}),
        }
    }
}

const PATHS: [&str; 8] = [
    "/api/register",
    "/api/login",
    "/api/user",
    "/api/logout",
    "/api/articles/",
    "/api/articles",
    "/api/openapi.json",
    "/api/health",
];

/// Header fields whose value a client chooses.
const HEADERS: [&str; 20] = [
    "User-Agent",
    "X-Request-Id",
    "X-Forwarded-For",
    "Forwarded",
    "Referer",
    "Origin",
    "From",
    "Cookie",
    "Accept",
    "Accept-Language",
    "If-None-Match",
    "Content-Type",
    "traceparent",
    "b3",
    "X-B3-TraceId",
    "X-B3-SpanId",
    "baggage",
    "X-Real-Ip",
    "Expect-Ct",
    "Via",
];

fn target(random: &mut Random, slug: &str) -> String {
    let path = match random.below(6) {
        0 => format!("/api/articles/{}", random.in_url()),
        1 => format!("/api/articles/{}/favorite", random.in_url()),
        2 => format!("/{}/{}", random.in_url(), random.in_url()),
        3 => format!("/api/articles/{slug}"),
        _ => random.pick(&PATHS).to_owned(),
    };
    match random.below(3) {
        0 => path,
        1 => format!(
            "{path}?{}={}&page={}",
            random.in_url(),
            random.in_url(),
            random.in_url()
        ),
        _ => format!(
            "{path}?search={}&author={}&password={SECRET}&token={SECRET}",
            random.in_url(),
            random.in_url()
        ),
    }
}

fn body(random: &mut Random) -> String {
    let address = random.address();
    match random.below(8) {
        0 => random.json(3).to_string(),
        1 => format!("{{\"email\": \"{address}\", {SECRET}"),
        2 => json!({"email": address, "password": SECRET, "name": random.address()}).to_string(),
        3 => json!({"email": address, "password": format!("{SECRET}-of-{address}")}).to_string(),
        4 => {
            json!({"title": address, "description": random.address(), "body": format!("{SECRET} {address}")})
                .to_string()
        }
        5 => json!({"email": [address], "password": {SECRET: address}, "name": 7}).to_string(),
        6 => json!({"image": address, "bio": format!("{SECRET} {address}"), "email": random.address()})
            .to_string(),
        _ => format!("\"{address}\""),
    }
}

/// Returns a request with addresses in every part that a client controls.
fn request(random: &mut Random, token: &str, slug: &str) -> String {
    let method = random.pick(&[
        "GET", "POST", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "QUERY",
    ]);
    let host = match random.below(4) {
        0 => random.address(),
        1 => format!("{}:8080", random.address()),
        _ => "localhost".to_owned(),
    };
    let mut text = format!(
        "{method} {} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n",
        target(random, slug)
    );
    for _ in 0..random.below(6) {
        let name = random.pick(&HEADERS);
        let address = random.address();
        let value = match random.below(3) {
            0 => address,
            1 => format!("Mozilla/5.0 (+mailto:{address}; {})", random.address()),
            _ => format!("key={address}"),
        };
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if random.below(2) == 0 {
        let trace = format!("{:032x}", random.0 as u128 + 1);
        text.push_str(&format!(
            "traceparent: 00-{trace}-b7ad6b7169203331-01\r\ntracestate: vendor={},other=1\r\nbaggage: {SECRET}={}\r\n",
            random.address(),
            random.in_url()
        ));
    }
    match random.below(3) {
        0 => text.push_str(&format!("Authorization: {}\r\n", bearer(token))),
        1 => text.push_str(&format!("Authorization: Basic {SECRET} {}\r\n", random.address())),
        _ => {}
    }
    if method == "GET" {
        return format!("{text}\r\n");
    }
    let body = body(random);
    if !text.contains("Content-Type") {
        text.push_str("Content-Type: application/json\r\n");
    }
    format!("{text}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// Sends messages with addresses in every part that a sender controls; some are not valid tasks.
fn send_tasks(installation: &Installation, random: &mut Random) {
    for number in 0..40_u32 {
        let id = match random.below(3) {
            0 => random.address(),
            _ => format!("{number:08}-1111-4111-8111-111111111111"),
        };
        let arguments = match random.below(4) {
            0 => json!([1, random.address()]),
            1 => json!([random.address(), "created"]),
            2 => json!([1, "created"]),
            _ => json!([random.json(2)]),
        };
        let address = random.address();
        let choice = random.below(9);
        let more = random.json(2);
        installation.send_task(&id, &arguments, |message| match choice {
            0 => message["headers"]["task"] = address.into(),
            1 => message["headers"]["task"] = format!("app.{address}.run").into(),
            2 => message["headers"]["tracestate"] = format!("vendor={address}").into(),
            3 => message["headers"]["traceparent"] = address.into(),
            4 => message["properties"]["delivery_info"]["routing_key"] = address.into(),
            5 => message["body"] = format!("%{address} {SECRET}").into(),
            6 => message["headers"]["baggage"] = format!("{SECRET}={address}").into(),
            7 => {
                message["headers"]["origin"] = address.clone().into();
                message["headers"]["argsrepr"] = format!("('{address}', '{SECRET}')").into();
                message["properties"]["reply_to"] = address.clone().into();
                message["headers"]["eta"] = address.into();
            }
            _ => message["headers"][&address] = more,
        });
    }
    for raw in [
        random.address(),
        format!("{{\"headers\": \"{}\"", random.address()),
    ] {
        installation.redis.command(&["LPUSH", "celery", &raw]).unwrap();
    }
}

/// Asserts that `found` contains no unmasked address and no secret.
fn assert_nothing_leaks(found: &str) {
    let lower = found.to_lowercase();
    for text in [
        lower.replace("%2e", "."),
        lower.replace("%25", "%").replace("%2e", "."),
    ] {
        for (at, _) in text.match_indices(DOMAIN) {
            let before = &text[..at];
            let local = ["@", "%40"].iter().find_map(|sign| before.strip_suffix(sign));
            assert!(
                local.is_none_or(|local| local.ends_with("***")),
                "unmasked address in {found:?}"
            );
        }
    }
    assert!(!found.contains(SECRET), "secret in {found:?}");
}

#[test]
fn the_check_detects_unmasked_addresses_and_secrets() {
    for leak in [
        format!("x alice@{DOMAIN}"),
        "alice%40mask-me%2Eexample".to_owned(),
        format!("password={SECRET}"),
    ] {
        assert!(std::panic::catch_unwind(|| assert_nothing_leaks(&leak)).is_err());
    }
    assert_nothing_leaks(&format!("al***@{DOMAIN}, ***%40{DOMAIN}, {DOMAIN}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn telemetry_and_output_have_no_unmasked_address_and_no_secret() {
    let installation = Installation::new().await;
    let (mut serve, api) = installation.serve().await;
    let people = People::new(api, &installation).await;
    let queue = format!("of-alice@{DOMAIN}");
    let mut worker = installation.worker_with(&[
        ("RUST_LOG", "debug"),
        ("CELERY_QUEUES", &format!("celery,{queue}")),
    ]);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let slug = register_and_write(api, &mut random).await;
    for _ in 0..300 {
        let request = request(&mut random, &people.alice, &slug);
        raw::send(api, request.as_bytes()).await;
    }
    send_tasks(&installation, &mut random);
    eventually("all messages to be consumed", async || {
        let waiting = installation.redis.command(&["LLEN", "celery"])?;
        waiting.starts_with(":0").then_some(())
    })
    .await;
    // A valid task after all others.
    let last = "99999999-1111-4111-8111-111111111111";
    installation.send_task_to(&queue, last, &json!([1, "created"]), |message| {
        message["properties"]["delivery_info"]["routing_key"] = queue.as_str().into();
    });
    eventually("the last task's span", async || {
        let spans = installation.otlp.spans();
        let is_last = |id: Option<String>| id.as_deref() == Some(last);
        spans
            .iter()
            .any(|(_, span)| is_last(text(&span.attributes, "job.id")))
            .then_some(())
    })
    .await;
    assert!(worker.terminate().await.success(), "{}", worker.output());
    assert!(serve.terminate().await.success(), "{}", serve.output());

    let texts = installation.otlp.texts();
    let printed = [serve.output(), worker.output()];
    let masked = |text: &str| text.contains(&format!("***@{DOMAIN}"));
    assert!(texts.iter().any(|text| masked(text)), "nothing was masked");
    assert!(printed.iter().all(|output| masked(output)), "nothing was masked");
    assert!(texts.iter().any(|text| text == TASK), "nothing was received");
    for text in &texts {
        assert_nothing_leaks(text);
        assert!(!text.contains(&people.alice), "token in {text:?}");
    }
    for output in &printed {
        output.lines().for_each(assert_nothing_leaks);
        assert!(!output.contains(&people.alice));
    }
}

/// Registers an account with an address in [`DOMAIN`], creates an article and returns its slug.
async fn register_and_write(api: SocketAddr, random: &mut Random) -> String {
    let email = format!("carol.{}@{DOMAIN}", random.below(1000));
    let token = raw::register(api, &email).await;
    let draft = json!({"title": email, "description": email, "body": SECRET});
    let response = raw::request(api, "POST", "/api/articles/", Some(&token), Some(&draft)).await;
    assert_eq!(
        response.status,
        201,
        "{}",
        String::from_utf8_lossy(&response.body)
    );
    response.json()["slug"].as_str().unwrap().to_owned()
}
