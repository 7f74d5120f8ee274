//! Opens connections, with TLS, session settings and a time-out.

use std::{error::Error, future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use telemetry::ConnectionTimes;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_postgres::Client;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::postgres::config::{CONNECT_TIMEOUT, Certificates, PoolMode, PostgresConfig};

/// Task that drives the I/O of a connection, and ends with it.
pub(in crate::store::postgres) type Driver = JoinHandle<Result<(), tokio_postgres::Error>>;

/// Opens connections to one database.
#[derive(Clone)]
pub(in crate::store::postgres) struct Connector {
    config: tokio_postgres::Config,
    /// TLS settings, which `sslmode=disable` ignores.
    tls: MakeRustlsConnect,
    pool_mode: PoolMode,
    /// Server-side time-out of a statement.
    statement_timeout: Duration,
    /// Metrics of the pool for which connections are opened.
    times: Option<ConnectionTimes>,
}

/// Reason a store could not be set up. Retrying does not help.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("TLS: sslrootcert: {0}")]
    RootFile(rustls::pki_types::pem::Error),
    #[error("TLS: the system has no trusted certificates; name a file with sslrootcert")]
    NoSystemRoots,
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("connection pool: {0}")]
    Pool(#[from] deadpool_postgres::BuildError),
}

impl Connector {
    /// Creates a connector. Connection times are recorded under the name `pool`, if any.
    ///
    /// # Errors
    /// [`SetupError`] when the trusted certificates cannot be read.
    pub(in crate::store::postgres) fn new(
        config: &PostgresConfig,
        statement_timeout: Duration,
        pool: Option<&'static str>,
    ) -> Result<Self, SetupError> {
        Ok(Self {
            config: config.connection.clone(),
            tls: MakeRustlsConnect::new(client_config(&config.certificates)?),
            pool_mode: config.pool_mode,
            statement_timeout,
            times: pool.map(ConnectionTimes::new),
        })
    }

    /// Opens a connection, within [`CONNECT_TIMEOUT`].
    ///
    /// # Errors
    /// Returns an error message without credentials.
    pub(in crate::store::postgres) async fn open_in_time(&self) -> Result<(Client, Driver), String> {
        match timeout(CONNECT_TIMEOUT, self.open()).await {
            Ok(opened) => opened.map_err(|error| describe(&error)),
            Err(_elapsed) => Err("timed out while connecting".to_owned()),
        }
    }

    /// Opens a connection. The caller must limit the time, because the driver's time-out covers only the TCP
    /// handshake.
    pub(super) async fn open(&self) -> Result<(Client, Driver), tokio_postgres::Error> {
        let start = Instant::now();
        let (client, connection) = self.config.connect(self.tls.clone()).await?;
        let driver = tokio::spawn(batched(connection));
        match self.pool_mode {
            // Sent as a statement, because poolers reject these start-up options.
            PoolMode::Session => {
                let settings = format!(
                    "SET timezone TO 'UTC'; SET statement_timeout TO '{}ms'",
                    self.statement_timeout.as_millis()
                );
                client.batch_execute(&settings).await?;
            }
            // Settings would remain on a server connection that other clients use next. The pooler accepts
            // logins itself, so only a statement shows whether the server behind it is available.
            PoolMode::Transaction => client.check_connection().await?,
        }
        if let Some(times) = &self.times {
            times.created(start.elapsed());
        }
        Ok((client, driver))
    }
}

/// Polls a connection after all other ready tasks, so that their statements are sent in one write and the
/// server receives them in one read. Otherwise the runtime would poll the connection after each of those
/// tasks.
async fn batched<F: Future>(connection: F) -> F::Output {
    let mut connection = pin!(connection);
    let mut stepped_back = false;
    poll_fn(|cx| {
        stepped_back = !stepped_back;
        if stepped_back {
            // A task that wakes itself moves to the end of the run queue.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        connection.as_mut().poll(cx)
    })
    .await
}

/// Formats the error and its cause on one line, without the detail field, which may contain values.
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return format!("{}: {}", error.code().code(), error.message());
    }
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

fn client_config(certificates: &Certificates) -> Result<ClientConfig, SetupError> {
    let provider = Arc::new(ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let mut roots = RootCertStore::empty();
    match certificates {
        Certificates::Any => {
            let builder = builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)));
            return Ok(builder.with_no_client_auth());
        }
        Certificates::System => {
            let native = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(native.certs);
            if roots.is_empty() {
                return Err(SetupError::NoSystemRoots);
            }
        }
        Certificates::File(path) => {
            for certificate in CertificateDer::pem_file_iter(path).map_err(SetupError::RootFile)? {
                roots.add(certificate.map_err(SetupError::RootFile)?)?;
            }
        }
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Accepts every certificate, as `libpq` does with `sslmode=prefer`: an attacker who presents a false
/// certificate could also disable TLS, which this mode tolerates. Signatures are still verified.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
