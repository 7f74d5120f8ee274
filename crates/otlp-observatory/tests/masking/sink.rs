//! An OTLP backend that keeps what it receives as JSON, and issues tokens.

use std::{
    io::Read as _,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::HeaderMap,
    routing::post,
};
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
    trace::v1::ExportTraceServiceRequest,
};
use prost::Message as _;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::places::{FORM, SIGNALS};

type Requests = Arc<Mutex<Vec<Value>>>;

pub struct Sink {
    address: SocketAddr,
    requests: Requests,
}

impl Sink {
    pub async fn start() -> Self {
        let requests = Requests::default();
        let token = r#"{"access_token": "t", "token_type": "Bearer", "expires_in": 3600}"#;
        let router = Router::new()
            .route(
                "/token",
                post(async move || ([("content-type", "application/json")], token)),
            )
            .route("/v1/{signal}", post(keep))
            .with_state(requests.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(axum::serve(listener, router).into_future());
        Self { address, requests }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until `find` returns something for what was received.
    pub async fn when<T>(&self, find: impl Fn(&[Value]) -> Option<T>) -> T {
        for _ in 0..3_000 {
            if let Some(found) = find(&self.requests.lock().unwrap()) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("not received: {:#?}", self.requests.lock().unwrap());
    }

    /// Waits for the groups of `count` forms, and returns them by signal and form.
    pub async fn groups(&self, count: usize) -> [Vec<Value>; 3] {
        self.when(|requests| {
            let groups = sorted(requests);
            groups
                .iter()
                .all(|groups| groups.len() == count)
                .then_some(groups)
        })
        .await
    }
}

/// Returns the groups of all requests by signal, ordered by form.
pub fn sorted(requests: &[Value]) -> [Vec<Value>; 3] {
    SIGNALS.map(|signal| {
        let (first, rest) = signal.trim_end_matches('s').split_at(1);
        let name = match signal {
            "traces" => "resourceSpans".to_owned(),
            _ => format!("resource{}{rest}s", first.to_uppercase()),
        };
        let of_signal = requests.iter().filter_map(|request| request[&name].as_array());
        let mut groups: Vec<Value> = of_signal.flatten().cloned().collect();
        groups.sort_by_key(form);
        groups
    })
}

/// Returns the number of the form of a group.
fn form(group: &Value) -> Option<usize> {
    let mut attributes = group["resource"]["attributes"].as_array()?.iter();
    let number = attributes.find(|attribute| attribute["key"] == FORM)?["value"]["intValue"].as_str()?;
    number.parse().ok()
}

async fn keep(State(requests): State<Requests>, Path(signal): Path<String>, headers: HeaderMap, body: Bytes) {
    let mut bytes = body.to_vec();
    if headers
        .get("content-encoding")
        .is_some_and(|encoding| encoding == "gzip")
    {
        bytes.clear();
        flate2::read::GzDecoder::new(&body[..])
            .read_to_end(&mut bytes)
            .unwrap();
    }
    requests.lock().unwrap().push(json(&signal, &bytes));
}

/// Decodes a request into OTLP JSON.
pub fn json(signal: &str, bytes: &[u8]) -> Value {
    match signal {
        "traces" => serde_json::to_value(ExportTraceServiceRequest::decode(bytes).unwrap()),
        "logs" => serde_json::to_value(ExportLogsServiceRequest::decode(bytes).unwrap()),
        _ => serde_json::to_value(ExportMetricsServiceRequest::decode(bytes).unwrap()),
    }
    .unwrap()
}
