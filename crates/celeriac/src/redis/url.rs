//! Parses Redis URLs, which name one server or the sentinels that monitor it. Certificates are query
//! parameters, as in Celery, so Celery and this crate can share a URL.

use std::{collections::HashMap, path::PathBuf};

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use url::Url;

use super::error::ConfigError;

const SENTINEL_PORT: u16 = 26379;

/// Parsed URL.
pub(super) struct Location {
    /// Address of the server, or the addresses of the sentinels, each with the settings of the server.
    pub addresses: Vec<ConnectionInfo>,
    /// Name under which the sentinels monitor the server.
    pub master: Option<String>,
    parameters: HashMap<String, String>,
}

impl Location {
    pub(super) fn parse(url: &str) -> Result<Self, ConfigError> {
        let (scheme, rest) = url.split_once("://").ok_or(ConfigError::Url)?;
        let is_sentinel = matches!(scheme, "sentinel" | "sentinels");
        let urls = match scheme {
            "sentinel" => each_host(scheme, "redis", rest)?,
            "sentinels" => each_host(scheme, "rediss", rest)?,
            "redis+socket" => vec![socket(rest)?],
            other => match unsupported(other) {
                Some(name) => return Err(ConfigError::Unsupported(name)),
                None => vec![Url::parse(url).map_err(|_| ConfigError::Url)?],
            },
        };
        let parameters: HashMap<String, String> = urls
            .iter()
            .flat_map(|url| url.query_pairs().into_owned())
            .collect();
        let verified = parameters
            .get("ssl_cert_reqs")
            .is_none_or(|required| matches!(required.as_str(), "required" | "CERT_REQUIRED"));
        if !verified || url.ends_with("#insecure") {
            return Err(ConfigError::Unverified);
        }
        let master = ["master", "master_name"]
            .into_iter()
            .find_map(|name| parameters.get(name).filter(|name| !name.is_empty()))
            .cloned();
        if is_sentinel && master.is_none() {
            return Err(ConfigError::Master);
        }
        // The error of redis-rs is discarded: it could quote the URL, which may contain a password.
        let addresses = urls
            .into_iter()
            .map(|url| url.into_connection_info().map_err(|_| ConfigError::Url));
        Ok(Self {
            addresses: addresses.collect::<Result<_, _>>()?,
            master: master.filter(|_| is_sentinel),
            parameters,
        })
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// Returns a parameter that names a file.
    pub(super) fn file(&self, name: &str) -> Option<PathBuf> {
        self.parameter(name).map(PathBuf::from)
    }
}

/// Schemes of Celery's other brokers and result backends.
const OTHER_SCHEMES: [&str; 22] = [
    "amqp",
    "amqps",
    "azureblockblob",
    "azureservicebus",
    "cache",
    "cassandra",
    "confluentkafka",
    "consul",
    "cosmosdbsql",
    "couchbase",
    "couchdb",
    "db",
    "dynamodb",
    "elasticsearch",
    "filesystem",
    "gcpubsub",
    "gs",
    "memory",
    "mongodb",
    "pyamqp",
    "rpc",
    "sqs",
];

/// Returns the name of a broker or result backend of Celery that is not Redis.
fn unsupported(scheme: &str) -> Option<&'static str> {
    let name = scheme.split('+').next();
    OTHER_SCHEMES.into_iter().find(|known| Some(*known) == name)
}

/// Returns the host and port of an address, unless it is a Unix socket.
pub(super) fn host_and_port(info: &ConnectionInfo) -> Option<(String, u16)> {
    match info.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Some((host.clone(), *port))
        }
        _ => None,
    }
}

/// Returns a URL for each sentinel. `rest` is the part after `sentinel://`:
/// `[user:password@]host[:port][,host[:port]...][/database][?parameters]`, or Celery's own form, a URL for
/// each host, separated by semicolons.
fn each_host(scheme: &str, plain: &str, rest: &str) -> Result<Vec<Url>, ConfigError> {
    let mut urls = Vec::new();
    for part in rest.split(&format!(";{scheme}://")) {
        let (authority, tail) = part.split_at(part.find(['/', '?', '#']).unwrap_or(part.len()));
        let (account, hosts) = match authority.rsplit_once('@') {
            Some((account, hosts)) => (format!("{account}@"), hosts),
            None => (String::new(), authority),
        };
        for host in hosts.split(',') {
            let url = format!("{plain}://{account}{host}{tail}");
            let mut url = Url::parse(&url).map_err(|_| ConfigError::Url)?;
            if url.port().is_none() {
                url.set_port(Some(SENTINEL_PORT)).map_err(|()| ConfigError::Url)?;
            }
            urls.push(url);
        }
    }
    Ok(urls)
}

/// Returns the URL of a Unix socket as redis-rs expects it. `rest` is the part after Celery's
/// `redis+socket://`: `/path[?virtual_host=database]`.
fn socket(rest: &str) -> Result<Url, ConfigError> {
    let mut url = Url::parse(&format!("unix://{rest}")).map_err(|_| ConfigError::Url)?;
    let database = url
        .query_pairs()
        .into_owned()
        .find(|(name, _)| name == "virtual_host");
    if let Some((_, database)) = database {
        url.query_pairs_mut().append_pair("db", &database);
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::{RedisBroker, RedisConfig};

    fn addresses(url: &str) -> Vec<String> {
        let location = Location::parse(url).unwrap();
        location
            .addresses
            .iter()
            .map(|info| {
                let settings = info.redis_settings();
                let account = (settings.username(), settings.password());
                format!("{} {} {account:?}", info.addr(), settings.db())
            })
            .collect()
    }

    #[test]
    fn sentinels_are_separated_by_commas_and_have_a_default_port() {
        assert_eq!(
            addresses("sentinel://user:pass%2Cword@one,two:5000,[::1]/3?master=news"),
            [
                r#"one:26379 3 (Some("user"), Some("pass,word"))"#,
                r#"two:5000 3 (Some("user"), Some("pass,word"))"#,
                r#"::1:26379 3 (Some("user"), Some("pass,word"))"#,
            ]
        );
        let location = Location::parse("sentinels://one?master=news").unwrap();
        assert_eq!(location.master.as_deref(), Some("news"));
        assert!(matches!(
            location.addresses[0].addr(),
            ConnectionAddr::TcpTls { .. }
        ));
        assert_eq!(addresses("redis://one"), ["one:6379 0 (None, None)"]);
        for url in [
            "unix:///run/redis.sock?db=2",
            "redis+socket:///run/redis.sock?virtual_host=2",
        ] {
            assert_eq!(addresses(url), ["/run/redis.sock 2 (None, None)"], "{url}");
        }
        assert_eq!(Location::parse("redis://one?master=news").unwrap().master, None);
    }

    #[test]
    fn celerys_list_of_sentinels_is_parsed() {
        let url = "sentinel://:p;w@one:26380/3;sentinel://:p;w@two/3?master_name=news";
        assert_eq!(
            addresses(url),
            [
                r#"one:26380 3 (None, Some("p;w"))"#,
                r#"two:26379 3 (None, Some("p;w"))"#,
            ]
        );
        assert_eq!(Location::parse(url).unwrap().master.as_deref(), Some("news"));
    }

    #[test]
    fn invalid_urls_are_rejected() {
        let error = |url: &str| Location::parse(url).err();
        assert_eq!(error("sentinel://one,two"), Some(ConfigError::Master));
        assert_eq!(error("sentinel://one/0?master="), Some(ConfigError::Master));
        for url in [
            "sentinel://?master=x",
            "sentinel://one,,two?master=x",
            "sentinel://one;redis://two?master=x",
            "redis+socket://host/run/redis.sock",
            "sentinel://one/zero?master=x",
            "postgres://one",
            "one:6379",
            "",
        ] {
            assert_eq!(error(url), Some(ConfigError::Url), "{url}");
        }
    }

    #[test]
    fn brokers_and_result_backends_other_than_redis_are_named() {
        for (url, scheme) in [
            ("rpc://", "rpc"),
            ("amqp://guest:guest@localhost//", "amqp"),
            ("db+postgresql://user:password@host/base", "db"),
            ("cache+memcached://127.0.0.1:11211/", "cache"),
            ("mongodb://127.0.0.1", "mongodb"),
        ] {
            assert_eq!(
                Location::parse(url).err(),
                Some(ConfigError::Unsupported(scheme)),
                "{url}"
            );
            let config = RedisConfig::new("redis://one").result_backend(url);
            let error = RedisBroker::new(config).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("result_backend: {scheme} is not supported")),
                "{error}"
            );
        }
    }

    #[test]
    fn certificates_are_always_verified() {
        let error = |url: &str| Location::parse(url).err();
        assert_eq!(error("rediss://one?ssl_cert_reqs=required"), None);
        assert_eq!(error("rediss://one?ssl_cert_reqs=CERT_REQUIRED"), None);
        for url in [
            "rediss://one?ssl_cert_reqs=none",
            "rediss://one?ssl_cert_reqs=CERT_OPTIONAL",
            "rediss://one#insecure",
        ] {
            assert_eq!(error(url), Some(ConfigError::Unverified), "{url}");
        }
    }
}
