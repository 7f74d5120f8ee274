//! Parameters of a database URL: those of libpq (PostgreSQL 18), which SQLAlchemy passes on, those of
//! Pressroom, and those that other drivers and hosting providers add.
//!
//! Each is honoured, ignored if it cannot matter, or rejected. Messages name the ignored and rejected ones.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use rustls::{
    SupportedProtocolVersion,
    version::{TLS12, TLS13},
};
use tokio_postgres::{
    Config,
    config::{ChannelBinding, Host, LoadBalanceHosts, SslMode, SslNegotiation, TargetSessionAttrs},
};

/// Both TLS versions that rustls supports.
const TLS_VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
const ONLY_TLS12: &[&SupportedProtocolVersion] = &[&TLS12];
const ONLY_TLS13: &[&SupportedProtocolVersion] = &[&TLS13];

/// Parameters without effect, which configure features that Pressroom does not use, or other programs.
const IGNORED: &[&str] = &[
    // libpq
    "gssdelegation",
    "gsslib",
    "krbsrvname",
    "max_protocol_version",
    "sslcompression",
    "sslkeylogfile",
    // psycopg, asyncpg and SQLAlchemy
    "async_fallback",
    "autocommit",
    "command_timeout",
    "max_cached_statement_lifetime",
    "max_cacheable_statement_size",
    "max_overflow",
    "pool_pre_ping",
    "pool_recycle",
    "pool_size",
    "pool_timeout",
    "prepare_threshold",
    "prepared_statement_cache_size",
    "prepared_statement_name_func",
    "statement_cache_size",
    "timeout",
    // Django and Rails
    "checkout_timeout",
    "conn_health_checks",
    "conn_max_age",
    "disable_server_side_cursors",
    "idle_timeout",
    "max_connections",
    "min_messages",
    "pool",
    "reaping_frequency",
    // Prisma and node-postgres
    "connection_limit",
    "idleTimeoutMillis",
    "max",
    "max_idle_connection_lifetime",
    "query_timeout",
    "single_use_connections",
    "socket_timeout",
    "uselibpqcompat",
    // pgx and lib/pq
    "binary_parameters",
    "default_query_exec_mode",
    "description_cache_capacity",
    "pool_health_check_period",
    "pool_max_conn_idle_time",
    "pool_max_conn_lifetime",
    "pool_max_conn_lifetime_jitter",
    "pool_max_conns",
    "pool_min_conns",
    "pool_min_idle_conns",
    "statement_cache_capacity",
    "statement_cache_mode",
    // Formats that Pressroom does not read; sqlx
    "datestyle",
    "extra_float_digits",
    "intervalstyle",
    "statement-cache-capacity",
    // JDBC
    "assumeMinServerVersion",
    "autosave",
    "cancelSignalTimeout",
    "defaultRowFetchSize",
    "loginTimeout",
    "preferQueryMode",
    "prepareThreshold",
    "preparedStatementCacheQueries",
    "preparedStatementCacheSizeMiB",
    "reWriteBatchedInserts",
    "socketTimeout",
    "sslResponseTimeout",
    "stringtype",
    "tcpKeepAlive",
    // Supabase and Vercel
    "supa",
    "workaround",
    // Set by Pressroom for each kind of statement.
    "lock_timeout",
    "statement_timeout",
    "TimeZone",
    "timezone",
];

/// Parameters that would weaken or change the connection if they were ignored, with what to do instead.
const REJECTED: &[(&str, &str)] = &[
    ("oauth_client_id", "use a password or a client certificate"),
    ("oauth_client_secret", "use a password or a client certificate"),
    ("oauth_issuer", "use a password or a client certificate"),
    ("oauth_scope", "use a password or a client certificate"),
    ("passfile", "put the password into the URL"),
    (
        "require_auth",
        "use channel_binding=require or a client certificate",
    ),
    ("requirepeer", "use TLS"),
    ("scram_client_key", "put the password into the URL"),
    ("scram_server_key", "put the password into the URL"),
    ("service", "put the service's settings into the URL"),
    ("servicefile", "put the service's settings into the URL"),
    ("sslcrl", "revoke certificates at the CA in sslrootcert"),
    ("sslcrldir", "revoke certificates at the CA in sslrootcert"),
    ("sslidentity", "use sslcert and sslkey"),
    ("sslpassword", "use a key without a passphrase"),
];

/// Trusted server certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store::postgres) enum Certificates {
    /// Any certificate: `sslmode=prefer` protects only against eavesdroppers, because it also accepts
    /// connections without TLS.
    Any,
    /// Certificates for this host name that the system trusts.
    System,
    /// Certificates for this host name that are signed by a certificate in this PEM file.
    File(PathBuf),
}

/// State that a connection keeps from one transaction to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::postgres) enum PoolMode {
    /// All state: the connection is one session of the server.
    Session,
    /// No state: a pooler sends each transaction over any of its connections to the server.
    Transaction,
}

/// Reason a database URL is rejected. Names parameters, but does not quote their values or the rest of the URL,
/// which may contain a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidUrl(pub(super) String);

impl InvalidUrl {
    pub(super) fn scheme() -> Self {
        Self("not a postgres://, postgresql:// or postgresql+psycopg:// URL".to_owned())
    }
}

/// Settings from the parameters of a URL.
pub(super) struct Parameters {
    pub(super) driver: Config,
    ssl_mode: Option<SslMode>,
    /// Trusted certificates if TLS is required.
    pub(super) roots: Option<Certificates>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) uses_certificate: bool,
    pub(super) sni: bool,
    pub(super) tls_versions: &'static [&'static SupportedProtocolVersion],
    /// Maximum time to connect to one host.
    pub(super) connect_timeout: Option<Duration>,
    pub(super) session_attrs: Option<TargetSessionAttrs>,
    pub(super) pool_mode: Option<PoolMode>,
    pub(super) prepared_statements: Option<bool>,
    /// Names of ignored parameters.
    pub(super) ignored: Vec<String>,
    /// Application name if the URL sets no other.
    fallback_name: String,
    hosts: Vec<Host>,
    ports: Vec<u16>,
    addresses: Vec<IpAddr>,
}

impl Parameters {
    /// Reads a query string, whose parameters replace those of `url`, the part before it.
    pub(super) fn parse(url: &Config, query: &str) -> Result<Self, InvalidUrl> {
        let mut driver = Config::new();
        driver
            .tcp_user_timeout(Duration::from_secs(5))
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(3))
            .keepalives_retries(3);
        if let Some(user) = url.get_user() {
            driver.user(user);
        }
        if let Some(password) = url.get_password() {
            driver.password(password);
        }
        if let Some(database) = url.get_dbname() {
            driver.dbname(database);
        }
        let mut parameters = Self {
            driver,
            ssl_mode: None,
            roots: None,
            certificate: None,
            key: None,
            uses_certificate: true,
            sni: true,
            tls_versions: TLS_VERSIONS,
            connect_timeout: None,
            session_attrs: None,
            pool_mode: None,
            prepared_statements: None,
            ignored: Vec::new(),
            fallback_name: "pressroom".to_owned(),
            hosts: url.get_hosts().to_vec(),
            ports: url.get_ports().to_vec(),
            addresses: Vec::new(),
        };
        // In a URL of libpq, a plus sign stands for itself.
        let query = query.replace('+', "%2B");
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            // As in libpq, an empty value counts as unset.
            if !value.is_empty() {
                parameters.set(&name, &value)?;
            }
        }
        if parameters.driver.get_application_name().is_none() {
            parameters.driver.application_name(&parameters.fallback_name);
        }
        parameters.add_servers();
        Ok(parameters)
    }

    /// Returns the TLS mode. As in libpq, `sslrootcert=system` requires a verified certificate.
    pub(super) fn ssl_mode(&self) -> Result<SslMode, InvalidUrl> {
        match (self.ssl_mode, &self.roots) {
            (None | Some(SslMode::Require), Some(Certificates::System)) => Ok(SslMode::Require),
            (Some(_), Some(Certificates::System)) => Err(InvalidUrl(
                "sslrootcert=system requires sslmode=verify-full".to_owned(),
            )),
            (mode, _) => Ok(mode.unwrap_or(SslMode::Prefer)),
        }
    }

    /// Adds hosts, addresses and ports to the driver's lists, from which it cannot remove them.
    fn add_servers(&mut self) {
        for host in &self.hosts {
            match host {
                Host::Tcp(name) => self.driver.host(name),
                Host::Unix(folder) => self.driver.host_path(folder),
            };
        }
        for address in &self.addresses {
            self.driver.hostaddr(*address);
        }
        for port in &self.ports {
            self.driver.port(*port);
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), InvalidUrl> {
        match name {
            "user" => {
                self.driver.user(value);
            }
            "password" => {
                self.driver.password(value);
            }
            "dbname" => {
                self.driver.dbname(value);
            }
            // SQLAlchemy writes spaces as plus signs, which no option contains.
            "options" => {
                self.driver.options(value.replace('+', " "));
            }
            "application_name" | "ApplicationName" => {
                self.driver.application_name(value);
            }
            "fallback_application_name" => value.clone_into(&mut self.fallback_name),
            "host" => self.hosts = value.split(',').map(host).collect(),
            "hostaddr" => {
                let addresses = value
                    .split(',')
                    .map(|address| parsed(name, address, "an IP address"));
                self.addresses = addresses.collect::<Result<_, _>>()?;
            }
            "port" => {
                let ports = value.split(',').map(|port| match port {
                    "" => Ok(5432),
                    port => parsed(name, port, "a port number"),
                });
                self.ports = ports.collect::<Result<_, _>>()?;
            }
            "connect_timeout" | "connectTimeout" => {
                self.connect_timeout = seconds(name, value)?;
            }
            "tcp_user_timeout" => {
                let milliseconds = parsed(name, value, "a number of milliseconds")?;
                self.driver.tcp_user_timeout(Duration::from_millis(milliseconds));
            }
            "keepalives" => {
                self.driver.keepalives(is_on(name, value)?);
            }
            "keepalives_idle" => {
                if let Some(idle) = seconds(name, value)? {
                    self.driver.keepalives_idle(idle);
                }
            }
            "keepalives_interval" => {
                if let Some(interval) = seconds(name, value)? {
                    self.driver.keepalives_interval(interval);
                }
            }
            "keepalives_count" | "keepalives_retries" => {
                self.driver.keepalives_retries(parsed(name, value, "a number")?);
            }
            "target_session_attrs" | "targetServerType" => {
                self.session_attrs = session_attrs(name, value)?;
            }
            "load_balance_hosts" => {
                let balance = choice(
                    name,
                    value,
                    &[
                        ("disable", LoadBalanceHosts::Disable),
                        ("random", LoadBalanceHosts::Random),
                    ],
                )?;
                self.driver.load_balance_hosts(balance);
            }
            _ if self.set_tls(name, value)? => {}
            "pool_mode" => {
                self.pool_mode = Some(choice(
                    name,
                    value,
                    &[
                        ("session", PoolMode::Session),
                        ("transaction", PoolMode::Transaction),
                    ],
                )?);
            }
            // Prisma's name for the transaction mode.
            "pgbouncer" => {
                if is_on(name, value)? {
                    self.pool_mode.get_or_insert(PoolMode::Transaction);
                }
            }
            "prepared_statements" => {
                let values = [("on", true), ("off", false), ("true", true), ("false", false)];
                self.prepared_statements = Some(choice(name, value, &values)?);
            }
            "client_encoding" | "encoding" | "charset" => {
                only(name, &value.to_lowercase(), &["utf8", "utf-8", "unicode", "auto"])?;
            }
            "gssencmode" => only(name, value, &["disable", "prefer"])?,
            "min_protocol_version" => only(name, value, &["3.0"])?,
            "replication" => only(name, value, &["false", "off", "no", "0"])?,
            // Prisma's switch for the verification of certificates.
            "sslaccept" => only(name, value, &["strict"])?,
            "schema" | "currentSchema" | "schema_search_path" | "search_path" => {
                if value != "public" {
                    return Err(InvalidUrl(format!(
                        "{name} is not supported; use options=-csearch_path%3D..., or ALTER ROLE ... SET search_path"
                    )));
                }
            }
            _ if IGNORED.contains(&name) => self.ignored.push(name.to_owned()),
            _ => {
                let rejected = REJECTED.iter().find(|(rejected, _)| *rejected == name);
                return Err(match rejected {
                    Some((name, instead)) => InvalidUrl(format!("{name} is not supported; {instead}")),
                    None => InvalidUrl(format!("unknown parameter{}", quoted(name))),
                });
            }
        }
        Ok(())
    }

    /// Sets a TLS parameter. Returns false if `name` is not one.
    fn set_tls(&mut self, name: &str, value: &str) -> Result<bool, InvalidUrl> {
        match name {
            "sslmode" | "ssl" | "requiressl" => {
                self.ssl_mode = Some(choice(
                    name,
                    value,
                    &[
                        ("disable", SslMode::Disable),
                        ("allow", SslMode::Prefer),
                        ("prefer", SslMode::Prefer),
                        ("require", SslMode::Require),
                        ("verify-ca", SslMode::Require),
                        ("verify-full", SslMode::Require),
                        // Other drivers' values of `ssl`, and libpq's of `requiressl`.
                        ("true", SslMode::Require),
                        ("1", SslMode::Require),
                        ("false", SslMode::Disable),
                        ("0", SslMode::Prefer),
                    ],
                )?);
            }
            "sslrootcert" => {
                self.roots = Some(match value {
                    "system" => Certificates::System,
                    file => Certificates::File(file.into()),
                });
            }
            "sslcert" => self.certificate = Some(value.into()),
            "sslkey" => self.key = Some(value.into()),
            "sslcertmode" => {
                let modes = [("disable", false), ("allow", true), ("require", true)];
                self.uses_certificate = choice(name, value, &modes)?;
            }
            "sslsni" => self.sni = is_on(name, value)?,
            "ssl_min_protocol_version" => {
                let versions = [
                    ("TLSv1", false),
                    ("TLSv1.1", false),
                    ("TLSv1.2", false),
                    ("TLSv1.3", true),
                ];
                if choice(name, value, &versions)? {
                    self.only_tls(ONLY_TLS13)?;
                }
            }
            "ssl_max_protocol_version" => {
                if choice(name, value, &[("TLSv1.2", true), ("TLSv1.3", false)])? {
                    self.only_tls(ONLY_TLS12)?;
                }
            }
            "sslnegotiation" => {
                let negotiations = [
                    ("postgres", SslNegotiation::Postgres),
                    ("direct", SslNegotiation::Direct),
                ];
                self.driver.ssl_negotiation(choice(name, value, &negotiations)?);
            }
            "channel_binding" => {
                let bindings = [
                    ("disable", ChannelBinding::Disable),
                    ("prefer", ChannelBinding::Prefer),
                    ("require", ChannelBinding::Require),
                ];
                self.driver.channel_binding(choice(name, value, &bindings)?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Allows only this version of TLS.
    fn only_tls(&mut self, version: &'static [&'static SupportedProtocolVersion]) -> Result<(), InvalidUrl> {
        if self.tls_versions != TLS_VERSIONS && self.tls_versions != version {
            let problem = "ssl_min_protocol_version is later than ssl_max_protocol_version";
            return Err(InvalidUrl(problem.to_owned()));
        }
        self.tls_versions = version;
        Ok(())
    }
}

fn host(name: &str) -> Host {
    if name.starts_with('/') {
        Host::Unix(name.into())
    } else {
        Host::Tcp(name.to_owned())
    }
}

/// `any`, the default of libpq, leaves the choice to the role: writes need a primary.
fn session_attrs(name: &str, value: &str) -> Result<Option<TargetSessionAttrs>, InvalidUrl> {
    choice(
        name,
        value,
        &[
            ("any", None),
            ("read-write", Some(TargetSessionAttrs::ReadWrite)),
            ("primary", Some(TargetSessionAttrs::ReadWrite)),
            ("read-only", Some(TargetSessionAttrs::ReadOnly)),
            ("standby", Some(TargetSessionAttrs::ReadOnly)),
        ],
    )
}

/// Returns the choice with this name.
fn choice<T: Copy>(name: &str, value: &str, choices: &[(&str, T)]) -> Result<T, InvalidUrl> {
    let chosen = choices.iter().find(|(choice, _)| *choice == value);
    chosen.map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(choice, _)| *choice).collect();
        InvalidUrl(format!("{name} is not one of {}", names.join(", ")))
    })
}

/// Succeeds if the value asks for what Pressroom always does.
fn only(name: &str, value: &str, accepted: &[&str]) -> Result<(), InvalidUrl> {
    let accepted: Vec<_> = accepted.iter().map(|value| (*value, ())).collect();
    choice(name, value, &accepted)
}

fn is_on(name: &str, value: &str) -> Result<bool, InvalidUrl> {
    let values = [
        ("on", true),
        ("true", true),
        ("1", true),
        ("off", false),
        ("false", false),
        ("0", false),
    ];
    choice(name, value, &values)
}

/// Reads a number of seconds; zero and negative numbers mean the default.
fn seconds(name: &str, value: &str) -> Result<Option<Duration>, InvalidUrl> {
    let seconds: i64 = parsed(name, value, "a number of seconds")?;
    Ok(u64::try_from(seconds)
        .ok()
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs))
}

fn parsed<T: std::str::FromStr>(name: &str, value: &str, expected: &str) -> Result<T, InvalidUrl> {
    value
        .parse()
        .map_err(|_invalid| InvalidUrl(format!("{name} is not {expected}")))
}

/// Returns a parameter's name for an error message, unless it may be part of a password.
fn quoted(name: &str) -> String {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if name.len() <= 40 && name.bytes().all(is_name) {
        format!(" `{name}`")
    } else {
        String::new()
    }
}
