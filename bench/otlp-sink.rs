//! Receives OTLP over HTTP, counts the spans and discards everything. It decodes only length prefixes, so
//! that it takes little processor time on the machine under test, and needs only the standard library:
//! `rustc --edition 2024 -O bench/otlp-sink.rs`.
//!
//! `otlp-sink <port> <file>` listens on loopback and writes the number of spans into the file when it has
//! changed, at most four times a second.

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

static SPANS: AtomicU64 = AtomicU64::new(0);

/// Upper limit for a request body, above the size of any batch.
const LARGEST_BODY: usize = 64 << 20;

fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1);
    let (Some(port), Some(file)) = (arguments.next(), arguments.next()) else {
        return Err(io::Error::other("usage: otlp-sink <port> <file>"));
    };
    let listener = TcpListener::bind(format!("127.0.0.1:{port}"))?;
    fs::write(&file, "0")?;
    thread::spawn(move || write_count(&file));
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || {
            if let Err(error) = serve(&stream) {
                eprintln!("otlp-sink: {error}");
            }
        });
    }
    Ok(())
}

fn write_count(file: &str) {
    let mut written = 0;
    loop {
        // Often enough for a script that reads the file, and rarely enough not to disturb the measurement.
        thread::sleep(Duration::from_millis(250));
        let spans = SPANS.load(Ordering::Relaxed);
        if spans != written && fs::write(file, spans.to_string()).is_ok() {
            written = spans;
        }
    }
}

/// Serves requests on a connection until the client closes it.
fn serve(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // Buffers the head of a request; the part of the body that was read with it is copied out.
    let mut reader = BufReader::with_capacity(4 << 10, stream);
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let traces = line.contains(" /v1/traces ");
        let mut length = 0;
        loop {
            line.clear();
            if reader.read_line(&mut line)? <= 2 {
                break;
            }
            let header = line.to_ascii_lowercase();
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(io::Error::other)?;
            } else if header.starts_with("transfer-encoding:") || header.starts_with("content-encoding:") {
                return Err(io::Error::other(
                    "chunked and compressed bodies are not supported",
                ));
            }
        }
        if length > LARGEST_BODY {
            return Err(io::Error::other("the body is too large"));
        }
        body.resize(length, 0);
        reader.read_exact(&mut body)?;
        if traces {
            let spans = count_spans(&body).ok_or_else(|| io::Error::other("not protobuf"))?;
            SPANS.fetch_add(spans, Ordering::Relaxed);
        }
        // An empty message means that everything was accepted.
        (&*stream).write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n",
        )?;
    }
}

/// Counts the spans in an `ExportTraceServiceRequest`: `resource_spans` is field 1, `scope_spans` and `spans`
/// are fields 2 of the nested messages.
fn count_spans(request: &[u8]) -> Option<u64> {
    let mut spans = 0;
    each(request, 1, &mut |resource_spans| {
        each(resource_spans, 2, &mut |scope_spans| {
            each(scope_spans, 2, &mut |_span| {
                spans += 1;
                Some(())
            })
        })
    })?;
    Some(spans)
}

/// Calls `visit` with each occurrence of a field. All fields on the path are length-delimited (wire type
/// 2); returns `None` when one is not, or when the message is truncated.
fn each(mut message: &[u8], wanted: u64, visit: &mut dyn FnMut(&[u8]) -> Option<()>) -> Option<()> {
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        if tag & 7 != 2 {
            return None;
        }
        let length = usize::try_from(varint(&mut message)?).ok()?;
        let (field, rest) = message.split_at_checked(length)?;
        if tag >> 3 == wanted {
            visit(field)?;
        }
        message = rest;
    }
    Some(())
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
