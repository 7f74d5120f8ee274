//! Tests against a real HTTP server with scripted replies: a backend with a token endpoint.

mod backend;
mod contents;
mod disk;
mod logs;
mod random;
mod sending;
mod tokens;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};

use self::backend::Backend;
use super::{Credentials, Forwarder, Forwarding, Secret, timing::Timing};
use crate::export::Export;

const PATIENCE: Duration = Duration::from_secs(20);

/// Client secret, which must not appear in logs, status or debug output.
const CLIENT_SECRET: &str = "s3cret-of-the-client";

/// A folder that is deleted at the end of the test.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Relaxed);
        let name = format!("observatory-forward-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn queue(&self) -> PathBuf {
        self.0.join("queue")
    }

    /// Copies the folder without its lock, as a crash leaves it.
    fn copy(&self) -> Self {
        fn copy(from: &Path, to: &Path) {
            fs::create_dir_all(to).unwrap();
            for entry in fs::read_dir(from).unwrap() {
                let entry = entry.unwrap();
                let to = to.join(entry.file_name());
                if entry.file_type().unwrap().is_dir() {
                    copy(&entry.path(), &to);
                } else if let Err(error) = fs::copy(entry.path(), to) {
                    // The segment was sent and deleted meanwhile.
                    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
                }
            }
        }
        let other = Self::new();
        copy(&self.0, &other.0);
        other
    }

    /// Returns the segments of the queue for traces, oldest first.
    fn segments(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.queue().join("traces")) else {
            return Vec::new();
        };
        let mut segments: Vec<PathBuf> = entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "segment"))
            .collect();
        segments.sort();
        segments
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A forwarder that was not finished may still be writing.
        while self.0.exists() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

fn quick_timing() -> Timing {
    Timing {
        linger: Duration::from_millis(5),
        min_back_off: Duration::from_millis(5),
        max_back_off: Duration::from_millis(40),
        request_timeout: Duration::from_secs(10),
        ..Timing::default()
    }
}

fn forwarding_to(backend: &Backend, scratch: &Scratch) -> Forwarding {
    Forwarding {
        endpoint: backend.url(""),
        headers: Vec::new(),
        credentials: None,
        environment: None,
        queue: scratch.queue(),
        queue_limit: 64 << 20,
    }
}

fn with_tokens(backend: &Backend, scratch: &Scratch) -> Forwarding {
    Forwarding {
        credentials: Some(Credentials {
            token_url: backend.url("/token"),
            client_id: "pressroom".to_owned(),
            client_secret: Secret::new(CLIENT_SECRET),
            audience: Some("b14collector".to_owned()),
        }),
        ..forwarding_to(backend, scratch)
    }
}

fn start(forwarding: &Forwarding) -> Forwarder {
    Forwarder::start_with(forwarding, quick_timing()).unwrap()
}

/// Returns a span with this id.
fn span(id: u64) -> Span {
    Span {
        trace_id: vec![7; 16],
        span_id: id.to_be_bytes().to_vec(),
        name: "GET /articles".to_owned(),
        ..Span::default()
    }
}

fn spans(spans: Vec<Span>) -> Export {
    Export::Traces(ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans {
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    })
}

/// Returns a request with one span.
fn one(id: u64) -> Export {
    spans(vec![span(id)])
}

/// Returns a request with one span, a little longer than `length` bytes.
fn long(id: u64, length: usize) -> Export {
    let mut span = span(id);
    span.attributes.push(text("long", &"x".repeat(length)));
    spans(vec![span])
}

fn log(body: &str) -> Export {
    Export::Logs(ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs: vec![ScopeLogs {
                log_records: vec![LogRecord {
                    body: text("", body).value,
                    ..LogRecord::default()
                }],
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    })
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    }
}

fn set(ids: impl IntoIterator<Item = u64>) -> BTreeSet<u64> {
    ids.into_iter().collect()
}

/// Waits until `holds` returns true.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "timed out: {what}");
        // Polling interval.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
