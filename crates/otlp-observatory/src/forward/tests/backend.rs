//! The server: answers in the order they were told, then 200 to everything, and remembers what it was asked.

use std::{
    collections::{BTreeSet, VecDeque},
    io::Read as _,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Instant,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use tokio::{net::TcpListener, task::JoinHandle};
use url::Url;

/// What is answered: a status, headers and a body.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// An access token that is good for so many seconds.
    pub(super) fn token(token: &str, seconds: u64) -> Self {
        let body = format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":{seconds}}}"#);
        Self::status(200)
            .header("content-type", "application/json")
            .body(body)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    /// As it came.
    pub(super) body: Bytes,
    pub(super) at: Instant,
    pub(super) status: u16,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The body, unpacked.
    pub(super) fn request(&self) -> Vec<u8> {
        let mut request = Vec::new();
        GzDecoder::new(&self.body[..]).read_to_end(&mut request).unwrap();
        request
    }

    pub(super) fn spans(&self) -> Vec<u64> {
        let request = ExportTraceServiceRequest::decode(&self.request()[..]).unwrap();
        let groups = request.resource_spans.into_iter();
        let scopes = groups.flat_map(|group| group.scope_spans);
        let spans = scopes.flat_map(|scope| scope.spans);
        spans
            .map(|span| u64::from_be_bytes(span.span_id.try_into().unwrap()))
            .collect()
    }
}

/// The status that a request with these spans is answered with, if it is to be a certain one.
type Judge = fn(&[u64]) -> Option<u16>;

#[derive(Debug, Default)]
struct Memory {
    /// The next answers to `/token`, and to everything else.
    tokens: VecDeque<Answer>,
    answers: VecDeque<Answer>,
    /// Decides about requests to `/v1/traces` with these spans, before any answer that was told.
    judge: Option<Judge>,
    asked: Vec<Asked>,
}

#[derive(Debug)]
pub(super) struct Backend {
    address: SocketAddr,
    memory: Arc<Mutex<Memory>>,
    server: Option<JoinHandle<()>>,
}

impl Backend {
    pub(super) async fn start() -> Self {
        let mut backend = Self::down().await;
        backend.up().await;
        backend
    }

    /// One that is not there yet: its port refuses.
    pub(super) async fn down() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            memory: Arc::default(),
            server: None,
        }
    }

    pub(super) async fn up(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        let router = Router::new().fallback(answer).with_state(self.memory.clone());
        self.server = Some(tokio::spawn(async move {
            axum::serve(listener, router).await.unwrap();
        }));
    }

    /// Takes no new connection any more.
    pub(super) async fn go_down(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            let _ = server.await;
        }
    }

    pub(super) fn url(&self, path: &str) -> Url {
        format!("http://{}{path}", self.address).parse().unwrap()
    }

    pub(super) fn then(&self, answer: Answer) {
        self.memory().answers.push_back(answer);
    }

    pub(super) fn then_token(&self, answer: Answer) {
        self.memory().tokens.push_back(answer);
    }

    pub(super) fn judge(&self, judge: Judge) {
        self.memory().judge = Some(judge);
    }

    /// Requests to `path`, oldest first.
    pub(super) fn asked(&self, path: &str) -> Vec<Asked> {
        let memory = self.memory();
        memory
            .asked
            .iter()
            .filter(|asked| asked.path == path)
            .cloned()
            .collect()
    }

    /// The spans of the requests that were answered with 200.
    pub(super) fn accepted(&self) -> BTreeSet<u64> {
        let asked = self.asked("/v1/traces");
        asked
            .iter()
            .filter(|asked| asked.status == 200)
            .flat_map(Asked::spans)
            .collect()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

async fn answer(State(memory): State<Arc<Mutex<Memory>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut memory = memory.lock().unwrap();
    let path = parts.uri.path().to_owned();
    let mut asked = Asked {
        path,
        headers: parts.headers,
        body,
        at: Instant::now(),
        status: 200,
    };
    let answer = if asked.path == "/token" {
        let token = || Answer::token("token", 3600);
        memory.tokens.pop_front().unwrap_or_else(token)
    } else {
        let judge = memory.judge.filter(|_| asked.path == "/v1/traces");
        let judged = judge.and_then(|judge| judge(&asked.spans()));
        let told = || memory.answers.pop_front().unwrap_or(Answer::status(200));
        judged.map_or_else(told, Answer::status)
    };
    asked.status = answer.status;
    memory.asked.push(asked);
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap();
    for (name, value) in answer.headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}
