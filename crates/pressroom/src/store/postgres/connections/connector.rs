//! Opens connections, with TLS, session settings and a time-out.

use std::{error::Error, future::poll_fn, path::PathBuf, pin::pin, sync::Arc, task::Poll, time::Duration};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WantsClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use telemetry::ConnectionTimes;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_postgres::{CancelToken, Client, config::SslNegotiation};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::postgres::config::{Certificates, PoolMode, PostgresConfig, Role, Tls};

/// Maximum time to send the request that cancels a statement.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);

/// Task that drives the I/O of a connection, and ends with it.
pub(in crate::store::postgres) type Driver = JoinHandle<Result<(), tokio_postgres::Error>>;

/// Opens connections to one database.
#[derive(Clone)]
pub(in crate::store::postgres) struct Connector {
    config: tokio_postgres::Config,
    /// TLS settings, which `sslmode=disable` ignores.
    tls: MakeRustlsConnect,
    pool_mode: PoolMode,
    settings: Settings,
    /// Maximum time to open one connection, including all hosts and the handshake.
    connect_timeout: Duration,
    /// Metrics of the pool for which connections are opened.
    times: Option<ConnectionTimes>,
}

/// Settings of a session.
#[derive(Debug, Clone, Copy)]
pub(in crate::store::postgres) struct Settings {
    /// Maximum duration of a statement, including its waits for locks.
    pub(in crate::store::postgres) statement_timeout: Duration,
    /// Maximum wait for one lock.
    pub(in crate::store::postgres) lock_timeout: Duration,
    /// Whether the planner may scan a table for which there is an index.
    pub(in crate::store::postgres) scans: bool,
}

impl Settings {
    /// Returns the statements that apply the settings with `set`, which is `SET` or `SET LOCAL`.
    pub(super) fn sql(self, set: &str) -> String {
        let (statement, lock) = (self.statement_timeout.as_millis(), self.lock_timeout.as_millis());
        let mut sql = format!("{set} statement_timeout TO '{statement}ms'; {set} lock_timeout TO '{lock}ms'");
        if !self.scans {
            // A table that grows quickly, such as the outbox during an outage of Redis, is much larger than its statistics
            // say, and a plan that was prepared when it was small would scan it for each row. A plan without an index is so
            // expensive in the planner's view that it would be compiled.
            sql += &format!("; {set} enable_seqscan TO off; {set} jit TO off");
        }
        sql
    }
}

/// Reason a store could not be set up. Retrying does not help.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("TLS: cannot read {} (sslrootcert): {error}", file.display())]
    RootFile {
        file: PathBuf,
        error: rustls::pki_types::pem::Error,
    },
    #[error("TLS: the system has no trusted certificates; name a file with sslrootcert")]
    NoSystemRoots,
    #[error("TLS: sslcert or sslkey: {0}")]
    ClientCertificate(rustls::pki_types::pem::Error),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

impl Connector {
    /// Creates a connector that records no connection times.
    ///
    /// # Errors
    /// [`SetupError`] when the trusted certificates cannot be read.
    pub(in crate::store::postgres) fn new(
        config: &PostgresConfig,
        role: Role,
        settings: Settings,
    ) -> Result<Self, SetupError> {
        let direct = config.connection.get_ssl_negotiation() == SslNegotiation::Direct;
        Ok(Self {
            config: config.connection_to(role),
            tls: MakeRustlsConnect::new(client_config(&config.tls, direct)?),
            pool_mode: config.pool_mode,
            settings,
            connect_timeout: config.connect_timeout,
            times: None,
        })
    }

    /// Records connection times under the name `pool`.
    pub(super) fn named(self, pool: &'static str) -> Self {
        Self {
            times: Some(ConnectionTimes::new(pool)),
            ..self
        }
    }

    /// Returns a connector to the same server for connections with other settings.
    pub(super) fn with(&self, settings: Settings) -> Self {
        Self {
            settings,
            ..self.clone()
        }
    }

    /// Opens a connection, within the connection time-out.
    ///
    /// # Errors
    /// Returns an error message without credentials.
    pub(in crate::store::postgres) async fn open_in_time(&self) -> Result<(Client, Driver), String> {
        match timeout(self.connect_timeout, self.open()).await {
            Ok(opened) => opened.map_err(|error| describe(&error)),
            Err(_elapsed) => Err(format!(
                "timed out after {} s while connecting; connect_timeout in the URL sets the limit",
                self.connect_timeout.as_secs()
            )),
        }
    }

    /// Asks the server to cancel the statement that runs on a connection.
    pub(super) async fn cancel(&self, connection: CancelToken) {
        // If the request is lost, the statement ends at its time-out.
        let _sent = timeout(CANCEL_TIMEOUT, connection.cancel_query(self.tls.clone())).await;
    }

    /// Returns the SQL that begins a transaction, and applies the settings unless the connection keeps them.
    pub(super) fn begin(&self) -> String {
        match self.pool_mode {
            PoolMode::Session => "BEGIN".to_owned(),
            PoolMode::Transaction => format!("BEGIN; {}", self.settings.sql("SET LOCAL")),
        }
    }

    /// Whether the connection keeps the settings, so that they also apply outside a transaction.
    pub(super) fn keeps_settings(&self) -> bool {
        self.pool_mode == PoolMode::Session
    }

    /// Opens a connection. The caller must limit the time, because the driver's time-out covers only the TCP
    /// handshake.
    async fn open(&self) -> Result<(Client, Driver), tokio_postgres::Error> {
        let start = Instant::now();
        let (client, connection) = self.config.connect(self.tls.clone()).await?;
        let driver = tokio::spawn(batched(connection));
        match self.pool_mode {
            // Sent as a statement, because poolers reject these start-up options.
            PoolMode::Session => {
                let settings = self.settings.sql("SET");
                let sql = format!("SET timezone TO 'UTC'; {UNCHECKED_ENCODING}; {settings}");
                client.batch_execute(&sql).await?;
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

/// Lets rows contain any bytes if the database's encoding is `SQL_ASCII`, which does not check them. Otherwise the
/// server would check them when it sends them, and one such row would make all statements that return it fail.
const UNCHECKED_ENCODING: &str = "SELECT set_config('client_encoding', 'SQL_ASCII', false) \
    WHERE current_setting('server_encoding') = 'SQL_ASCII'";

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

fn client_config(settings: &Tls, direct: bool) -> Result<ClientConfig, SetupError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(settings.versions)?;
    let mut roots = RootCertStore::empty();
    let builder = match &settings.certificates {
        Certificates::Any => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))),
        Certificates::System => {
            let native = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(native.certs);
            if roots.is_empty() {
                return Err(SetupError::NoSystemRoots);
            }
            builder.with_root_certificates(roots)
        }
        Certificates::File(path) => {
            let unreadable = |error| SetupError::RootFile {
                file: path.clone(),
                error,
            };
            for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
                roots.add(certificate.map_err(unreadable)?)?;
            }
            builder.with_root_certificates(roots)
        }
    };
    let mut config = with_client_certificate(builder, settings)?;
    config.enable_sni = settings.sni;
    if direct {
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    Ok(config)
}

fn with_client_certificate(
    builder: rustls::ConfigBuilder<ClientConfig, WantsClientCert>,
    settings: &Tls,
) -> Result<ClientConfig, SetupError> {
    let Some((certificate, key)) = &settings.client else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(SetupError::ClientCertificate)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(SetupError::ClientCertificate)?;
    Ok(builder.with_client_auth_cert(chain, key)?)
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
