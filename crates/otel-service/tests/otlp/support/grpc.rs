//! An OTLP/gRPC collector: the services that `opentelemetry-proto` generates, in a tonic server.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::codec::CompressionEncoding;
use tonic::metadata::{KeyAndValueRef, MetadataMap};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use super::Received;

#[derive(Clone, Debug)]
pub struct GrpcCollector {
    pub address: SocketAddr,
    received: Arc<Mutex<Received>>,
    scheme: &'static str,
}

/// Returns the error status for a call, or `None` to accept it. Takes the zero-based number of the call within
/// its service.
type Failures = fn(usize) -> Option<Status>;

#[derive(Clone)]
struct Services {
    received: Arc<Mutex<Received>>,
    failures: Failures,
    /// Number of rejected spans reported in each response.
    rejected: i64,
}

impl GrpcCollector {
    pub fn start() -> Self {
        Self::listen(|_| None, 0, None)
    }

    /// Starts a collector that reports `spans` rejected spans in each response.
    pub fn rejecting(spans: i64) -> Self {
        Self::listen(|_| None, spans, None)
    }

    /// Starts a collector whose calls fail with the status that `failures` returns.
    pub fn failing(failures: Failures) -> Self {
        Self::listen(failures, 0, None)
    }

    pub fn with_tls(tls: ServerTlsConfig) -> Self {
        Self::listen(|_| None, 0, Some(tls))
    }

    fn listen(failures: Failures, rejected: i64, tls: Option<ServerTlsConfig>) -> Self {
        let received = Arc::new(Mutex::new(Received::default()));
        let services = Services {
            received: Arc::clone(&received),
            failures,
            rejected,
        };
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (bound, address) = oneshot::channel();
        thread::spawn(move || super::block_on(serve(services, tls, bound)));
        Self {
            address: address.blocking_recv().unwrap(),
            received,
            scheme,
        }
    }

    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Whether any call was accepted.
    pub fn has_accepted(&self) -> bool {
        !self.received.lock().unwrap().headers.is_empty()
    }

    /// Removes and returns the received telemetry; fails the test on deviations from the registry.
    pub fn take(&self) -> Received {
        std::mem::take(&mut *self.received.lock().unwrap()).checked_against_registry()
    }
}

async fn serve(services: Services, tls: Option<ServerTlsConfig>, bound: oneshot::Sender<SocketAddr>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    bound.send(listener.local_addr().unwrap()).unwrap();
    let mut server = Server::builder();
    if let Some(tls) = tls {
        server = server.tls_config(tls).unwrap();
    }
    let gzip = CompressionEncoding::Gzip;
    server
        .add_service(TraceServiceServer::new(services.clone()).accept_compressed(gzip))
        .add_service(MetricsServiceServer::new(services.clone()).accept_compressed(gzip))
        .add_service(LogsServiceServer::new(services).accept_compressed(gzip))
        .serve_with_incoming(TcpIncoming::from(listener))
        .await
        .unwrap();
}

impl Services {
    fn take<T, R: Default>(&self, path: &str, request: &Request<T>) -> Result<Response<R>, Status>
    where
        T: Message,
    {
        let mut received = self.received.lock().unwrap();
        received.requests += 1;
        let seen = received.seen.entry(path.to_owned()).or_default();
        *seen += 1;
        if let Some(status) = (self.failures)(*seen - 1) {
            return Err(status);
        }
        let mut headers = shown(request.metadata());
        headers.insert(":path".to_owned(), path.to_owned());
        received.headers.push(headers);
        received.keep(path, &request.get_ref().encode_to_vec());
        Ok(Response::new(R::default()))
    }
}

fn shown(metadata: &MetadataMap) -> BTreeMap<String, String> {
    metadata
        .iter()
        .filter_map(|entry| match entry {
            KeyAndValueRef::Ascii(key, value) => Some((key.to_string(), value.to_str().ok()?.to_owned())),
            KeyAndValueRef::Binary(..) => None,
        })
        .collect()
}

#[tonic::async_trait]
impl TraceService for Services {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let accepted = self.take("/v1/traces", &request)?;
        let partial_success = (self.rejected > 0).then(|| ExportTracePartialSuccess {
            rejected_spans: self.rejected,
            error_message: "too old for me".to_owned(),
        });
        Ok(accepted.map(|()| ExportTraceServiceResponse { partial_success }))
    }
}

#[tonic::async_trait]
impl MetricsService for Services {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.take("/v1/metrics", &request)
    }
}

#[tonic::async_trait]
impl LogsService for Services {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.take("/v1/logs", &request)
    }
}
