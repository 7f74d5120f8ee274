//! The configuration of each command.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use celeriac::RedisConfig;

#[cfg(feature = "observatory")]
use super::observatory::{OBSERVATORY_MEMORY, ObservatorySettings};
use super::{
    error::ConfigError,
    given::{Configuration, configuration},
    parts::{
        ApiConfig, WorkConfig, address, data_dir, database, embedded_environment, environment, postgres,
        queues, redis, replica, required_secret_key, secret_key,
    },
    reader::Reader,
    setting::Setting,
    settings::*,
};
use crate::{accounts::SecretKey, store::postgres::PostgresConfig};

configuration! {
    /// Configuration of `pressroom serve`.
    ServeConfig after environment[APP_ENV, FLASK_ENV] {
        listen: SocketAddr = address[HOST, PORT];
        secret_key: SecretKey = required_secret_key[SECRET_KEY];
        database: PostgresConfig = database[DATABASE_URL];
        replica: Option<PostgresConfig> = replica[DATABASE_READ_URL];
        redis: RedisConfig = redis[REDIS_URL, CELERY_VISIBILITY_TIMEOUT];
        api: ApiConfig;
        /// The queues to watch; tasks are sent to the first.
        queues: Vec<String> = queues[CELERY_QUEUES];
        shutdown_grace: Duration = Reader::seconds[SHUTDOWN_GRACE];
        /// Time between failing readiness checks and refusing connections; may be zero.
        shutdown_delay: Duration = Reader::delay[SHUTDOWN_DELAY];
    }
}

configuration! {
    /// Configuration of `pressroom worker`.
    WorkerConfig after environment[APP_ENV, FLASK_ENV] {
        database: PostgresConfig = database[DATABASE_URL];
        redis: RedisConfig = redis[REDIS_URL, CELERY_VISIBILITY_TIMEOUT];
        work: WorkConfig;
        /// The worker's node name.
        hostname: String = hostname[CELERY_HOSTNAME];
        shutdown_grace: Duration = Reader::seconds[SHUTDOWN_GRACE];
    }
}

fn hostname(reader: &mut Reader, setting: Setting) -> Result<String, ConfigError> {
    reader.required(setting, |given| {
        let default = celeriac::default_node_name();
        let host = default.split_once('@').map_or("", |(_, host)| host);
        let name = given.replace("%h", host);
        match name.split_once('@') {
            Some((node, host))
                if !node.is_empty() && !host.is_empty() && !name.contains(char::is_whitespace) =>
            {
                Ok((name.clone(), name))
            }
            _ => Err(format!("{name:?} is not of the form name@host")),
        }
    })
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
            &ApiConfig::settings(),
            &WorkConfig::settings(),
            &[SHUTDOWN_GRACE],
            &last,
        ]
        .concat()
    }

    fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        const UNUSED: &str = "is not used in embedded mode; run `pressroom serve`, or unset it";
        embedded_environment(reader, APP_ENV, FLASK_ENV)?;
        reader.refuse(DATABASE_READ_URL, UNUSED)?;
        reader.refuse(REDIS_URL, UNUSED)?;
        let listen = address(reader, HOST.or("127.0.0.1"), PORT)?;
        let secret_key = secret_key(reader, SECRET_KEY, &[])?;
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

/// The database to migrate.
#[derive(Debug, Clone)]
pub enum MigrateDatabase {
    Postgres(Box<PostgresConfig>),
    /// The path of the file.
    Sqlite(String),
}

configuration! {
    /// Configuration of `pressroom migrate`.
    MigrateConfig {
        database: MigrateDatabase = migrate_database[DATABASE_URL];
    }
}

fn migrate_database(reader: &mut Reader, setting: Setting) -> Result<MigrateDatabase, ConfigError> {
    reader.required(setting, |url| match url.strip_prefix("sqlite://") {
        Some(path) if !path.is_empty() => Ok((MigrateDatabase::Sqlite(path.to_owned()), url.to_owned())),
        _ => postgres(url).map(|(config, shown)| (MigrateDatabase::Postgres(Box::new(config)), shown)),
    })
}

configuration! {
    /// Configuration of `pressroom tasks`.
    TasksConfig {
        redis: RedisConfig = redis[REDIS_URL, CELERY_VISIBILITY_TIMEOUT];
    }
}

configuration! {
    /// Configuration of `pressroom healthcheck`.
    HealthcheckConfig {
        /// The address that the API listens on.
        api: SocketAddr = address[HOST, PORT];
    }
}

configuration! {
    /// Configuration of `pressroom traces` and `pressroom logs`.
    ExploreConfig {
        /// The address of the observatory's pages.
        pages: SocketAddr = address[OBSERVATORY_HOST, OBSERVATORY_PORT];
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
