//! Receives OTLP over HTTP in a separate process and counts spans; a pipe transfers the counts.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use prost::Message;

use crate::Result;

/// A running receiver.
pub struct Receiver {
    process: Child,
    reports: BufReader<ChildStdout>,
    endpoint: String,
    received: Received,
}

/// Totals of the accepted requests.
#[derive(Clone, Copy, Default)]
pub struct Received {
    pub spans: u64,
    /// Bytes of the request bodies.
    pub bytes: u64,
}

impl Receiver {
    pub fn start() -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("receive")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut reports = BufReader::new(process.stdout.take().ok_or("the receiver has no output")?);
        let mut address = String::new();
        reports.read_line(&mut address)?;
        Ok(Self {
            process,
            reports,
            endpoint: format!("http://{}", address.trim()),
            received: Received::default(),
        })
    }

    /// Returns the base URL, to which `/v1/traces` is appended.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Blocks until `spans` spans have been received in total.
    pub fn wait_for_spans(&mut self, spans: u64) -> Result {
        while self.received.spans < spans {
            if !self.read_report()? {
                return Err(format!("the receiver ended after {} spans", self.received.spans).into());
            }
        }
        Ok(())
    }

    /// Stops the receiver and returns the totals.
    pub fn finish(mut self) -> Result<Received> {
        drop(self.process.stdin.take());
        while self.read_report()? {}
        self.process.wait()?;
        Ok(self.received)
    }

    /// Reads the report about one request; returns false at the end.
    fn read_report(&mut self) -> Result<bool> {
        let mut line = String::new();
        if self.reports.read_line(&mut line)? == 0 {
            return Ok(false);
        }
        let (spans, bytes) = line.trim().split_once(' ').ok_or("the receiver sent no report")?;
        self.received.spans += spans.parse::<u64>()?;
        self.received.bytes += bytes.parse::<u64>()?;
        Ok(true)
    }
}

/// Binds to the address in `RECEIVER`, or to a free port. Writes the address, then a line with the spans and bytes of each request, until standard input ends.
pub fn receive() -> Result {
    let address = std::env::var("RECEIVER").unwrap_or("127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(address)?;
    writeln!(io::stdout(), "{}", listener.local_addr()?)?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                if let Err(error) = serve(&stream) {
                    let _ = writeln!(io::stderr(), "receiver: {error}");
                    std::process::exit(1);
                }
            });
        }
    });
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

/// Serves the requests of a connection.
fn serve(stream: &TcpStream) -> Result {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut body = Vec::new();
        while line.trim() != "" {
            line.clear();
            reader.read_line(&mut line)?;
            if let Some(length) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                body.resize(length.trim().parse()?, 0);
            }
        }
        reader.read_exact(&mut body)?;
        // Metrics of otel-service are not counted.
        let spans = if path == "/v1/traces" {
            checked_spans(&body)?
        } else {
            0
        };
        // An empty message means that everything was accepted.
        (&*stream).write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n",
        )?;
        writeln!(io::stdout(), "{spans} {}", body.len())?;
    }
}

/// Returns the number of spans; fails on a span with other attributes or parents than the variants record.
fn checked_spans(body: &[u8]) -> Result<usize> {
    let request = ExportTraceServiceRequest::decode(body)?;
    let mut count = 0;
    for scope in request.resource_spans.iter().flat_map(|spans| &spans.scope_spans) {
        for span in &scope.spans {
            if !is_complete(span) {
                return Err(format!("unexpected span: {span:?}").into());
            }
            count += 1;
        }
    }
    Ok(count)
}

fn is_complete(span: &Span) -> bool {
    let (attributes, is_child) = match span.kind() {
        SpanKind::Server => (10, false),
        SpanKind::Client => (7, true),
        _ => return false,
    };
    let has_parent = span.parent_span_id.iter().any(|byte| *byte != 0);
    // otlp-recorder's `SpanLayer` adds the source location, and otel-service two attributes of the statement.
    let added = ["code.", "db.query.summary", "db.response.returned_rows"];
    let is_described = |attribute: &&KeyValue| !added.iter().any(|key| attribute.key.starts_with(key));
    span.attributes.iter().filter(is_described).count() == attributes && has_parent == is_child
}
