//! An OTLP/HTTP collector that accepts protobuf and JSON, compressed or not, with or without TLS.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{Behaviour, Received};

#[derive(Clone, Debug)]
pub struct Collector {
    pub address: SocketAddr,
    received: Arc<Mutex<Received>>,
    scheme: &'static str,
}

impl Collector {
    pub fn start(behaviour: Behaviour) -> Self {
        Self::listen(behaviour, None)
    }

    pub fn with_tls(tls: ServerConfig) -> Self {
        Self::listen(Behaviour::Accepts, Some(Arc::new(tls)))
    }

    fn listen(behaviour: Behaviour, tls: Option<Arc<ServerConfig>>) -> Self {
        let received = Arc::new(Mutex::new(Received::default()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        if behaviour != Behaviour::Down {
            let store = Arc::clone(&received);
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let (stream, tls, store) = (stream.unwrap(), tls.clone(), Arc::clone(&store));
                    thread::spawn(move || match tls {
                        None => serve(stream, behaviour, &store),
                        Some(tls) => {
                            let connection = ServerConnection::new(tls).unwrap();
                            serve(StreamOwned::new(connection, stream), behaviour, &store);
                        }
                    });
                }
            });
        }
        Self {
            address,
            received,
            scheme,
        }
    }

    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Whether any request was accepted.
    pub fn has_accepted(&self) -> bool {
        !self.received.lock().unwrap().headers.is_empty()
    }

    /// Removes and returns the received telemetry; fails the test on deviations from the registry.
    pub fn take(&self) -> Received {
        self.take_unchecked().checked_against_registry()
    }

    /// Removes and returns the received telemetry without checking it.
    pub fn take_unchecked(&self) -> Received {
        std::mem::take(&mut *self.received.lock().unwrap())
    }
}

fn serve(stream: impl Read + Write, behaviour: Behaviour, store: &Mutex<Received>) {
    let mut reader = BufReader::new(stream);
    while let Some((path, headers)) = head(&mut reader) {
        let mut body = vec![0; headers["content-length"].parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        let seen = {
            let mut received = store.lock().unwrap();
            received.requests += 1;
            let seen = received.seen.entry(path.clone()).or_default();
            *seen += 1;
            *seen - 1
        };
        let failure = match behaviour {
            Behaviour::Fails => Some("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"),
            Behaviour::FailsAtFirst if seen == 0 => Some("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"),
            Behaviour::Scripted(responses) => responses.get(seen).copied(),
            Behaviour::Blackhole => loop {
                thread::park();
            },
            _ => None,
        };
        if failure.is_none() {
            let mut received = store.lock().unwrap();
            if headers.contains_key("content-encoding") {
                received.compressed.push(body.clone());
            }
            let path = path.split('?').next().unwrap();
            let body = protobuf(path, &headers, body);
            received.headers.push(headers);
            received.keep(path, &body);
        }
        let accepted = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        let writer = reader.get_mut();
        if behaviour == Behaviour::Endless {
            write!(writer, "HTTP/1.1 200 OK\r\n\r\n").ok();
            while writer.write_all(&[b'x'; 1024]).is_ok() {}
            return;
        }
        if writer.write_all(failure.unwrap_or(accepted).as_bytes()).is_err() {
            return;
        }
        writer.flush().ok();
        if failure.is_some_and(|response| !response.contains("content-length")) {
            // A response without a length ends with the connection.
            return;
        }
    }
}

/// Reads the path and headers of a request; returns `None` if the connection is closed.
fn head(reader: &mut impl BufRead) -> Option<(String, BTreeMap<String, String>)> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let path = line.split_whitespace().nth(1).unwrap().to_owned();
    let mut headers = BTreeMap::from([(":path".to_owned(), path.clone())]);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => {
                headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
            }
            None => return Some((path, headers)),
        }
    }
}

/// Decompresses a body and converts it to protobuf.
fn protobuf(path: &str, headers: &BTreeMap<String, String>, body: Vec<u8>) -> Vec<u8> {
    let plain = match headers.get("content-encoding").map(String::as_str) {
        None => body,
        Some("gzip") => {
            let mut plain = Vec::new();
            GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
            plain
        }
        Some(other) => panic!("unexpected encoding {other}"),
    };
    match headers["content-type"].as_str() {
        "application/x-protobuf" => plain,
        "application/json" if path.ends_with("traces") => {
            let request: ExportTraceServiceRequest = serde_json::from_slice(&plain).unwrap();
            request.encode_to_vec()
        }
        "application/json" if path.ends_with("metrics") => {
            let request: ExportMetricsServiceRequest = serde_json::from_slice(&plain).unwrap();
            request.encode_to_vec()
        }
        "application/json" if path.ends_with("logs") => {
            let request: ExportLogsServiceRequest = serde_json::from_slice(&plain).unwrap();
            request.encode_to_vec()
        }
        other => panic!("unexpected content type {other}"),
    }
}
