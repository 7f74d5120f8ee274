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
}

#[cfg(feature = "tls")]
mod files;
