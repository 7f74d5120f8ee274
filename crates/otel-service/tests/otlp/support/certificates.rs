//! Self-signed certificates for a test, created by `openssl`: one for 127.0.0.1 and one for a client.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

/// A folder of certificates, deleted on drop.
#[derive(Debug)]
pub struct Certificates(PathBuf);

impl Certificates {
    pub fn make() -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("telemetry-certificates-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for (name, extension) in [
            ("server", "subjectAltName=IP:127.0.0.1"),
            ("client", "subjectAltName=DNS:client"),
        ] {
            let made = Command::new("openssl")
                .args([
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:P-256",
                ])
                .args([
                    "-nodes",
                    "-days",
                    "2",
                    "-subj",
                    &format!("/CN={name}"),
                    "-addext",
                    extension,
                ])
                .args(["-addext", "basicConstraints=critical,CA:FALSE"])
                .arg("-keyout")
                .arg(folder.join(format!("{name}.key")))
                .arg("-out")
                .arg(folder.join(format!("{name}.crt")))
                .output()
                .unwrap();
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        }
        Self(folder)
    }

    /// Returns the path of `server.crt`, `server.key`, `client.crt` or `client.key`.
    pub fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// Returns the configuration of an HTTP server, which may require a client certificate.
    pub fn http(&self, client_auth: bool) -> ServerConfig {
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if client_auth {
            let mut roots = RootCertStore::empty();
            roots.add(certificate(&self.0.join("client.crt"))).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::from_pem_file(self.0.join("server.key")).unwrap();
        builder
            .with_single_cert(vec![certificate(&self.0.join("server.crt"))], key)
            .unwrap()
    }

    /// Returns the configuration of a gRPC server, which may require a client certificate.
    pub fn grpc(&self, client_auth: bool) -> ServerTlsConfig {
        let read = |name: &str| std::fs::read(self.0.join(name)).unwrap();
        let config =
            ServerTlsConfig::new().identity(Identity::from_pem(read("server.crt"), read("server.key")));
        if client_auth {
            config.client_ca_root(Certificate::from_pem(read("client.crt")))
        } else {
            config
        }
    }
}

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

impl Drop for Certificates {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}
