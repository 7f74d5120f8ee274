//! Limits of the number of connections.

use std::time::Duration;

use axum::{
    Extension, Router,
    routing::{get, post},
};
use bounded_server::{ReservedConnection, Server};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{GET, GET_LATE, PATIENCE, Running, closed, exchange, hello, late, response};

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_request_to_finish() {
    let (router, mut arrivals, respond) = late();
    let running = Running::start(Server::new().max_connections(2), router).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        open.push(running.send(GET_LATE).await);
        arrivals.recv().await.unwrap();
    }
    let mut waiting = running.send(GET).await;
    // The absence of a response can be observed only by waiting; a slow machine cannot make this fail.
    let early = timeout(Duration::from_millis(200), waiting.readable()).await;
    assert!(early.is_err(), "served beyond the limit");
    respond.cancel();
    assert_eq!(response(&mut waiting).await.1, "hello");
}

#[tokio::test]
async fn at_the_limit_the_connection_that_waits_longest_is_replaced() {
    let running = Running::start(Server::new().max_connections(3), hello()).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = running.connect().await;
        exchange(&mut stream, GET).await;
        open.push(stream);
        // The server records when each connection was last active in milliseconds.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The first is now the last to have been active.
    exchange(&mut open[0], GET).await;
    let (_, body) = exchange(&mut running.connect().await, GET).await;
    assert_eq!(body, "hello");
    assert!(closed(&mut open[1]).await.is_empty());
    exchange(&mut open[0], GET).await;
    exchange(&mut open[2], GET).await;
}

#[tokio::test]
async fn clients_without_a_request_do_not_keep_out_others() {
    let running = Running::start(Server::new().max_connections(20), hello()).await;
    let mut half = Vec::new();
    for _ in 0..100 {
        let mut stream = running.connect().await;
        // Fails if the server has already replaced the connection.
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ").await;
        half.push(stream);
    }
    let (_, body) = exchange(&mut running.connect().await, GET).await;
    assert_eq!(body, "hello");
}

#[tokio::test]
async fn clients_that_do_not_finish_a_body_do_not_keep_out_others() {
    let echo = Router::new().route("/echo", post(|body: String| async { body }));
    let running = Running::start(Server::new().max_connections(20), echo.merge(hello())).await;
    let mut half = Vec::new();
    for framing in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        for _ in 0..50 {
            let mut stream = running.connect().await;
            let head = format!("POST /echo HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n5\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            half.push(stream);
        }
    }
    let (_, body) = exchange(&mut running.connect().await, GET).await;
    assert_eq!(body, "hello");
}

#[tokio::test]
async fn silent_clients_do_not_delay_others() {
    let running = Running::start(Server::new().max_connections(20), hello()).await;
    let mut attackers = JoinSet::new();
    for _ in 0..60 {
        let address = running.address;
        attackers.spawn(async move {
            loop {
                if let Ok(mut stream) = TcpStream::connect(address).await {
                    let _closed = stream.read_u8().await;
                }
            }
        });
    }
    // Time for the attackers to fill the backlog.
    tokio::time::sleep(Duration::from_millis(500)).await;
    for _ in 0..3 {
        let start = Instant::now();
        let (_, body) = exchange(&mut running.connect().await, GET).await;
        assert_eq!(body, "hello");
        assert!(
            start.elapsed() < Duration::from_millis(1500),
            "{:?}",
            start.elapsed()
        );
    }
}

#[tokio::test]
async fn one_address_cannot_use_all_connections_unless_it_is_a_proxy() {
    for is_proxy in [false, true] {
        let (router, mut arrivals, _respond) = late();
        let server = Server::new()
            .max_connections(10)
            .max_connections_per_address(2, move |_| is_proxy);
        let running = Running::start(server, router).await;
        let mut open = Vec::new();
        for _ in 0..2 {
            open.push(running.send(GET_LATE).await);
            arrivals.recv().await.unwrap();
        }
        let mut third = running.connect().await;
        // Fails if the server has already closed the connection.
        let _ = third.write_all(GET_LATE).await;
        if is_proxy {
            timeout(PATIENCE, arrivals.recv()).await.unwrap().unwrap();
        } else {
            assert!(closed(&mut third).await.is_empty());
        }
    }
}

/// Other systems do not have the address 127.0.0.2.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn silent_connections_of_an_address_at_its_limit_do_not_delay_others() {
    let server = Server::new().max_connections_per_address(20, |_| false);
    let running = Running::start(server, hello()).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(running.connect().await);
    }
    let start = Instant::now();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(running.address).await.unwrap();
    assert_eq!(exchange(&mut other, GET).await.1, "hello");
    assert_eq!(
        exchange(&mut running.connect().await, GET).await.1,
        "hello",
        "the same address"
    );
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

/// The server may accept a connection before it finds out that the client has closed another one.
#[tokio::test]
async fn a_client_may_reconnect_at_its_limit() {
    let server = Server::new().max_connections_per_address(8, |_| false);
    let running = Running::start(server, hello()).await;
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let address = running.address;
        clients.spawn(async move {
            for _ in 0..50 {
                let mut stream = TcpStream::connect(address).await.unwrap();
                assert_eq!(exchange(&mut stream, GET).await.1, "hello");
            }
        });
    }
    clients.join_all().await;
}

#[tokio::test]
async fn connections_are_reserved_for_health_probes() {
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let handler = move |reserved: Option<Extension<ReservedConnection>>| async move {
        if reserved.is_some() {
            return "reserved";
        }
        arrived.send(()).unwrap();
        std::future::pending().await
    };
    let server = Server::new().max_connections(4).reserved_connections(2);
    let running = Running::start(server, Router::new().route("/", get(handler))).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        open.push(running.send(GET).await);
        arrivals.recv().await.unwrap();
    }
    for _ in 0..5 {
        let mut probe = running.connect().await;
        assert_eq!(exchange(&mut probe, GET).await.1, "reserved");
        open.push(probe);
    }
}
