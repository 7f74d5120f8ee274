//! The Redis server to connect to: a fixed address, or the current primary according to the sentinels.
//!
//! The sentinels are queried for every connection, so a fail-over appears as a broken connection. redis-rs
//! supports sentinels, but opens further connections without time-outs and assumes complete replies; the
//! query here is a single command.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, RedisConnectionInfo,
    RedisError, RedisResult, TlsCertificates,
    aio::{MultiplexedConnection, PubSub},
    cmd,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

use super::{
    config::RedisConfig,
    error::ConfigError,
    error_scope::ErrorScope,
    url::{Location, host_and_port},
};
use crate::broker::ServerInfo;

/// Time-out for a query to one sentinel.
const SENTINEL_TIMEOUT: Duration = Duration::from_secs(1);
/// Time-out for an error that the server sends on its own.
const GREETING_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum number of bytes of such an error.
const MAX_GREETING: usize = 1024;
/// Idle time before the operating system probes a connection. Pub/sub connections may be silent for long.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

pub(super) struct Endpoint {
    /// Client with the settings of the server. With sentinels, its address is the first sentinel's and is
    /// replaced by the primary's.
    server: Client,
    certificates: Option<TlsCertificates>,
    sentinels: Option<Sentinels>,
}

struct Sentinels {
    clients: Vec<Client>,
    /// Counter that rotates which sentinel is queried first, because a sentinel that is cut off from the
    /// others may be wrong.
    rotation: AtomicUsize,
    master: String,
}

impl Endpoint {
    pub(super) fn new(config: &RedisConfig) -> Result<Self, ConfigError> {
        let mut location = Location::parse(&config.url)?;
        let certificates = certificates(config, &location)?;
        let first = location.addresses.first().ok_or(ConfigError::Url)?.clone();
        // Without a default crypto provider, rustls panics on the first TLS connection of the process.
        if is_tls(&first) && rustls::crypto::CryptoProvider::get_default().is_none() {
            // Fails if another thread has just installed a provider, which is just as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let client = |info| client(info, certificates.as_ref()).map_err(|_| ConfigError::Certificates);
        let sentinels = match location.master.take() {
            None => None,
            Some(master) => {
                let settings = sentinel_settings(&location);
                let addresses = location.addresses.into_iter();
                let clients = addresses.map(|info| client(info.set_redis_settings(settings.clone())));
                Some(Sentinels {
                    clients: clients.collect::<Result<_, _>>()?,
                    rotation: AtomicUsize::new(0),
                    master,
                })
            }
        };
        Ok(Self {
            server: client(first)?,
            certificates,
            sentinels,
        })
    }

    /// Returns the database number, which is part of channel names.
    pub(super) fn database(&self) -> i64 {
        self.server.get_connection_info().redis_settings().db()
    }

    /// Returns the error that the server sends before any request, as Redis does in protected mode; it then closes
    /// the connection, so that requests only fail with a broken pipe.
    async fn greeting(&self) -> Option<String> {
        #[cfg(feature = "__simulation")]
        if crate::simulation::current().is_some() {
            return None;
        }
        let ConnectionAddr::Tcp(host, port) = self.server.get_connection_info().addr() else {
            return None;
        };
        let attempt = async {
            let mut socket = TcpStream::connect((host.as_str(), *port)).await.ok()?;
            let mut greeting = vec![0; MAX_GREETING];
            let length = socket.read(&mut greeting).await.ok()?;
            let text = String::from_utf8_lossy(&greeting[..length]).into_owned();
            let line = text.strip_prefix('-')?.lines().next()?;
            // The first sentence says what is wrong; the rest of Redis' text is a manual.
            Some(line.split(". ").next().unwrap_or(line).to_owned())
        };
        timeout(GREETING_TIMEOUT, attempt).await.ok()?
    }

    /// Returns the server's address for display; with sentinels, the address of one of them.
    pub(super) fn server_info(&self) -> ServerInfo {
        let info = self.server.get_connection_info();
        let (hostname, port) = host_and_port(info).unzip();
        let is_sentinel = self.sentinels.is_some();
        ServerInfo {
            transport: if is_sentinel { "sentinel" } else { "redis" },
            hostname,
            port,
            virtual_host: self.database().to_string(),
            userid: info.redis_settings().username().map(str::to_owned),
            ssl: is_tls(info),
        }
    }

    /// Connects to the server.
    pub(super) async fn connect(
        &self,
        config: &AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, String> {
        let client = self.client().await?;
        match open(&client, config).await {
            Err(error) if error.is_io_error() && !error.is_connection_refusal() => {
                Err(self.greeting().await.unwrap_or_else(|| text(error)))
            }
            connection => connection.map_err(text),
        }
    }

    /// Opens a connection to the server for pub/sub.
    pub(super) async fn subscriber(&self) -> Result<PubSub, String> {
        let client = self.client().await?;
        open_subscriber(&client).await.map_err(text)
    }

    /// Returns a client for the server, after querying the sentinels if there are any.
    async fn client(&self) -> Result<Client, String> {
        let Some(sentinels) = &self.sentinels else {
            return Ok(self.server.clone());
        };
        let (host, port) = sentinels.primary().await?;
        let info = self.server.get_connection_info().clone();
        let address = if is_tls(&info) {
            ConnectionAddr::TcpTls {
                host,
                port,
                insecure: false,
                tls_params: None,
            }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        client(info.set_addr(address), self.certificates.as_ref()).map_err(text)
    }
}

impl Sentinels {
    async fn primary(&self) -> Result<(String, u16), String> {
        let first = self.rotation.fetch_add(1, Ordering::Relaxed);
        let (before, after) = self.clients.split_at(first % self.clients.len());
        let mut causes = BTreeSet::new();
        for sentinel in after.iter().chain(before) {
            causes.insert(match timeout(SENTINEL_TIMEOUT, self.query(sentinel)).await {
                Ok(Ok(Some(address))) => return Ok(address),
                Ok(Ok(None)) => "a sentinel does not know the master name".to_owned(),
                Ok(Err(error)) => ErrorScope::of(&error).1,
                Err(_) => "a sentinel did not reply in time".to_owned(),
            });
        }
        let causes = Vec::from_iter(causes).join("; ");
        Err(format!("no sentinel names the primary: {causes}"))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a query to a sentinel is part of connecting and not reported as a command"
    )]
    async fn query(&self, sentinel: &Client) -> RedisResult<Option<(String, u16)>> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(SENTINEL_TIMEOUT))
            .set_response_timeout(Some(SENTINEL_TIMEOUT));
        let mut connection = open(sentinel, &config).await?;
        let mut query = cmd("SENTINEL");
        query.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
        query.query_async(&mut connection).await
    }
}

/// Opens a socket for requests. With [`open_subscriber`], the only place in this crate that opens sockets.
async fn open(client: &Client, config: &AsyncConnectionConfig) -> RedisResult<MultiplexedConnection> {
    #[cfg(feature = "__simulation")]
    if let Some(socket) = simulated(client).await {
        let settings = client.get_connection_info().redis_settings();
        let opened = MultiplexedConnection::new_with_config(settings, socket?, config.clone()).await?;
        tokio::spawn(opened.1);
        return Ok(opened.0);
    }
    client.get_multiplexed_async_connection_with_config(config).await
}

/// Opens a socket for pub/sub.
async fn open_subscriber(client: &Client) -> RedisResult<PubSub> {
    #[cfg(feature = "__simulation")]
    if let Some(socket) = simulated(client).await {
        return PubSub::new(client.get_connection_info().redis_settings(), socket?).await;
    }
    client.get_async_pubsub().await
}

/// Connects to a simulated server, if this thread runs a simulation.
#[cfg(feature = "__simulation")]
async fn simulated(client: &Client) -> Option<std::io::Result<Box<dyn crate::simulation::Socket>>> {
    let (host, _) = host_and_port(client.get_connection_info())?;
    let connecting = crate::simulation::current()?.connect(&host);
    Some(connecting.await)
}

fn text(error: RedisError) -> String {
    ErrorScope::of(&error).1
}

fn is_tls(info: &ConnectionInfo) -> bool {
    matches!(info.addr(), ConnectionAddr::TcpTls { .. })
}

fn client(info: ConnectionInfo, certificates: Option<&TlsCertificates>) -> RedisResult<Client> {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true).set_keepalive(keepalive));
    match certificates {
        Some(certificates) if is_tls(&info) => Client::build_with_tls(info, certificates.clone()),
        _ => Client::open(info),
    }
}

/// Returns the credentials for the sentinels, which differ from those for the server and are usually absent.
fn sentinel_settings(location: &Location) -> RedisConnectionInfo {
    let mut settings = RedisConnectionInfo::default();
    if let Some(user) = location.parameter("sentinel_username") {
        settings = settings.set_username(user);
    }
    if let Some(password) = location.parameter("sentinel_password") {
        settings = settings.set_password(password);
    }
    settings
}

fn certificates(config: &RedisConfig, location: &Location) -> Result<Option<TlsCertificates>, ConfigError> {
    let ca = config
        .ca_certificate
        .clone()
        .or_else(|| location.file("ssl_ca_certs"));
    let root_cert = ca.map(pem).transpose()?;
    let client_tls = match (location.file("ssl_certfile"), location.file("ssl_keyfile")) {
        (Some(certificate), Some(key)) => Some(ClientTlsConfig {
            client_cert: pem(certificate)?,
            client_key: pem(key)?,
        }),
        (None, None) => None,
        _ => return Err(ConfigError::Certificates),
    };
    let any = root_cert.is_some() || client_tls.is_some();
    Ok(any.then_some(TlsCertificates {
        client_tls,
        root_cert,
    }))
}

fn pem(file: PathBuf) -> Result<Vec<u8>, ConfigError> {
    let text = fs::read_to_string(file).ok();
    let pem = text.filter(|text| text.contains("-----BEGIN "));
    pem.map(String::into_bytes).ok_or(ConfigError::Certificates)
}
