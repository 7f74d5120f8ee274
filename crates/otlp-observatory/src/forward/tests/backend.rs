//! An HTTP server that sends the scripted replies in order, then 200 to every request, and keeps the requests.

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

/// A reply of the server.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Bytes,
}

impl Reply {
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

    /// Returns an access token that expires after `seconds`.
    pub(super) fn token(token: &str, seconds: u64) -> Self {
        let body = format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":{seconds}}}"#);
        Self::status(200)
            .header("content-type", "application/json")
            .body(body)
    }
}

/// A request that the server received.
#[derive(Clone, Debug)]
pub(super) struct ReceivedRequest {
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    /// Body as received, compressed.
    pub(super) body: Bytes,
    pub(super) at: Instant,
    /// Status of the reply.
    pub(super) status: u16,
}

impl ReceivedRequest {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Decompresses the body.
    pub(super) fn decompressed(&self) -> Vec<u8> {
        let mut request = Vec::new();
        GzDecoder::new(&self.body[..]).read_to_end(&mut request).unwrap();
        request
    }

    /// Returns the ids of the spans.
    pub(super) fn spans(&self) -> Vec<u64> {
        let request = ExportTraceServiceRequest::decode(&self.decompressed()[..]).unwrap();
        let groups = request.resource_spans.into_iter();
        let scopes = groups.flat_map(|group| group.scope_spans);
        let spans = scopes.flat_map(|scope| scope.spans);
        spans
            .map(|span| u64::from_be_bytes(span.span_id.try_into().unwrap()))
            .collect()
    }
}

/// Returns the status for a request with these spans, or `None` for the next scripted reply.
type Decide = fn(&[u64]) -> Option<u16>;

#[derive(Debug, Default)]
struct Script {
    /// Next replies to `/token`, and to every other path.
    tokens: VecDeque<Reply>,
    replies: VecDeque<Reply>,
    /// Takes precedence over the scripted replies for requests to `/v1/traces`.
    decide: Option<Decide>,
    requests: Vec<ReceivedRequest>,
}

#[derive(Debug)]
pub(super) struct Backend {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    server: Option<JoinHandle<()>>,
}

impl Backend {
    pub(super) async fn start() -> Self {
        let mut backend = Self::down().await;
        backend.up().await;
        backend
    }

    /// Returns a backend that is not running: its port refuses connections.
    pub(super) async fn down() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            script: Arc::default(),
            server: None,
        }
    }

    pub(super) async fn up(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        let router = Router::new().fallback(respond).with_state(self.script.clone());
        self.server = Some(tokio::spawn(async move {
            axum::serve(listener, router).await.unwrap();
        }));
    }

    /// Stops accepting connections.
    pub(super) async fn go_down(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            let _ = server.await;
        }
    }

    pub(super) fn url(&self, path: &str) -> Url {
        format!("http://{}{path}", self.address).parse().unwrap()
    }

    pub(super) fn reply(&self, reply: Reply) {
        self.script().replies.push_back(reply);
    }

    pub(super) fn reply_to_token_request(&self, reply: Reply) {
        self.script().tokens.push_back(reply);
    }

    pub(super) fn decide(&self, decide: Decide) {
        self.script().decide = Some(decide);
    }

    /// Returns the requests to `path`, oldest first.
    pub(super) fn requests_to(&self, path: &str) -> Vec<ReceivedRequest> {
        let script = self.script();
        script
            .requests
            .iter()
            .filter(|request| request.path == path)
            .cloned()
            .collect()
    }

    /// Returns the spans of the requests that received 200.
    pub(super) fn accepted(&self) -> BTreeSet<u64> {
        let requests = self.requests_to("/v1/traces");
        requests
            .iter()
            .filter(|request| request.status == 200)
            .flat_map(ReceivedRequest::spans)
            .collect()
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

async fn respond(State(script): State<Arc<Mutex<Script>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut script = script.lock().unwrap();
    let path = parts.uri.path().to_owned();
    let mut request = ReceivedRequest {
        path,
        headers: parts.headers,
        body,
        at: Instant::now(),
        status: 200,
    };
    let reply = if request.path == "/token" {
        let token = || Reply::token("token", 3600);
        script.tokens.pop_front().unwrap_or_else(token)
    } else {
        let decide = script.decide.filter(|_| request.path == "/v1/traces");
        let decided = decide.and_then(|decide| decide(&request.spans()));
        let scripted = || script.replies.pop_front().unwrap_or(Reply::status(200));
        decided.map_or_else(scripted, Reply::status)
    };
    request.status = reply.status;
    script.requests.push(request);
    let mut response = Response::new(Body::from(reply.body));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap();
    for (name, value) in reply.headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}
