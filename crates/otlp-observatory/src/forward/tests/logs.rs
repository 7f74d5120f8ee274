//! Tests of logging: an outage is logged when it begins and when it ends, and content and secrets are never
//! logged.

use std::{
    fmt::{self, Write as _},
    sync::{Arc, Mutex},
    time::Duration,
};

use telemetry::tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::{DefaultGuard, set_default},
};

use super::{super::*, backend::Reply, *};

const ENOUGH: Duration = Duration::from_secs(20);

/// The log lines of this crate on this thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn here() -> (Self, DefaultGuard) {
        let lines = Self::default();
        let guard = set_default(lines.clone());
        (lines, guard)
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn with(&self, text: &str) -> usize {
        let all = self.all();
        all.iter().filter(|line| line.contains(text)).count()
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("otlp_observatory")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Line(String);
        impl Visit for Line {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                write!(self.0, " {field}={value:?}").unwrap();
            }
        }
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[tokio::test]
async fn an_outage_is_logged_when_it_begins_and_when_it_ends() {
    let (lines, _guard) = Lines::here();
    let (backend, scratch) = (Backend::start().await, Scratch::new());
    for _ in 0..10 {
        backend.reply(Reply::status(503).body("the spans were GET /articles"));
    }
    let forwarder = start(&forwarding_to(&backend, &scratch));
    forwarder.accept(&one(1));
    until("the request is accepted", || forwarder.status().sent.spans == 1).await;
    let all = lines.all();
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(
        all[0].starts_with("WARN") && all[0].contains("HTTP 503"),
        "{all:?}"
    );
    assert!(
        all[1].starts_with("INFO") && all[1].contains("failures=10"),
        "{all:?}"
    );
}

#[tokio::test]
async fn recurring_outages_are_logged_once() {
    let (lines, _guard) = Lines::here();
    let (backend, scratch) = (Backend::start().await, Scratch::new());
    let forwarder = start(&forwarding_to(&backend, &scratch));
    for id in 1..=10 {
        backend.reply(Reply::status(400));
        backend.reply(Reply::status(503));
        forwarder.accept(&one(2 * id));
        until("the request is dropped", || {
            forwarder.status().dropped_requests == id
        })
        .await;
        forwarder.accept(&one(2 * id + 1));
        until("the request is accepted", || forwarder.status().sent.spans == id).await;
    }
    // Each of the two problems is logged when it begins and when it ends.
    assert_eq!(lines.all().len(), 4, "{:?}", lines.all());
    assert_eq!(lines.with("dropped telemetry that the backend rejected"), 1);
    assert_eq!(lines.with("it is kept on disk and sent later"), 1);
}

#[tokio::test]
async fn a_full_queue_is_logged_once_and_its_end_with_the_number_of_dropped_requests() {
    let (lines, _guard) = Lines::here();
    let (mut backend, scratch) = (Backend::down().await, Scratch::new());
    let forwarder = start(&Forwarding {
        queue_limit: 32 << 10,
        ..forwarding_to(&backend, &scratch)
    });
    for id in 0..100 {
        forwarder.accept(&long(id, 1000));
    }
    let dropped = forwarder.status().dropped_requests;
    assert_eq!(lines.with("the queue is full"), 1, "{:?}", lines.all());
    backend.up().await;
    until("there is space", || forwarder.status().queued_bytes == 0).await;
    forwarder.accept(&one(1));
    let end = format!("failures={dropped}");
    assert_eq!(lines.with(&end), 1, "{:?}", lines.all());
}

#[tokio::test]
async fn requests_left_on_disk_and_a_truncated_record_are_logged() {
    let (lines, _guard) = Lines::here();
    let (backend, scratch) = (Backend::down().await, Scratch::new());
    let forwarder = start(&forwarding_to(&backend, &scratch));
    for id in 0..3 {
        forwarder.accept(&one(id));
    }
    forwarder.finish(Duration::ZERO).await;
    assert_eq!(lines.with("kept on disk until the next start"), 1);
    drop(forwarder);
    let segment = scratch.segments().remove(0);
    let length = segment.metadata().unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(segment).unwrap();
    file.set_len(length - 1).unwrap();
    drop(start(&forwarding_to(&backend, &scratch)));
    let cut = format!("queue.size={}", length / 3 - 1);
    assert_eq!(lines.with(&cut), 1, "{:?}", lines.all());
}

#[tokio::test]
async fn neither_secrets_nor_content_are_logged() {
    let (lines, _guard) = Lines::here();
    let (backend, scratch) = (Backend::start().await, Scratch::new());
    backend.reply_to_token_request(
        Reply::status(400)
            .header("content-type", "application/json")
            .body(format!(
                r#"{{"error":"{CLIENT_SECRET}","error_description":"{CLIENT_SECRET}"}}"#
            )),
    );
    backend.reply_to_token_request(Reply::status(401).body(CLIENT_SECRET));
    backend.reply_to_token_request(Reply::token("t0ken", 3600));
    backend.reply_to_token_request(Reply::token("t0ken", 3600));
    backend.reply(Reply::status(401).body("t0ken"));
    backend.reply(Reply::status(400).body("GET /articles"));
    let forwarder = start(&Forwarding {
        endpoint: backend.url("/?key=k3y"),
        headers: vec![("x-api-key".to_owned(), Secret::new("v4lue"))],
        ..with_tokens(&backend, &scratch)
    });
    forwarder.accept(&one(1));
    until("the request is dropped", || {
        forwarder.status().dropped_requests == 1
    })
    .await;
    forwarder.accept(&one(2));
    until("the request is accepted", || forwarder.status().sent.spans == 1).await;
    forwarder.finish(ENOUGH).await;
    let all = lines.all().join("\n");
    assert!(
        all.contains("the token endpoint responded with HTTP 401"),
        "{all}"
    );
    for secret in [CLIENT_SECRET, "t0ken", "v4lue", "k3y", "/articles"] {
        assert!(!all.contains(secret), "{all}");
    }
}

#[tokio::test]
async fn a_failed_renewal_of_a_valid_token_is_logged_once() {
    let (lines, _guard) = Lines::here();
    let (backend, scratch) = (Backend::start().await, Scratch::new());
    backend.reply_to_token_request(Reply::token("first", 4));
    for _ in 0..3 {
        backend.reply_to_token_request(Reply::status(503));
    }
    let forwarder = start(&with_tokens(&backend, &scratch));
    let mut id = 0;
    while lines.with("the access token was renewed") == 0 {
        forwarder.accept(&one(id));
        id += 1;
        until("the request is accepted", || forwarder.status().sent.spans == id).await;
    }
    let failed = "the access token was not renewed; retrying until it expires";
    assert_eq!(lines.with(failed), 1, "{:?}", lines.all());
    assert_eq!(lines.with("HTTP 503"), 1, "{:?}", lines.all());
    assert_eq!(lines.with(CLIENT_SECRET), 0);
    assert!(backend.requests_to("/token").len() >= 5);
}
