//! The OTLP exporters and the blocking HTTP client they share their make with. The client is built on a plain thread,
//! because building one inside an async runtime panics.

use std::thread;

use opentelemetry_otlp::{
    ExporterBuildError, LogExporter, MetricExporter, Protocol, SpanExporter, WithExportConfig, WithHttpConfig,
};
use reqwest::Certificate;
use reqwest::blocking::Client;

use crate::config::Otlp;

/// Why a signal cannot be exported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransportError {
    #[error("the HTTP client cannot be made: {0}")]
    Client(#[from] reqwest::Error),
    #[error("the thread that makes the HTTP client failed")]
    Thread,
    #[error("{0}")]
    Exporter(#[from] ExporterBuildError),
}

pub(crate) fn span_exporter(otlp: &Otlp, warnings: &mut Vec<String>) -> Result<SpanExporter, TransportError> {
    let builder = SpanExporter::builder().with_http();
    Ok(configure(builder, otlp, warnings)?.build()?)
}

pub(crate) fn metric_exporter(
    otlp: &Otlp,
    warnings: &mut Vec<String>,
) -> Result<MetricExporter, TransportError> {
    let builder = MetricExporter::builder().with_http();
    Ok(configure(builder, otlp, warnings)?.build()?)
}

pub(crate) fn log_exporter(otlp: &Otlp, warnings: &mut Vec<String>) -> Result<LogExporter, TransportError> {
    let builder = LogExporter::builder().with_http();
    Ok(configure(builder, otlp, warnings)?.build()?)
}

fn configure<B: WithExportConfig + WithHttpConfig>(
    builder: B,
    otlp: &Otlp,
    warnings: &mut Vec<String>,
) -> Result<B, TransportError> {
    Ok(builder
        .with_http_client(client(otlp, warnings)?)
        .with_endpoint(&otlp.endpoint)
        .with_timeout(otlp.timeout)
        .with_protocol(Protocol::HttpBinary))
}

fn client(otlp: &Otlp, warnings: &mut Vec<String>) -> Result<Client, TransportError> {
    // Another part of the process may have chosen a provider already; any will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder().timeout(otlp.timeout);
    let plain = otlp.endpoint.starts_with("http://");
    if let Some(path) = &otlp.certificate {
        match certificates(path) {
            Ok(certificates) => builder = builder.tls_certs_only(certificates),
            Err(reason) => warnings.push(format!(
                "OTEL_EXPORTER_OTLP_CERTIFICATE: {reason}; the system's certificates are used"
            )),
        }
    } else if plain {
        // No TLS, so no reading of the system's certificates, which a small image may not even have.
        builder = builder.tls_certs_only([]);
    }
    thread::Builder::new()
        .name("otlp-client".to_owned())
        .spawn(move || builder.build())
        .map_err(|_| TransportError::Thread)?
        .join()
        .map_err(|_| TransportError::Thread)?
        .map_err(TransportError::Client)
}

fn certificates(path: &str) -> Result<Vec<Certificate>, String> {
    let bundle = std::fs::read(path).map_err(|error| error.to_string())?;
    match Certificate::from_pem_bundle(&bundle) {
        Ok(certificates) if certificates.is_empty() => Err("the file has no certificate".to_owned()),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(error.to_string()),
    }
}
