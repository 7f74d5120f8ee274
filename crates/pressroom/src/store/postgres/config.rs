//! Settings of a connection, read from a URL.

use std::{fmt, path::PathBuf, time::Duration};

use tokio_postgres::config::{Host, SslMode};

/// Maximum time to open one connection, including all hosts and the handshake.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Settings of a connection to PostgreSQL. `Debug` prints neither the password nor the user.
#[derive(Clone)]
pub struct PostgresConfig {
    pub(super) connection: tokio_postgres::Config,
    pub(super) certificates: Certificates,
    pub(super) pool_mode: PoolMode,
    /// Whether statements may be prepared on a connection.
    pub(super) prepared_statements: bool,
    /// Number of shared connections for single statements.
    pub pipeline_size: usize,
    /// Number of connections for transactions and slow statements.
    pub pool_size: usize,
}

/// Trusted server certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Certificates {
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
pub(super) enum PoolMode {
    /// All state: the connection is one session of the server.
    Session,
    /// No state: a pooler sends each transaction over any of its connections to the server.
    Transaction,
}

/// Reason a database URL is rejected. Does not quote the URL, which may contain a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidUrl(&'static str);

impl InvalidUrl {
    const SCHEME: Self = Self("not a postgres://, postgresql:// or postgresql+psycopg:// URL");
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
        let (scheme, rest) = url.split_once("://").ok_or(InvalidUrl::SCHEME)?;
        if !matches!(scheme.split('+').next(), Some("postgres" | "postgresql")) {
            return Err(InvalidUrl::SCHEME);
        }
        // A password may contain an unencoded `?`, but the part after the last `@` cannot.
        let host_at = rest.rfind('@').map_or(0, |at| at + 1);
        let (address, query) = match rest[host_at..].split_once('?') {
            Some((address, query)) => (&rest[..host_at + address.len()], query),
            None => (rest, ""),
        };

        let mut ssl_mode = SslMode::Prefer;
        let mut root = None;
        let mut pool_mode = PoolMode::Session;
        let mut prepared_statements = None;
        // Parameters for the driver.
        let mut others = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("sslmode", "disable") => ssl_mode = SslMode::Disable,
                ("sslmode", "allow" | "prefer") => ssl_mode = SslMode::Prefer,
                ("sslmode", "require" | "verify-ca" | "verify-full") => ssl_mode = SslMode::Require,
                ("sslmode", _) => {
                    return Err(InvalidUrl(
                        "sslmode is not one of disable, allow, prefer, require, verify-ca, verify-full",
                    ));
                }
                ("pool_mode", "session") => pool_mode = PoolMode::Session,
                ("pool_mode", "transaction") => pool_mode = PoolMode::Transaction,
                ("pool_mode", _) => return Err(InvalidUrl("pool_mode is neither session nor transaction")),
                ("prepared_statements", "on") => prepared_statements = Some(true),
                ("prepared_statements", "off") => prepared_statements = Some(false),
                ("prepared_statements", _) => {
                    return Err(InvalidUrl("prepared_statements is neither on nor off"));
                }
                ("sslrootcert", "system") => {}
                ("sslrootcert", _) => {
                    let mut decoded = url::form_urlencoded::parse(pair.as_bytes());
                    root = decoded.next().map(|(_, path)| PathBuf::from(&*path));
                }
                _ => others.push(pair),
            }
        }

        let mut connection: tokio_postgres::Config = format!("postgresql://{address}?{}", others.join("&"))
            .parse()
            .map_err(|_quotes_the_url| {
                InvalidUrl(
                    "the URL cannot be parsed; special characters in the password must be percent-encoded",
                )
            })?;
        let hosts = connection.get_hosts().len().max(connection.get_hostaddrs().len());
        if hosts == 0 {
            return Err(InvalidUrl("the URL names no host"));
        }
        let per_host = CONNECT_TIMEOUT / u32::try_from(hosts).unwrap_or(u32::MAX);
        connection
            .ssl_mode(ssl_mode)
            .connect_timeout(per_host)
            .tcp_user_timeout(Duration::from_secs(5))
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(3))
            .keepalives_retries(3);
        if connection.get_application_name().is_none() {
            connection.application_name("pressroom");
        }
        Ok(Self {
            connection,
            certificates: match (ssl_mode, root) {
                (SslMode::Require, Some(file)) => Certificates::File(file),
                (SslMode::Require, None) => Certificates::System,
                _ => Certificates::Any,
            },
            pool_mode,
            prepared_statements: prepared_statements.unwrap_or(pool_mode == PoolMode::Session),
            pipeline_size: 2,
            pool_size: 8,
        })
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
            .field("pipeline_size", &self.pipeline_size)
            .field("pool_size", &self.pool_size)
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
            InvalidUrl::SCHEME
        );
    }

    #[test]
    fn sslmode_determines_the_trusted_certificates() {
        let parse = |query: &str| PostgresConfig::parse(&format!("postgres://u@h/d?{query}"));
        assert_eq!(parse("").unwrap().certificates, Certificates::Any);
        assert_eq!(
            parse("sslmode=disable").unwrap().connection.get_ssl_mode(),
            SslMode::Disable
        );
        assert_eq!(
            parse("sslmode=verify-full").unwrap().certificates,
            Certificates::System
        );
        assert_eq!(
            parse("sslmode=require&sslrootcert=%2Fetc%2Fca.pem")
                .unwrap()
                .certificates,
            Certificates::File("/etc/ca.pem".into())
        );
        let error = parse("sslmode=on").unwrap_err();
        assert!(error.to_string().starts_with("sslmode is"), "{error}");
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
    fn neither_errors_nor_debug_output_contain_the_password() {
        for url in [
            "postgres://u:secret?x=1@h/d?secret=1",
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
