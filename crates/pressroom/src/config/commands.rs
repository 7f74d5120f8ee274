//! The configuration of each command.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use celeriac::RedisConfig;

#[cfg(feature = "observatory")]
use super::observatory::{OBSERVATORY_MEMORY, ObservatorySettings};
use super::{
    error::ConfigError,
    given::Configuration,
    parts::{
        ApiConfig, WorkConfig, address, data_dir, database, environment, missing_secret_key, postgres,
        queues, redis, secret_key,
    },
    reader::Reader,
    setting::Setting,
    settings::*,
};
use crate::{accounts::SecretKey, store::postgres::PostgresConfig};

/// Configuration of `pressroom serve`.
#[derive(Debug, Clone)]
pub struct ServeConfig {
    pub listen: SocketAddr,
    pub secret_key: SecretKey,
    pub database: PostgresConfig,
    pub replica: Option<PostgresConfig>,
    pub redis: RedisConfig,
    pub api: ApiConfig,
    /// The queues to watch; tasks are sent to the first.
    pub queues: Vec<String>,
    pub shutdown_grace: Duration,
    /// Time between failing readiness checks and refusing connections; may be zero.
    pub shutdown_delay: Duration,
}

impl Configuration for ServeConfig {
    fn settings() -> Vec<Setting> {
        let first = [
            APP_ENV,
            FLASK_ENV,
            HOST,
            PORT,
            SECRET_KEY,
            DATABASE_URL,
            DATABASE_READ_URL,
            REDIS_URL,
        ];
        let last = [
            CELERY_QUEUES,
            CELERY_VISIBILITY_TIMEOUT,
            SHUTDOWN_GRACE,
            SHUTDOWN_DELAY,
        ];
        [&first[..], &ApiConfig::SETTINGS, &last].concat()
    }

    fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        environment(reader, false)?;
        let listen = address(reader, HOST, PORT)?;
        let secret_key = secret_key(reader, false)?.ok_or_else(missing_secret_key)?;
        Ok(Self {
            listen,
            secret_key,
            database: database(reader)?,
            replica: reader.optional(DATABASE_READ_URL, postgres)?,
            redis: redis(reader)?,
            api: ApiConfig::read(reader)?,
            queues: queues(reader)?,
            shutdown_grace: reader.seconds(SHUTDOWN_GRACE)?,
            shutdown_delay: reader.delay(SHUTDOWN_DELAY)?,
        })
    }
}

/// Configuration of `pressroom worker`.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    pub database: PostgresConfig,
    pub redis: RedisConfig,
    pub work: WorkConfig,
    /// The worker's node name.
    pub hostname: String,
    pub shutdown_grace: Duration,
}

impl Configuration for WorkerConfig {
    fn settings() -> Vec<Setting> {
        let first = [APP_ENV, FLASK_ENV, DATABASE_URL, REDIS_URL];
        let last = [CELERY_HOSTNAME, CELERY_VISIBILITY_TIMEOUT, SHUTDOWN_GRACE];
        [&first[..], &WorkConfig::SETTINGS, &last].concat()
    }

    fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        environment(reader, false)?;
        Ok(Self {
            database: database(reader)?,
            redis: redis(reader)?,
            work: WorkConfig::read(reader)?,
            hostname: reader.required(CELERY_HOSTNAME, hostname)?,
            shutdown_grace: reader.seconds(SHUTDOWN_GRACE)?,
        })
    }
}

fn hostname(given: &str) -> Result<(String, String), String> {
    let default = celeriac::default_node_name();
    let host = default.split_once('@').map_or("", |(_, host)| host);
    let name = given.replace("%h", host);
    match name.split_once('@') {
        Some((node, host)) if !node.is_empty() && !host.is_empty() && !name.contains(char::is_whitespace) => {
            Ok((name.clone(), name))
        }
        _ => Err(format!("{name:?} is not of the form name@host")),
    }
}

/// Configuration of embedded mode.
#[derive(Debug, Clone)]
pub struct DevConfig {
    pub listen: SocketAddr,
    /// `None` for a key that is generated and kept in [`Self::data_dir`].
    pub secret_key: Option<SecretKey>,
    /// Path of the SQLite database.
    pub database: String,
    pub data_dir: PathBuf,
    pub api: ApiConfig,
    pub work: WorkConfig,
    pub shutdown_grace: Duration,
    #[cfg(feature = "observatory")]
    pub observatory: observatory::Config,
}

impl Configuration for DevConfig {
    fn settings() -> Vec<Setting> {
        let first = [
            APP_ENV,
            FLASK_ENV,
            HOST.or("127.0.0.1"),
            PORT,
            SECRET_KEY,
            DATA_DIR,
            DATABASE_URL,
            DATABASE_READ_URL.hidden(),
            REDIS_URL.hidden(),
        ];
        #[cfg(feature = "observatory")]
        let last = ObservatorySettings::EMBEDDED;
        #[cfg(not(feature = "observatory"))]
        let last: [Setting; 0] = [];
        [
            &first[..],
            &ApiConfig::SETTINGS,
            &WorkConfig::SETTINGS,
            &[SHUTDOWN_GRACE],
            &last,
        ]
        .concat()
    }

    fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        const UNUSED: &str = "is not used in embedded mode; run `pressroom serve`, or unset it";
        environment(reader, true)?;
        reader.refuse(DATABASE_READ_URL, UNUSED)?;
        reader.refuse(REDIS_URL, UNUSED)?;
        let listen = address(reader, HOST.or("127.0.0.1"), PORT)?;
        let secret_key = secret_key(reader, true)?;
        let data_dir = data_dir(reader);
        let default = data_dir.join("pressroom.db").to_str().map(str::to_owned);
        let database = reader.optional(DATABASE_URL, |url| match url.strip_prefix("sqlite://") {
            Some(path) if !path.is_empty() => Ok((path.to_owned(), url.to_owned())),
            _ => Err(
                "must be sqlite://PATH in embedded mode; for PostgreSQL run `pressroom serve`, or unset it",
            ),
        })?;
        Ok(Self {
            listen,
            secret_key,
            database: database
                .or(default)
                .ok_or_else(|| ConfigError::new("DATA_DIR", "is not UTF-8"))?,
            api: ApiConfig::read(reader)?,
            work: WorkConfig::read(reader)?,
            shutdown_grace: reader.seconds(SHUTDOWN_GRACE)?,
            #[cfg(feature = "observatory")]
            observatory: ObservatorySettings::read(reader, OBSERVATORY_MEMORY.or("64MiB"), &data_dir)?,
            data_dir,
        })
    }
}

/// Configuration of `pressroom migrate`.
#[derive(Debug, Clone)]
pub struct MigrateConfig {
    pub database: MigrateDatabase,
}

/// The database to migrate.
#[derive(Debug, Clone)]
pub enum MigrateDatabase {
    Postgres(Box<PostgresConfig>),
    /// The path of the file.
    Sqlite(String),
}

impl Configuration for MigrateConfig {
    fn settings() -> Vec<Setting> {
        vec![DATABASE_URL]
    }

    fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        let database = reader.required(DATABASE_URL, |url| match url.strip_prefix("sqlite://") {
            Some(path) if !path.is_empty() => Ok((MigrateDatabase::Sqlite(path.to_owned()), url.to_owned())),
            _ => postgres(url).map(|(config, shown)| (MigrateDatabase::Postgres(Box::new(config)), shown)),
        })?;
        Ok(Self { database })
    }
}

/// Configuration of `pressroom tasks`.
#[derive(Debug, Clone)]
pub struct TasksConfig {
    pub redis: RedisConfig,
}

impl Configuration for TasksConfig {
    fn settings() -> Vec<Setting> {
        vec![REDIS_URL, CELERY_VISIBILITY_TIMEOUT]
    }

    fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        Ok(Self {
            redis: redis(reader)?,
        })
    }
}

/// Configuration of `pressroom healthcheck`.
#[derive(Debug, Clone)]
pub struct HealthcheckConfig {
    /// The address that the API listens on.
    pub api: SocketAddr,
}

impl Configuration for HealthcheckConfig {
    fn settings() -> Vec<Setting> {
        vec![HOST, PORT]
    }

    fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        Ok(Self {
            api: address(reader, HOST, PORT)?,
        })
    }
}

/// Configuration of `pressroom traces` and `pressroom logs`.
#[derive(Debug, Clone)]
pub struct ExploreConfig {
    /// The address of the observatory's pages.
    pub pages: SocketAddr,
}

impl Configuration for ExploreConfig {
    fn settings() -> Vec<Setting> {
        vec![OBSERVATORY_HOST, OBSERVATORY_PORT]
    }

    fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        Ok(Self {
            pages: address(reader, OBSERVATORY_HOST, OBSERVATORY_PORT)?,
        })
    }
}

/// The settings of all commands, for options before a command and for `pressroom config`.
///
/// Reading it checks what `serve` and `worker` read.
#[derive(Debug, Clone)]
pub struct EverySetting;

impl Configuration for EverySetting {
    const BELOW: bool = false;

    /// The settings of embedded mode, which runs without a command, and the others, hidden.
    fn settings() -> Vec<Setting> {
        let mut settings: Vec<Setting> = DevConfig::settings();
        let others = [
            ServeConfig::settings(),
            WorkerConfig::settings(),
            ExploreConfig::settings(),
        ];
        for setting in others.concat() {
            if !settings.iter().any(|known| known.variable == setting.variable) {
                settings.push(setting.hidden());
            }
        }
        settings
    }

    fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        ServeConfig::read(reader)?;
        WorkerConfig::read(reader)?;
        Ok(Self)
    }
}
