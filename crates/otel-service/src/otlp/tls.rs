//! Who is trusted, and who we are: the files of `OTEL_EXPORTER_OTLP_CERTIFICATE`, `_CLIENT_KEY` and
//! `_CLIENT_CERTIFICATE`, checked before they are used, so that a wrong file is a warning and not a signal lost.

use std::fs;

use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::config::{ClientFiles, Otlp, PemFile};

/// What a connection to the collector is secured with.
pub(super) struct Tls {
    pub(super) roots: Roots,
    pub(super) client: Option<ClientPem>,
}

/// Whose signature under the collector's certificate counts.
pub(super) enum Roots {
    /// Of nobody: there is no TLS.
    None,
    System,
    /// Of the certificates in this PEM text alone.
    Own(Vec<u8>),
}

/// The client's own certificate, with its chain, and key, as PEM texts.
pub(super) struct ClientPem {
    pub(super) certificate: Vec<u8>,
    pub(super) key: Vec<u8>,
}

impl Tls {
    pub(super) fn read(otlp: &Otlp, warnings: &mut Vec<String>) -> Self {
        let without = if otlp.endpoint.starts_with("https://") {
            Roots::System
        } else {
            Roots::None
        };
        let roots = match otlp.certificate.as_ref().map(roots) {
            None => without,
            Some(Ok(pem)) => Roots::Own(pem),
            Some(Err(reason)) => {
                warnings.push(format!("{reason}; the system's certificates are used"));
                without
            }
        };
        let client = otlp.client.as_ref().and_then(|files| {
            client(files)
                .map_err(|reason| warnings.push(format!("{reason}; no client certificate is used")))
                .ok()
        });
        Self { roots, client }
    }
}

fn roots(file: &PemFile) -> Result<Vec<u8>, String> {
    let pem = read(file)?;
    let mut store = RootCertStore::empty();
    for certificate in certificates(file, &pem)? {
        store
            .add(certificate)
            .map_err(|error| format!("{}: {error}", file.variable))?;
    }
    Ok(pem)
}

fn client(files: &ClientFiles) -> Result<ClientPem, String> {
    let (certificate, key) = (read(&files.certificate)?, read(&files.key)?);
    let chain = certificates(&files.certificate, &certificate)?;
    let of_key = |error: &dyn std::fmt::Display| format!("{}: {error}", files.key.variable);
    let parsed = PrivateKeyDer::from_pem_slice(&key).map_err(|error| of_key(&error))?;
    CertifiedKey::from_der(chain, parsed, &default_provider()).map_err(|error| of_key(&error))?;
    Ok(ClientPem { certificate, key })
}

fn read(file: &PemFile) -> Result<Vec<u8>, String> {
    fs::read(&file.path).map_err(|error| format!("{}: {error}", file.variable))
}

fn certificates(file: &PemFile, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(certificates) if certificates.is_empty() => {
            Err(format!("{}: the file has no certificate", file.variable))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("{}: {error}", file.variable)),
    }
}
