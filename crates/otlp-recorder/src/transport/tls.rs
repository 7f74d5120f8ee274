//! The certificates of a connection. Files are checked in advance: an invalid file causes a warning instead
//! of disabling the signal.

#[cfg(feature = "tls")]
pub(super) use files::Roots;

use super::outcome::TransportError;
use crate::collector::Collector;

/// The certificates of a connection to the collector.
pub(super) struct Tls {
    #[cfg(feature = "tls")]
    pub(super) roots: Roots,
    #[cfg(feature = "tls")]
    pub(super) client: Option<files::ClientPem>,
}

#[cfg(not(feature = "tls"))]
impl Tls {
    pub(super) fn read(collector: &Collector, _: &mut Vec<String>) -> Result<Self, TransportError> {
        if collector.endpoint.starts_with("https://") {
            return Err(TransportError::MissingFeature("TLS", "tls"));
        }
        Ok(Self {})
    }
}

#[cfg(feature = "tls")]
impl Tls {
    pub(super) fn read(collector: &Collector, warnings: &mut Vec<String>) -> Result<Self, TransportError> {
        let default = if collector.endpoint.starts_with("https://") {
            Roots::System
        } else {
            Roots::None
        };
        let roots = match collector.certificate.as_ref().map(files::roots) {
            None => default,
            Some(Ok(pem)) => Roots::Own(pem),
            Some(Err(reason)) => {
                warnings.push(format!("{reason}; the system's certificates are used"));
                default
            }
        };
        let client = collector.client.as_ref().and_then(|client| {
            files::client(client)
                .map_err(|reason| warnings.push(format!("{reason}; no client certificate is used")))
                .ok()
        });
        Ok(Self { roots, client })
    }

    /// Returns a configuration that does not depend on the process-wide `rustls` provider.
    pub(super) fn client_config(self) -> Result<rustls::ClientConfig, rustls::Error> {
        use rustls::client::ClientConfig;
        use rustls_platform_verifier::BuilderVerifierExt;

        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let builder = match self.roots {
            // Avoids reading the system certificates, which a minimal image may lack.
            Roots::None => builder.with_root_certificates(rustls::RootCertStore::empty()),
            Roots::System => builder.with_platform_verifier()?,
            Roots::Own(pem) => builder.with_root_certificates(files::store(&pem)?),
        };
        match self.client {
            Some(client) => client.authenticate(builder),
            None => Ok(builder.with_no_client_auth()),
        }
    }
}

#[cfg(feature = "tls")]
mod files;
