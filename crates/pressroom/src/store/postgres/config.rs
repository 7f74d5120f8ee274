//! Settings of a connection, read from a URL.

mod parameters;

use std::{fmt, path::PathBuf, time::Duration};

use rustls::SupportedProtocolVersion;
use tokio::runtime::Handle;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

pub use self::parameters::InvalidUrl;
use self::parameters::Parameters;
pub(super) use self::parameters::{Certificates, PoolMode};

/// Maximum time to connect to one host, including the handshake, unless the URL sets it. TLS and authentication
/// take up to eight round trips.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time for the TCP handshake with one address, unless the URL sets `connect_timeout`.
const TCP_TIMEOUT: Duration = Duration::from_secs(2);

/// Settings of a connection to PostgreSQL. `Debug` prints neither the password nor the user.
#[derive(Clone)]
pub struct PostgresConfig {
    pub(super) connection: tokio_postgres::Config,
    /// Servers to which connections may be opened, if the URL limits them with `target_session_attrs`.
    session_attrs: Option<TargetSessionAttrs>,
    pub(super) tls: Tls,
    /// Maximum time to open one connection, including all hosts and the handshake.
    pub(super) connect_timeout: Duration,
    pub(super) pool_mode: PoolMode,
    /// Whether statements may be prepared on a connection.
    pub(super) prepared_statements: bool,
    /// Names of URL parameters that have no effect.
    ignored: Vec<String>,
    /// Maximum numbers of connections.
    pub sizes: Sizes,
    /// Runtimes for the connections of reads by key, in the order of [`RequestThreads`](crate::threads::RequestThreads).
    /// If there are none, the runtime that opens the store has these connections.
    pub runtimes: Vec<Handle>,
}

/// Maximum numbers of connections, for each kind of statement.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Reads by key, which share their connections.
    pub reads: usize,
    /// Writes of requests.
    pub writes: usize,
    /// Writes that found a row or table locked.
    pub contended: usize,
    /// Lists.
    pub lists: usize,
    /// Searches.
    pub searches: usize,
    /// Work that no request waits for.
    pub maintenance: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            reads: 2,
            writes: 4,
            contended: 2,
            lists: 2,
            searches: 2,
            maintenance: 2,
        }
    }
}

/// Role of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Primary,
    Replica,
}

/// TLS settings.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    pub(super) certificates: Certificates,
    /// Files of the client certificate and its key.
    pub(super) client: Option<(PathBuf, PathBuf)>,
    pub(super) versions: &'static [&'static SupportedProtocolVersion],
    /// Whether the host name is sent in plain text, for proxies that select the server by it.
    pub(super) sni: bool,
}

impl PostgresConfig {
    /// Parses a `postgres://` or `postgresql://` URL, or SQLAlchemy's `postgresql+driver://`.
    ///
    /// `sslmode=require` and `verify-ca` mean the same as `verify-full`: the certificate must be for this
    /// host and trusted, by the system or through `sslrootcert`. `pool_mode=transaction` is for a pooler that
    /// reassigns connections after each transaction; statements are then prepared only with
    /// `prepared_statements=on`, for poolers that track them.
    ///
    /// # Errors
    /// Returns [`InvalidUrl`] when the URL or one of its parameters is not supported.
    pub fn parse(url: &str) -> Result<Self, InvalidUrl> {
        let (scheme, rest) = url.split_once("://").ok_or_else(InvalidUrl::scheme)?;
        if !matches!(scheme.split('+').next(), Some("postgres" | "postgresql")) {
            return Err(InvalidUrl::scheme());
        }
        // A password may contain an unencoded `?`, but the part after the last `@` cannot.
        let host_at = rest.rfind('@').map_or(0, |at| at + 1);
        let (address, query) = match rest[host_at..].split_once('?') {
            Some((address, query)) => (&rest[..host_at + address.len()], query),
            None => (rest, ""),
        };

        let url: tokio_postgres::Config =
            format!("postgresql://{address}")
                .parse()
                .map_err(|_quotes_the_url| {
                    InvalidUrl(
                    "the URL cannot be parsed; special characters in the password must be percent-encoded"
                        .to_owned(),
                )
                })?;
        let parameters = Parameters::parse(&url, query)?;
        let ssl_mode = parameters.ssl_mode()?;
        let mut connection = parameters.driver;
        let (names, addresses) = (connection.get_hosts().len(), connection.get_hostaddrs().len());
        let hosts = names.max(addresses);
        let unnamed = Host::Tcp(String::new());
        if hosts == 0 || connection.get_hosts().contains(&unnamed) {
            return Err(InvalidUrl(
                "the URL names no host, or the name of a host is empty".to_owned(),
            ));
        }
        let ports = connection.get_ports().len();
        if names.min(addresses) > 0 && names != addresses || ports > 1 && ports != hosts {
            let problem = "the URL names different numbers of hosts, addresses and ports";
            return Err(InvalidUrl(problem.to_owned()));
        }
        connection
            .ssl_mode(ssl_mode)
            .connect_timeout(parameters.connect_timeout.unwrap_or(TCP_TIMEOUT));
        let client = match (parameters.certificate, parameters.key) {
            _ if !parameters.uses_certificate => None,
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            _ => return Err(InvalidUrl("sslcert and sslkey must be set together".to_owned())),
        };
        let pool_mode = parameters.pool_mode.unwrap_or(PoolMode::Session);
        Ok(Self {
            connection,
            session_attrs: parameters.session_attrs,
            tls: Tls {
                certificates: match ssl_mode {
                    SslMode::Require => parameters.roots.unwrap_or(Certificates::System),
                    _ => Certificates::Any,
                },
                client,
                versions: parameters.tls_versions,
                sni: parameters.sni,
            },
            connect_timeout: parameters
                .connect_timeout
                .unwrap_or(CONNECT_TIMEOUT)
                .saturating_mul(u32::try_from(hosts).unwrap_or(u32::MAX)),
            pool_mode,
            prepared_statements: parameters
                .prepared_statements
                .unwrap_or(pool_mode == PoolMode::Session),
            ignored: parameters.ignored,
            sizes: Sizes::default(),
            runtimes: Vec::new(),
        })
    }

    /// Returns the driver's settings for a server with this role. If the URL names several hosts, the primary
    /// is the one that accepts writes.
    pub(super) fn connection_to(&self, role: Role) -> tokio_postgres::Config {
        let several = self
            .connection
            .get_hosts()
            .len()
            .max(self.connection.get_hostaddrs().len())
            > 1;
        let by_role = match role {
            Role::Primary if several => TargetSessionAttrs::ReadWrite,
            _ => TargetSessionAttrs::Any,
        };
        let mut connection = self.connection.clone();
        connection.target_session_attrs(self.session_attrs.unwrap_or(by_role));
        connection
    }

    /// Logs which parameters of the URL have no effect.
    pub(super) fn log_ignored_parameters(&self) {
        if !self.ignored.is_empty() {
            let parameters = self.ignored.join(", ");
            telemetry::warn!(
                db.url_parameters = parameters,
                "parameters of the database URL have no effect"
            );
        }
    }

    /// Returns the database's name, for spans.
    pub(super) fn database(&self) -> String {
        let name = self.connection.get_dbname().or(self.connection.get_user());
        name.unwrap_or_default().to_owned()
    }

    /// Returns the first host and its port, for spans; `None` for a Unix socket.
    pub(super) fn server(&self) -> Option<(String, u16)> {
        let port = self.connection.get_ports().first().copied().unwrap_or(5432);
        match self.connection.get_hosts().first() {
            Some(Host::Tcp(host)) => Some((host.clone(), port)),
            _ => None,
        }
    }
}

impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("server", &self.server())
            .field("database", &self.connection.get_dbname())
            .field("sizes", &self.sizes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_the_scheme_is_accepted() {
        for scheme in [
            "postgres",
            "postgresql",
            "postgresql+psycopg",
            "postgresql+psycopg2",
        ] {
            let config =
                PostgresConfig::parse(&format!("{scheme}://u:p%40ss@db.example:6432/press")).unwrap();
            assert_eq!(config.server(), Some(("db.example".to_owned(), 6432)), "{scheme}");
            assert_eq!(config.database(), "press");
            assert_eq!(config.connection.get_password(), Some(b"p@ss".as_slice()));
        }
        assert_eq!(
            PostgresConfig::parse("mysql://u@h/d").unwrap_err(),
            InvalidUrl::scheme()
        );
    }

    #[test]
    fn sslmode_determines_the_trusted_certificates() {
        let parse = |query: &str| PostgresConfig::parse(&format!("postgres://u@h/d?{query}"));
        assert_eq!(parse("").unwrap().tls.certificates, Certificates::Any);
        assert_eq!(
            parse("sslmode=disable").unwrap().connection.get_ssl_mode(),
            SslMode::Disable
        );
        assert_eq!(
            parse("sslmode=verify-full").unwrap().tls.certificates,
            Certificates::System
        );
        assert_eq!(
            parse("sslrootcert=system").unwrap().tls.certificates,
            Certificates::System
        );
        assert_eq!(
            parse("sslrootcert=system").unwrap().connection.get_ssl_mode(),
            SslMode::Require,
            "as in libpq, connections without TLS are not accepted"
        );
        for weak in ["disable", "allow", "prefer"] {
            for query in [
                format!("sslmode={weak}&sslrootcert=system"),
                format!("sslrootcert=system&sslmode={weak}"),
            ] {
                let error = parse(&query).unwrap_err().to_string();
                assert!(
                    error.starts_with("sslrootcert=system requires"),
                    "{query}: {error}"
                );
            }
        }
        assert_eq!(
            parse("sslmode=require&sslrootcert=%2Fetc%2Fca.pem")
                .unwrap()
                .tls
                .certificates,
            Certificates::File("/etc/ca.pem".into())
        );
        let error = parse("sslmode=on").unwrap_err();
        assert!(error.to_string().starts_with("sslmode is"), "{error}");
    }

    #[test]
    fn the_tls_versions_are_those_between_the_minimum_and_the_maximum() {
        let versions = |min: &str, max: &str| {
            let (min, max) = (
                format!("ssl_min_protocol_version={min}"),
                format!("ssl_max_protocol_version={max}"),
            );
            [format!("{min}&{max}"), format!("{max}&{min}")].map(|query| {
                let config = PostgresConfig::parse(&format!("postgres://u@h/d?{query}"));
                config.ok().map(|config| format!("{:?}", config.tls.versions))
            })
        };
        for (min, max, expected) in [
            ("", "", Some("[TLSv1_3, TLSv1_2]")),
            ("TLSv1", "TLSv1.3", Some("[TLSv1_3, TLSv1_2]")),
            ("TLSv1.3", "TLSv1.3", Some("[TLSv1_3]")),
            ("TLSv1.2", "TLSv1.2", Some("[TLSv1_2]")),
            ("TLSv1.3", "TLSv1.2", None),
        ] {
            let expected = expected.map(str::to_owned);
            assert_eq!(versions(min, max), [expected.clone(), expected], "{min} to {max}");
        }
    }

    #[test]
    fn the_url_sets_the_pool_mode_and_whether_statements_are_prepared() {
        let parse = |query: &str| PostgresConfig::parse(&format!("postgres://u@h/d?{query}"));
        assert_eq!(parse("").unwrap().pool_mode, PoolMode::Session);
        assert_eq!(parse("pool_mode=session").unwrap().pool_mode, PoolMode::Session);
        assert!(parse("").unwrap().prepared_statements);
        let pooled = parse("sslmode=disable&pool_mode=transaction").unwrap();
        assert_eq!(pooled.pool_mode, PoolMode::Transaction);
        assert!(!pooled.prepared_statements);
        let pooled = parse("pool_mode=transaction&prepared_statements=on").unwrap();
        assert_eq!(pooled.pool_mode, PoolMode::Transaction);
        assert!(pooled.prepared_statements);
        assert!(!parse("prepared_statements=off").unwrap().prepared_statements);
        let error = parse("prepared_statements=1").unwrap_err();
        assert!(error.to_string().starts_with("prepared_statements is"), "{error}");
        let error = parse("pool_mode=statement").unwrap_err();
        assert!(error.to_string().starts_with("pool_mode is"), "{error}");
    }

    #[test]
    fn each_parameter_of_libpq_is_honoured_ignored_or_rejected_by_its_name() {
        // The `conninfoOptions` of libpq 18, except those for debugging, each with a value other than its default.
        for parameter in [
            "application_name=x",
            "channel_binding=require",
            "client_encoding=LATIN1",
            "connect_timeout=7",
            "dbname=x",
            "fallback_application_name=x",
            "gssdelegation=1",
            "gssencmode=require",
            "gsslib=gssapi",
            "host=other",
            "hostaddr=10.0.0.1",
            "keepalives=0",
            "keepalives_count=5",
            "keepalives_idle=5",
            "keepalives_interval=5",
            "krbsrvname=x",
            "load_balance_hosts=random",
            "max_protocol_version=3.2",
            "min_protocol_version=3.2",
            "oauth_client_id=x",
            "oauth_client_secret=x",
            "oauth_issuer=x",
            "oauth_scope=x",
            "options=-cwork_mem%3D1MB",
            "passfile=x",
            "password=x",
            "port=5433",
            "replication=true",
            "require_auth=scram-sha-256",
            "requirepeer=x",
            "requiressl=1",
            "scram_client_key=x",
            "scram_server_key=x",
            "service=x",
            "servicefile=x",
            "ssl_max_protocol_version=TLSv1.2",
            "ssl_min_protocol_version=TLSv1.3",
            "sslcertmode=disable",
            "sslcompression=1",
            "sslcrl=x",
            "sslcrldir=x",
            "sslkeylogfile=x",
            "sslmode=verify-full",
            "sslnegotiation=direct",
            "sslpassword=x",
            "sslrootcert=x&sslmode=require",
            "sslsni=0",
            "target_session_attrs=read-write",
            "tcp_user_timeout=5",
            "user=x",
        ] {
            let name = parameter.split('=').next().unwrap();
            // The differences show which parameters have an effect.
            let settings = |query: &str| {
                PostgresConfig::parse(&format!("postgres://h/d?{query}")).map(|config| {
                    let effect = format!(
                        "{:?} {:?} {:?} {:?} {:?}",
                        config.connection,
                        config.connection.get_ssl_negotiation(),
                        config.session_attrs,
                        config.tls,
                        config.connect_timeout
                    );
                    (
                        effect,
                        config.connection.get_password().map(<[u8]>::to_vec),
                        config.ignored,
                    )
                })
            };
            let default = settings("").unwrap();
            match settings(parameter) {
                Err(error) => assert!(
                    error.to_string().starts_with(&format!("{name} is not")),
                    "{error}"
                ),
                Ok((_, _, ignored)) if !ignored.is_empty() => assert_eq!(ignored, [name]),
                Ok(changed) if name == "sslcertmode" => assert_eq!(changed, default),
                Ok(changed) => assert_ne!(changed, default, "{name} has no effect"),
            }
        }
    }

    #[test]
    fn parameters_of_other_drivers_and_providers_are_honoured_ignored_or_rejected() {
        let parse = |query: &str| PostgresConfig::parse(&format!("postgres://u@h/d?{query}"));
        let pooled = parse("pgbouncer=true&connection_limit=1&schema=public").unwrap();
        assert_eq!(pooled.pool_mode, PoolMode::Transaction);
        assert_eq!(pooled.ignored, ["connection_limit"]);
        let ignored = parse("sslaccept=strict&search_path=public&TimeZone=UTC&autosave=always")
            .unwrap()
            .ignored;
        assert_eq!(ignored, ["TimeZone", "autosave"]);
        assert_eq!(
            parse("pgbouncer=true&pool_mode=session").unwrap().pool_mode,
            PoolMode::Session
        );
        assert_eq!(parse("ssl=true").unwrap().tls.certificates, Certificates::System);
        let client = parse("sslcert=c.pem&sslkey=k.pem").unwrap().tls.client;
        assert_eq!(client, Some(("c.pem".into(), "k.pem".into())));
        for (query, expected) in [
            ("schema=app", "schema is not supported"),
            ("search_path=app", "search_path is not supported"),
            ("sslaccept=accept_invalid_certs", "sslaccept is not one of strict"),
            ("sslidentity=c.p12", "sslidentity is not supported; use sslcert"),
            ("sslcert=c.pem", "sslcert and sslkey"),
            ("frobnicate=1", "unknown parameter `frobnicate`"),
            ("sslmod=require", "unknown parameter `sslmod`"),
            (
                "target_session_attrs=prefer-standby",
                "target_session_attrs is not one of",
            ),
            (
                "connect_timeout=soon",
                "connect_timeout is not a number of seconds",
            ),
        ] {
            let error = parse(query).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{query}: {error}");
        }
        let options = parse("options=-c+work_mem%3D1MB%20-cjit%3Doff").unwrap();
        assert_eq!(
            options.connection.get_options(),
            Some("-c work_mem=1MB -cjit=off")
        );
    }

    #[test]
    fn hosts_and_ports_of_the_query_string_replace_those_before_it() {
        let servers = |url: &str| {
            let connection = PostgresConfig::parse(url)?.connection;
            let hosts = connection.get_hosts().iter().map(|host| match host {
                Host::Tcp(name) => name.clone(),
                Host::Unix(folder) => folder.display().to_string(),
            });
            let hosts = hosts.collect::<Vec<_>>().join(",");
            Ok((
                hosts,
                connection.get_ports().to_vec(),
                connection.get_hostaddrs().len(),
            ))
        };
        for (url, hosts, ports, addresses) in [
            ("postgres://u@h:5432/d?port=5433", "h", &[5433][..], 0),
            ("postgres://u@h/d?port=5433", "h", &[5433], 0),
            ("postgres://u@h:6432/d?host=i", "i", &[6432], 0),
            ("postgres://u@h:1,i:2/d?host=j,k&port=3,4", "j,k", &[3, 4], 0),
            ("postgres://u@h:1,i:2/d?port=3", "h,i", &[3], 0),
            ("postgres://u@h/d?host=i&host=j&port=1&port=2", "j", &[2], 0),
            ("postgres://u@/d?host=%2Ftmp", "/tmp", &[], 0),
            ("postgres://u@h:5433/d?host=&port=", "h", &[5433], 0),
            ("postgres://u@h,i/d?port=,5433", "h,i", &[5432, 5433], 0),
            (
                "postgres://u@h/d?hostaddr=10.0.0.1,10.0.0.2&hostaddr=10.0.0.3",
                "h",
                &[5432],
                1,
            ),
        ] {
            let expected = (hosts.to_owned(), ports.to_vec(), addresses);
            assert_eq!(servers(url), Ok::<_, InvalidUrl>(expected), "{url}");
        }
        for url in [
            "postgres://u@h:1,i:2/d?host=j",
            "postgres://u@h/d?port=1,2",
            "postgres://u@h/d?hostaddr=10.0.0.1,10.0.0.2",
        ] {
            let error = servers(url).unwrap_err().to_string();
            assert!(error.contains("different numbers of hosts"), "{url}: {error}");
        }
        for url in [
            "postgres://u@/d",
            "postgres://u@:5432/d",
            "postgres://u@h,/d",
            "postgres://u@/d?host=",
            "postgres://u@h/d?host=,",
            "postgres://u@h/d?host=i,,j",
        ] {
            let error = servers(url).unwrap_err().to_string();
            assert!(error.contains("names no host"), "{url}: {error}");
        }
    }

    #[test]
    fn the_connect_timeout_of_the_url_applies_to_each_host() {
        let limit = |url: &str| PostgresConfig::parse(url).unwrap().connect_timeout;
        assert_eq!(limit("postgres://u@h/d"), Duration::from_secs(10));
        assert_eq!(
            limit("postgres://u@h/d?connect_timeout=0"),
            Duration::from_secs(10)
        );
        assert_eq!(
            limit("postgres://u@h/d?connect_timeout=3"),
            Duration::from_secs(3)
        );
        assert_eq!(
            limit("postgres://u@h,i/d?connect_timeout=3"),
            Duration::from_secs(6)
        );
        let longest = format!("postgres://u@h,i/d?connect_timeout={}", i64::MAX);
        assert!(limit(&longest) > Duration::from_secs(3600));
    }

    #[test]
    fn the_primary_is_the_one_of_several_hosts_that_accepts_writes() {
        let attrs = |url: &str, role| {
            let config = PostgresConfig::parse(url).unwrap();
            config.connection_to(role).get_target_session_attrs()
        };
        let (one, two) = ("postgres://u@a/d", "postgres://u@a:1,b:2/d");
        assert_eq!(attrs(one, Role::Primary), TargetSessionAttrs::Any);
        assert_eq!(attrs(two, Role::Primary), TargetSessionAttrs::ReadWrite);
        assert_eq!(attrs(two, Role::Replica), TargetSessionAttrs::Any);
        let any = "postgres://u@a:1,b:2/d?target_session_attrs=any";
        assert_eq!(attrs(any, Role::Primary), TargetSessionAttrs::ReadWrite);
        assert_eq!(attrs(any, Role::Replica), TargetSessionAttrs::Any);
        let standby = "postgres://u@a/d?target_session_attrs=standby";
        assert_eq!(attrs(standby, Role::Replica), TargetSessionAttrs::ReadOnly);
    }

    #[test]
    fn neither_errors_nor_debug_output_contain_the_password() {
        for url in [
            "postgres://u:secret?x=1@h/d?other=secret",
            "postgres://u:secret@h:port/d",
            "postgres://u:secret@h/d?unknown=secret",
        ] {
            let error = PostgresConfig::parse(url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("secret"));
        }
        let config = PostgresConfig::parse("postgres://user:secret@h/d").unwrap();
        assert!(!format!("{config:?}").contains("secret"));
    }
}
