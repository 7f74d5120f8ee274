//! Requests, responses and listeners.

use axum::{Extension, Router, http::StatusCode, routing::get};
use bounded_server::{PeerAddress, Server};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    time::timeout,
};

use super::{GET, PATIENCE, Running, closed, exchange, hello, response};

#[tokio::test]
async fn requests_have_the_address_of_their_client() {
    let handler = |Extension(PeerAddress(peer)): Extension<PeerAddress>| async move { peer.to_string() };
    let running = Running::start(Server::new(), Router::new().route("/", get(handler))).await;
    let mut stream = running.connect().await;
    let (_, body) = exchange(&mut stream, GET).await;
    assert_eq!(body, stream.local_addr().unwrap().to_string());
}

#[tokio::test]
async fn a_response_before_the_end_of_the_request_reaches_the_client() {
    let running = Running::start(Server::new(), hello()).await;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        4 << 20
    );
    let mut request = head.into_bytes();
    request.resize(4 << 20, b'x');
    let mut stream = running.send(&request).await;
    let (head, _) = response(&mut stream).await;
    assert!(head.starts_with("http/1.1 405"), "{head}");
    closed(&mut stream).await;
}

/// In a 304 response, Content-Length would have to be that of the 200 response, which the server does not know.
#[tokio::test]
async fn a_not_modified_response_has_no_content_length() {
    let router = Router::new().route("/", get(|| async { StatusCode::NOT_MODIFIED }));
    let running = Running::start(Server::new(), router).await;
    let mut stream = running.connect().await;
    for method in ["HEAD", "GET", "HEAD"] {
        let request = format!("{method} / HTTP/1.1\r\nHost: x\r\n\r\n");
        let (head, _) = exchange(&mut stream, request.as_bytes()).await;
        assert!(head.starts_with("http/1.1 304"), "{head}");
        for field in ["content-length", "transfer-encoding"] {
            assert!(!head.contains(field), "{method}: {head}");
        }
    }
}

#[tokio::test]
async fn a_server_accepts_from_several_listeners() {
    let mut listeners = Vec::new();
    for _ in 0..3 {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let addresses: Vec<_> = listeners
        .iter()
        .map(|listener| listener.local_addr().unwrap())
        .collect();
    tokio::spawn(Server::new().serve(listeners, hello(), std::future::pending()));
    for address in addresses {
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert_eq!(exchange(&mut stream, GET).await.1, "hello");
    }
}

#[tokio::test]
async fn connections_are_divided_among_runtimes() {
    let runtimes = ["one", "two"].map(|name| {
        let mut runtime = Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).thread_name(name).enable_all();
        runtime.build().unwrap()
    });
    let thread = || async { std::thread::current().name().unwrap_or_default().to_owned() };
    let handles = runtimes.each_ref().map(|runtime| runtime.handle().clone());
    let running = Running::start(
        Server::new().serve_on(handles),
        Router::new().route("/", get(thread)),
    )
    .await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut stream = running.connect().await;
        let thread = exchange(&mut stream, GET).await.1;
        assert_eq!(
            exchange(&mut stream, GET).await.1,
            thread,
            "a connection stays on its runtime"
        );
        open.push((thread, stream));
    }
    open.sort_by(|(one, _), (other, _)| one.cmp(other));
    let threads: Vec<_> = open.iter().map(|(thread, _)| thread.as_str()).collect();
    assert_eq!(threads, ["one", "one", "two", "two"]);

    // The runtime whose connections were closed gets the next ones, once it has noticed.
    open.truncate(2);
    let first = timeout(PATIENCE, async {
        loop {
            let mut stream = running.connect().await;
            if exchange(&mut stream, GET).await.1 == "two" {
                return stream;
            }
        }
    });
    let _first = first.await.unwrap();
    assert_eq!(exchange(&mut running.connect().await, GET).await.1, "two");
    running.stop().await.unwrap();
    runtimes.into_iter().for_each(Runtime::shutdown_background);
}
