//! Draining, shutdown and its grace period.

use std::time::Duration;

use bounded_server::{CancellationToken, Server};
use tokio::net::TcpStream;

use super::{GET, GET_LATE, Running, closed, exchange, hello, late, response};

#[tokio::test]
async fn while_draining_every_response_closes_its_connection() {
    let draining = CancellationToken::new();
    let running = Running::start(Server::new().drain_on(draining.clone()), hello()).await;
    let mut before = running.connect().await;
    let (head, _) = exchange(&mut before, GET).await;
    assert!(!head.contains("connection:"), "{head}");
    draining.cancel();
    for mut stream in [before, running.connect().await] {
        let (head, body) = exchange(&mut stream, GET).await;
        assert_eq!(body, "hello");
        assert!(head.contains("connection: close"), "{head}");
        assert!(closed(&mut stream).await.is_empty());
    }
}

#[tokio::test]
async fn shutdown_finishes_requests_in_progress_and_closes_idle_connections() {
    let (router, mut arrivals, respond) = late();
    let running = Running::start(Server::new(), router).await;
    let mut idle = running.connect().await;
    exchange(&mut idle, GET).await;
    let mut busy = running.send(GET_LATE).await;
    arrivals.recv().await.unwrap();

    running.shutdown.cancel();
    assert!(closed(&mut idle).await.is_empty());
    assert!(
        TcpStream::connect(running.address).await.is_err(),
        "still listening"
    );
    respond.cancel();
    assert_eq!(response(&mut busy).await.1, "late");
    assert_eq!(running.stop().await, Ok(()));
}

#[tokio::test]
async fn requests_beyond_the_grace_period_are_aborted() {
    let (router, mut arrivals, _respond) = late();
    let server = Server::new().grace_period(Duration::from_millis(50));
    let running = Running::start(server, router).await;
    let mut stream = running.send(GET_LATE).await;
    arrivals.recv().await.unwrap();
    assert!(running.stop().await.is_err());
    assert!(closed(&mut stream).await.is_empty());
}

#[tokio::test]
async fn dropping_the_future_closes_every_connection() {
    let (router, mut arrivals, _respond) = late();
    let running = Running::start(Server::new(), router).await;
    let mut stream = running.send(GET_LATE).await;
    arrivals.recv().await.unwrap();
    running.served.abort();
    assert!(closed(&mut stream).await.is_empty());
}
