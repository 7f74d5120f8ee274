//! A webhook receiver that stores all requests and answers the first with 503.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use http_body_util::{BodyExt as _, Empty};
use hyper::{HeaderMap, Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// A received request.
#[derive(Debug, Clone)]
pub struct Received {
    pub headers: HeaderMap,
    pub body: String,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

/// A running receiver, stopped with the test's runtime.
pub struct Webhook {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Webhook {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let webhook = Self {
            address: listener.local_addr().unwrap(),
            received: Arc::default(),
        };
        let received = webhook.received.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let received = received.clone();
                let service = service_fn(move |request| receive(request, received.clone()));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        webhook
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook?key=hunter2", self.address)
    }

    /// Returns all requests, including the first, which received 503.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

async fn receive(
    request: Request<Incoming>,
    received: Arc<Mutex<Vec<Received>>>,
) -> Result<Response<Empty<&'static [u8]>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut received = received.lock().unwrap();
    received.push(Received {
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    });
    let status = if received.len() == 1 { 503 } else { 204 };
    Ok(Response::builder().status(status).body(Empty::new()).unwrap())
}
