//! An HTTP client that sends given bytes, for exact and for malformed requests.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Maximum time until a response is complete.
const TIMEOUT: Duration = Duration::from_secs(20);

/// An HTTP response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// Returns the value of a header field; `name` may have any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (header, value) = line.split_once(':')?;
            header.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Sends `request` unchanged on a new connection.
pub async fn send(address: SocketAddr, request: &[u8]) -> Response {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The server may respond and close the connection before it has read the whole request.
        let _ = stream.write_all(request).await;
        read_response(&mut stream, request.starts_with(b"HEAD ")).await
    };
    tokio::time::timeout(TIMEOUT, exchange)
        .await
        .unwrap_or_else(|_| panic!("no response to {}", String::from_utf8_lossy(request)))
}

/// Sends a well-formed request.
pub async fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    token: Option<&str>,
    body: Option<&Value>,
) -> Response {
    request_with(address, method, target, token, &[], body).await
}

/// Sends a well-formed request with further header fields.
pub async fn request_with(
    address: SocketAddr,
    method: &str,
    target: &str,
    token: Option<&str>,
    fields: &[(&str, &str)],
    body: Option<&Value>,
) -> Response {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    if let Some(token) = token {
        text.push_str(&format!("Authorization: Bearer {token}\r\n"));
    }
    for (name, value) in fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let body = body.map(Value::to_string).unwrap_or_default();
    if !body.is_empty() {
        text.push_str(&format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        ));
    }
    send(address, format!("{text}\r\n{body}").as_bytes()).await
}

/// Registers an account and returns its token.
pub async fn register(address: SocketAddr, email: &str) -> String {
    let body = json!({"email": email, "password": "password123", "name": "Test"});
    let response = request(address, "POST", "/api/register", None, Some(&body)).await;
    assert_eq!(
        response.status,
        201,
        "{}",
        String::from_utf8_lossy(&response.body)
    );
    response.json()["token"]["access_token"]
        .as_str()
        .unwrap()
        .to_owned()
}

pub async fn read_response(stream: &mut TcpStream, head_only: bool) -> Response {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        assert_ne!(
            stream.read_buf(&mut bytes).await.unwrap_or(0),
            0,
            "the connection was closed before the end of the head: {bytes:?}"
        );
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let mut response = Response {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head,
        body: bytes[head_end..].to_vec(),
    };
    let length = response
        .header("content-length")
        .map_or(0, |length| length.parse().unwrap());
    while !head_only && response.body.len() < length {
        assert_ne!(
            stream.read_buf(&mut response.body).await.unwrap_or(0),
            0,
            "the connection was closed before the end of the body"
        );
    }
    response
}
