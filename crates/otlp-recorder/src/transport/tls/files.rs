//! Reading and validation of PEM files.

use std::fs;

use rustls::client::{ClientConfig, WantsClientCert};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ConfigBuilder, RootCertStore};

use crate::collector::{ClientFiles, PemFile};

/// CA certificates to trust.
pub(crate) enum Roots {
    /// No certificates, for an unencrypted connection.
    None,
    /// The certificates of the system.
    System,
    /// PEM-encoded certificates, trusted instead of the system's.
    Own(Vec<u8>),
}

/// A client certificate with its chain, and its key, both PEM-encoded.
pub(crate) struct ClientPem {
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

impl ClientPem {
    /// Completes a configuration that presents the certificate.
    pub(super) fn authenticate(
        self,
        builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    ) -> Result<ClientConfig, rustls::Error> {
        let invalid = |error: pem::Error| rustls::Error::General(error.to_string());
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.certificate).collect();
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(invalid)?;
        builder.with_client_auth_cert(chain.map_err(invalid)?, key)
    }
}

pub(super) fn roots(file: &PemFile) -> Result<Vec<u8>, String> {
    let pem = read(file)?;
    certificates(file, &pem)?;
    store(&pem).map_err(|error| format!("{}: {error}", file.setting))?;
    Ok(pem)
}

/// Returns a store that trusts the certificates in `pem`.
pub(super) fn store(pem: &[u8]) -> Result<RootCertStore, rustls::Error> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem).filter_map(Result::ok) {
        store.add(certificate)?;
    }
    Ok(store)
}

pub(super) fn client(files: &ClientFiles) -> Result<ClientPem, String> {
    let (certificate, key) = (read(&files.certificate)?, read(&files.key)?);
    let chain = certificates(&files.certificate, &certificate)?;
    let of_key = |error: &dyn std::fmt::Display| format!("{}: {error}", files.key.setting);
    let parsed = PrivateKeyDer::from_pem_slice(&key).map_err(|error| of_key(&error))?;
    CertifiedKey::from_der(chain, parsed, &default_provider()).map_err(|error| of_key(&error))?;
    Ok(ClientPem { certificate, key })
}

fn read(file: &PemFile) -> Result<Vec<u8>, String> {
    fs::read(&file.path).map_err(|error| format!("{}: {error}", file.setting))
}

fn certificates(file: &PemFile, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(certificates) if certificates.is_empty() => {
            Err(format!("{}: the file contains no certificate", file.setting))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("{}: {error}", file.setting)),
    }
}
