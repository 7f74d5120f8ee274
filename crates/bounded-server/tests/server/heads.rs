//! Request heads: which ones are rejected, and how.

use axum::{
    Router,
    body::{Body, Bytes},
    http::{Method, Request, Uri},
};
use bounded_server::{InvalidRequest, Server};
use http_body_util::BodyExt as _;
use tokio::io::AsyncWriteExt as _;

use super::{Running, closed, hello, response};

const LOGIN: &str =
    "POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n";

const AMBIGUOUS: &str =
    "POST /ambiguous HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";

/// A request whose body looks like an ambiguous head.
const QUOTE: &str = "PUT /quote HTTP/1.1\r\nHost: x\r\nContent-Length: 84\r\n\r\n\
    POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: a\r\nHost: b\r\n\r\n";

/// Returns a router that responds with the method, the target, the verdict, and the length of the body.
fn echo() -> Router {
    let handler = |method: Method, uri: Uri, request: Request<Body>| async move {
        let invalid = request.extensions().get::<InvalidRequest>().copied();
        let body: Result<Bytes, _> = request.into_body().collect().await.map(|body| body.to_bytes());
        let body = body.map_or_else(|_| "failed".to_owned(), |body| body.len().to_string());
        let verdict = invalid.map_or("valid".to_owned(), |invalid| invalid.status().as_str().to_owned());
        format!("[{method} {uri} {verdict} {body}]")
    };
    Router::new().fallback(handler)
}

/// Sends the pieces one by one, and returns the bodies of all responses once the server closes the connection.
async fn verdicts(running: &Running, pieces: &[&[u8]]) -> String {
    let mut stream = running.connect().await;
    stream.set_nodelay(true).unwrap();
    for piece in pieces {
        stream.write_all(piece).await.unwrap();
        // Lets the server, which runs on the same thread, read the piece before the next one.
        tokio::task::yield_now().await;
    }
    let text = String::from_utf8(closed(&mut stream).await).unwrap();
    let bodies = text.split('[').skip(1);
    bodies
        .map(|body| format!("[{}]", body.split(']').next().unwrap()))
        .collect()
}

#[tokio::test]
async fn a_verdict_applies_to_its_request_wherever_the_bytes_are_split() {
    let server = Server::new().pass_invalid_requests(true);
    let running = Running::start(server, echo()).await;
    let bytes = [LOGIN, QUOTE, LOGIN, AMBIGUOUS, LOGIN].concat();
    let expected = "[POST /login valid 3][PUT /quote valid 84][POST /login valid 3][POST /ambiguous 400 0]";
    assert_eq!(verdicts(&running, &[bytes.as_bytes()]).await, expected);
    let single: Vec<_> = bytes.as_bytes().chunks(1).collect();
    assert_eq!(verdicts(&running, &single).await, expected);
    for split in 1..bytes.len() {
        let (before, after) = bytes.as_bytes().split_at(split);
        assert_eq!(verdicts(&running, &[before, after]).await, expected, "{split}");
    }
}

#[tokio::test]
async fn an_invalid_request_is_passed_to_the_service_or_gets_its_status() {
    let requests = [
        ("GET /x?<b> HTTP/1.1\r\nHost: x\r\n\r\n", "400", "GET /"),
        ("GET /x HTTP/1.1\r\n\r\n", "400", "GET /x"),
        (
            "DELETE /x HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
            "400",
            "DELETE /x",
        ),
        ("CONNECT x:1 HTTP/1.1\r\nHost: x y\r\n\r\n", "400", "GET x:1"),
        (
            "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "501",
            "POST /x",
        ),
        (
            "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "413",
            "POST /x",
        ),
        ("\x16\x03\x01", "400", "GET /"),
    ];
    let passing = Running::start(Server::new().pass_invalid_requests(true), echo()).await;
    let responding = Running::start(Server::new(), echo()).await;
    for (request, status, seen) in requests {
        let expected = format!("[{seen} {status} 0]");
        assert_eq!(
            verdicts(&passing, &[request.as_bytes()]).await,
            expected,
            "{request:?}"
        );
        let mut stream = responding.send(request.as_bytes()).await;
        let (head, body) = response(&mut stream).await;
        assert!(
            head.starts_with(&format!("http/1.1 {status}")),
            "{request:?}: {head}"
        );
        assert!(head.contains("connection: close"), "{head}");
        assert_eq!(body, "");
        assert!(closed(&mut stream).await.is_empty());
    }
}

#[tokio::test]
async fn malformed_chunks_end_the_connection() {
    let running = Running::start(Server::new().pass_invalid_requests(true), echo()).await;
    let head = "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let bytes = format!("{head}3\nabc\r\n0\r\n\r\n{LOGIN}");
    assert_eq!(
        verdicts(&running, &[bytes.as_bytes()]).await,
        "[POST /x valid failed]"
    );
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_rejected() {
    let running = Running::start(Server::new().max_head_bytes(10_000), hello()).await;
    let field = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n",
        "x".repeat(20_000)
    );
    let target = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(20_000));
    for (request, status) in [(field, "431"), (target, "414")] {
        let mut stream = running.send(request.as_bytes()).await;
        let (head, _) = response(&mut stream).await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{head}");
    }
}

/// hyper must not reject a head that the server has accepted, because hyper's response would be empty.
#[tokio::test]
async fn every_combination_of_framing_fields_reaches_the_service() {
    let fields = [
        "",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: CHUNKED\t\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding:\r\n",
        "Content-Length: 0\r\n",
        "Content-Length: 00\r\n",
        "Content-Length:\r\n",
        "Content-Length: 0,0\r\n",
        "Expect: 100-continue\r\n",
        "Connection: close, upgrade\r\n",
        "Upgrade: h2c\r\n",
    ];
    let running = Running::start(Server::new().pass_invalid_requests(true), echo()).await;
    for first in fields {
        for second in fields {
            for version in ["1.0", "1.1"] {
                let head = format!("POST /x HTTP/{version}\r\nHost: x\r\n{first}{second}\r\n");
                let mut stream = running.connect().await;
                stream.write_all(head.as_bytes()).await.unwrap();
                // Ends a chunked body; otherwise, the server reads it as the start of the next request.
                stream.write_all(b"0\r\n\r\n").await.unwrap();
                stream.shutdown().await.unwrap();
                let text = String::from_utf8(closed(&mut stream).await).unwrap();
                assert!(text.contains("[POST /x "), "{head:?}: {text:?}");
            }
        }
    }
}
