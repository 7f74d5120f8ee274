//! Measures the cost of recording on the calling thread: nanoseconds and allocations per span, log record and
//! measurement, with all signals exported to a receiver that discards them, and with
//! `OTEL_SDK_DISABLED=true`.
//!
//! `cargo bench -p otel-service --bench recording` measures in two child processes, because telemetry is set
//! up once per process, and prints one table. The export thread runs concurrently; its cost is not included.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write, stderr, stdout};
use std::net::{TcpListener, TcpStream};
use std::pin::pin;
use std::process::{Command, Stdio};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, Response};
use otel_service::{
    ClientAddress, Counter, Database, DbError, Failure, Histogram, HttpLayer, KeyValue, Redis, Service, Span,
    Statement,
};
use tower::Layer;
use tower::Service as _;

/// Argument that makes a process measure instead of starting the child processes.
const MEASURE: &str = "measure";
const ROUNDS: usize = 60;
/// Calls per round. The queue has room for two spans per call, so no spans are dropped.
const ITERATIONS: usize = 512;
/// Pause between rounds, during which the recorded items are exported and their memory is freed, as in a
/// service.
const PAUSE: Duration = Duration::from_millis(10);

type BenchResult<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> BenchResult {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some(MEASURE) => measure(),
        Some("--bench") => compare(),
        // Started by `cargo test`.
        _ => Ok(()),
    }
}

/// Measures in two child processes and prints their figures side by side.
fn compare() -> BenchResult {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Errors are ignored: the exporter reconnects.
            thread::spawn(move || discard(&stream));
        }
    });
    let exporting = figures(&[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())])?;
    let disabled = figures(&[("OTEL_SDK_DISABLED", "true")])?;
    let mut out = stdout().lock();
    writeln!(out, "{:44} {:>24}   {:>24}", "", "exporting", "disabled")?;
    writeln!(
        out,
        "{:44} {:>8} {:>7} {:>7}   {:>8} {:>7} {:>7}",
        "", "ns", "allocs", "bytes", "ns", "allocs", "bytes"
    )?;
    for (name, figures) in exporting {
        let other = disabled.iter().find(|(other, _)| *other == name);
        let [on, off] = [Some(&figures), other.map(|(_, figures)| figures)].map(columns);
        writeln!(out, "{name:44} {on}   {off}")?;
    }
    Ok(())
}

fn columns(figures: Option<&Vec<String>>) -> String {
    let shown = |index: usize| {
        figures
            .and_then(|figures| figures.get(index))
            .map_or("-", String::as_str)
    };
    format!("{:>8} {:>7} {:>7}", shown(0), shown(1), shown(2))
}

/// Measures in a child process; returns the name and figures of each case.
fn figures(variables: &[(&str, &str)]) -> BenchResult<Vec<(String, Vec<String>)>> {
    let output = Command::new(std::env::current_exe()?)
        .arg(MEASURE)
        .envs(variables.iter().copied())
        // Log lines are written, as in a service, but must not appear in the table.
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()?;
    let text = String::from_utf8(output.stderr)?;
    if !output.status.success() {
        return Err(text.into());
    }
    let lines = text.lines().map(|line| {
        let mut words = line.split('\t').map(str::to_owned);
        (words.next().unwrap_or_default(), words.collect())
    });
    Ok(lines.collect())
}

/// Responds to every request on a connection and discards the bodies.
fn discard(stream: &TcpStream) -> BenchResult {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            match reader.read_line(&mut line)? {
                0 => return Ok(()),
                1 | 2 => break,
                _ => {}
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink())?;
        writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
    }
}

/// Measures every case and writes a line for each.
fn measure() -> BenchResult {
    let telemetry = otel_service::init(Service::new("recording", "0"))?;
    spans();
    layers();
    measurements();
    now(Span::internal("logging").run(async {
        case(
            "log record with two fields",
            || (),
            |()| {
                tracing::info!(article = 42, slug = "how-to-measure", "article created");
            },
        );
        Ok::<_, Infallible>(())
    }))?;
    telemetry.shutdown(Duration::from_secs(60))?;
    Ok(())
}

fn spans() {
    case(
        "span",
        || (),
        |()| {
            let done = now(Span::internal("article.create").run(ready(Ok::<_, Infallible>(1))));
            black_box(done).ok();
        },
    );
    case(
        "span with six attributes",
        || (),
        |()| {
            let span = Span::internal("article.create")
                .attribute(KeyValue::new("a.number", 1))
                .attribute(KeyValue::new("a.valid", true))
                .attribute(KeyValue::new("a.ratio", 0.5))
                .attribute(KeyValue::new("a.text", "static"))
                .attribute(KeyValue::new("b.text", "owned text".to_owned()))
                .attribute(KeyValue::new("c.text", "owned text too".to_owned()));
            black_box(now(span.run(ready(Ok::<_, Infallible>(1))))).ok();
        },
    );
}

fn layers() {
    let database = Database::new(
        "postgresql",
        "pressroom".to_owned(),
        Some(("db.internal".to_owned(), 5432)),
    );
    case(
        "statement through Database::observe",
        || (),
        |()| {
            let found = now(database.observe(&FIND, ready(Ok::<_, NoError>(Some(1)))));
            black_box(found).ok();
        },
    );
    let redis = Redis::new();
    case(
        "Redis command",
        || (),
        |()| redis.command("LPUSH", "LPUSH ? ?").finish(Ok(())),
    );

    let layer = HttpLayer::new(|_| Some("/api/articles/{slug}"));
    let mut service = layer.layer(tower::service_fn(respond));
    case("request through HttpLayer", request, |request| {
        black_box(now(service.call(request))).ok();
    });
    let database = &database;
    let mut service = layer.layer(tower::service_fn(|request: Request<()>| async move {
        let found = database.observe(&FIND, ready(Ok::<_, NoError>(Some(1)))).await;
        black_box(found).ok();
        respond(request).await
    }));
    case("request with one statement", request, |request| {
        black_box(now(service.call(request))).ok();
    });
}

const FIND: Statement = Statement::new(
    "SELECT",
    "articles",
    "SELECT articles",
    "SELECT slug, title, body FROM articles WHERE slug = $1",
);

fn request() -> Request<()> {
    Request::builder()
        .uri("/api/articles/how-to-measure")
        .header("host", "localhost:8000")
        .header("user-agent", "curl/8.9.1")
        .header("accept", "*/*")
        .extension(ClientAddress(([192, 0, 2, 7], 54_321).into()))
        .body(())
        .expect("the request is valid")
}

fn respond(_: Request<()>) -> Ready<Result<Response<Body>, Infallible>> {
    ready(Ok(Response::new(Body::empty())))
}

static VISITS: Counter = otel_service::counter("bench.visits", "{visit}", "Visits.");
static STAYS: Histogram = otel_service::histogram("bench.stays", "Stays.");

fn measurements() {
    let attributes = [
        KeyValue::new("method", "GET"),
        KeyValue::new("route", "/api/articles/{slug}"),
        KeyValue::new("status", 200),
    ];
    case(
        "counter with three attributes",
        || (),
        |()| VISITS.add(1, &attributes),
    );
    let stay = |()| STAYS.record(Duration::from_millis(7), &attributes);
    case("histogram with three attributes", || (), stay);
    now(Span::internal("measuring").run(async {
        case("histogram with exemplars", || (), stay);
        Ok::<_, Infallible>(())
    }))
    .ok();
}

/// Measures `work` with inputs from `prepare`, which is not measured. Writes the name, the nanoseconds per
/// call in the fastest round, and the allocations and allocated bytes per call, separated by tabs.
fn case<I>(name: &str, mut prepare: impl FnMut() -> I, mut work: impl FnMut(I)) {
    let mut inputs = |count: usize| -> Vec<I> { (0..count).map(|_| prepare()).collect() };
    inputs(ITERATIONS).into_iter().for_each(&mut work);
    let rounds = (0..ROUNDS).map(|_| {
        thread::sleep(PAUSE);
        let inputs = inputs(ITERATIONS);
        let started = Instant::now();
        inputs.into_iter().for_each(&mut work);
        started.elapsed()
    });
    let fastest = rounds.min().unwrap_or_default();
    let nanoseconds = fastest.as_nanos() / ITERATIONS as u128;
    thread::sleep(PAUSE);
    // Counting takes time, so allocations are counted in a separate round.
    let inputs = inputs(ITERATIONS);
    let counted = allocation_counter::measure(|| inputs.into_iter().for_each(&mut work));
    let each = |total: u64| total as f64 / ITERATIONS as f64;
    let line = format!(
        "{name}\t{nanoseconds}\t{:.1}\t{:.0}\n",
        each(counted.count_total),
        each(counted.bytes_total)
    );
    stderr()
        .write_all(line.as_bytes())
        .expect("the parent process reads standard error");
}

/// Returns the output of a future that is ready when first polled.
fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("the future is ready"),
    }
}

/// An error that never occurs.
#[derive(Debug)]
struct NoError;

impl Failure for NoError {
    fn error_type(&self) -> Option<std::borrow::Cow<'static, str>> {
        None
    }

    fn message(&self) -> String {
        String::new()
    }
}

impl DbError for NoError {
    fn status_code(&self) -> Option<String> {
        None
    }
}
