//! HTTP/2 by prior knowledge.

use bounded_server::{CancellationToken, Server};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::timeout;

use super::{PATIENCE, Running, hello};

#[tokio::test]
async fn http2_is_served_by_prior_knowledge_and_without_connection_headers() {
    let draining = CancellationToken::new();
    draining.cancel();
    let running = Running::start(Server::http2().drain_on(draining), hello()).await;
    let io = TokioIo::new(running.connect().await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get(format!("http://{}/", running.address));
    let sent = sender.send_request(request.body(Empty::<&[u8]>::new()).unwrap());
    let response = timeout(PATIENCE, sent).await.unwrap().unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    assert!(!response.headers().contains_key("connection"));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "hello");

    assert_eq!(running.stop().await, Ok(()));
    timeout(PATIENCE, connection).await.unwrap().unwrap().unwrap();
}
