//! The pull exporter: a server whose `/metrics` Prometheus scrapes. It has a thread and a runtime of its own, so that
//! neither a slow scraper nor a slow callback delays anything else, and closes each connection after one response.

mod exposition;
mod names;
mod negotiation;

use std::collections::HashSet;
use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use opentelemetry::Context;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use otlp_recorder::PullReader;
use tokio::runtime::Builder;
use tokio::sync::{Mutex as AsyncMutex, Semaphore, oneshot};
use tokio::task::{JoinHandle as Task, spawn_blocking};
use tokio::time::{sleep, timeout};

use crate::config::Prometheus;
use exposition::exposition;
use negotiation::Format;

/// Maximum number of connections. Others wait in the backlog of the socket, so the memory for slow scrapers is bounded.
const MAX_CONNECTIONS: usize = 16;

/// Time limit of a connection, from the request to the last byte of the response.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Time limit of a collection, which callbacks can delay.
const COLLECTION_TIMEOUT: Duration = Duration::from_secs(8);

/// Maximum size of the head of a request, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// Reason the metrics cannot be served.
#[derive(Debug, thiserror::Error)]
#[error(
    "Prometheus metrics cannot be served on {address}: {source}; set OTEL_EXPORTER_PROMETHEUS_HOST and \
     OTEL_EXPORTER_PROMETHEUS_PORT, or host and port in the configuration file, to another address"
)]
pub struct PrometheusError {
    address: String,
    source: io::Error,
}

/// The listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    settings: Prometheus,
}

impl Listener {
    /// Opens the socket.
    ///
    /// # Errors
    ///
    /// Fails if the address is in use or does not belong to this machine.
    pub(crate) fn bind(settings: Prometheus) -> Result<Self, PrometheusError> {
        let bound = TcpListener::bind((settings.host.as_str(), settings.port));
        let socket = bound.and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
        match socket {
            Ok(socket) => Ok(Self { socket, settings }),
            Err(source) => Err(PrometheusError {
                address: format!("{}:{}", settings.host, settings.port),
                source,
            }),
        }
    }

    /// Starts the server.
    ///
    /// # Errors
    ///
    /// Fails if no thread can be started.
    pub(crate) fn serve(self, reader: PullReader) -> Result<Server, PrometheusError> {
        let address = format!("{}:{}", self.settings.host, self.settings.port);
        let (stop, stopped) = oneshot::channel();
        let scrapes = Arc::new(Scrapes {
            settings: self.settings,
            reader,
            running: AsyncMutex::default(),
            warned: Mutex::default(),
        });
        let runtime = Builder::new_current_thread()
            .enable_all()
            .thread_name("prometheus")
            .max_blocking_threads(4)
            .build();
        let started = runtime.and_then(|runtime| {
            let socket = {
                let _entered = runtime.enter();
                tokio::net::TcpListener::from_std(self.socket)?
            };
            thread::Builder::new()
                .name("prometheus".to_owned())
                .spawn(move || {
                    // Scrapes must not record spans.
                    let _suppressed = Context::enter_telemetry_suppressed_scope();
                    runtime.block_on(async {
                        tokio::select! {
                            () = accept(socket, scrapes) => {}
                            _ = stopped => {}
                        }
                    });
                    // Does not wait for a blocked callback.
                    runtime.shutdown_background();
                })
        });
        match started {
            Ok(thread) => Ok(Server {
                stop: Some(stop),
                thread: Some(thread),
            }),
            Err(source) => Err(PrometheusError { address, source }),
        }
    }
}

/// The running server. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has already been reported.
            let _ = thread.join();
        }
    }
}

async fn accept(socket: tokio::net::TcpListener, scrapes: Arc<Scrapes>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        let Ok((stream, _)) = socket.accept().await else {
            // The process is probably out of file descriptors.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let scrapes = Arc::clone(&scrapes);
        tokio::spawn(async move {
            let answer = service_fn(|request| {
                let scrapes = Arc::clone(&scrapes);
                async move { Ok::<_, Infallible>(scrapes.answer(&request).await) }
            });
            let connection = http1::Builder::new()
                .keep_alive(false)
                .timer(TokioTimer::new())
                .header_read_timeout(CONNECTION_TIMEOUT)
                .max_buf_size(MAX_HEAD)
                .serve_connection(TokioIo::new(stream), answer);
            // A connection that fails or times out concerns only its scraper.
            let _ = timeout(CONNECTION_TIMEOUT, connection).await;
            drop(permit);
        });
    }
}

/// State shared by all requests.
#[derive(Debug)]
struct Scrapes {
    settings: Prometheus,
    reader: PullReader,
    /// Collection in progress. If it is slow, the next request waits for it instead of starting another one.
    running: AsyncMutex<Option<Task<Collected>>>,
    /// Warnings that have been logged.
    warned: Mutex<HashSet<String>>,
}

type Collected = Result<ExportMetricsServiceRequest, String>;

impl Scrapes {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() != "/metrics" {
            return plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match timeout(COLLECTION_TIMEOUT, self.collect()).await {
            Ok(Ok(metrics)) => self.exposed(&metrics, request.headers()),
            Ok(Err(reason)) => {
                self.warn(format!("metrics could not be collected: {reason}"));
                plain(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "metrics could not be collected\n",
                )
            }
            Err(_) => {
                self.warn(
                    "metrics could not be collected in time: an instrument's callback is slow".to_owned(),
                );
                plain(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "metrics could not be collected in time\n",
                )
            }
        }
    }

    async fn collect(&self) -> Collected {
        let mut running = self.running.lock().await;
        let task = running.get_or_insert_with(|| {
            let reader = self.reader.clone();
            spawn_blocking(move || reader.pull())
        });
        let collected = task.await;
        *running = None;
        collected.unwrap_or_else(|_| Err("an instrument's callback panicked".to_owned()))
    }

    fn exposed(&self, metrics: &ExportMetricsServiceRequest, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let accept: Vec<&str> = headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        let format = Format::accepted(&accept.join(","));
        let text = exposition(metrics, &self.settings, format, &mut |warning| self.warn(warning));
        let mut response = Response::new(Full::new(text.into()));
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
        response
    }

    /// Logs a warning once.
    fn warn(&self, warning: String) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.insert(warning.clone()) {
            tracing::warn!("{warning}");
        }
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}
