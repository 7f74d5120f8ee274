//! Configurations of the commands.

use std::{path::PathBuf, time::Duration};

use celeriac::RedisConfig;

#[cfg(feature = "observatory")]
use super::observatory::EmbeddedObservatory;
use super::{
    error::{ConfigError, Result},
    given::{Configuration, configuration},
    listen::{ListenAddress, listen},
    parts::{
        ApiConfig, LogConfig, WorkConfig, data_dir, database, environment, postgres, queues, redis, replica,
        required_secret_key, secret_key,
    },
    reader::{Reader, shown},
    setting::Setting,
    settings::*,
};
use crate::{accounts::SecretKey, store::postgres::PostgresConfig};

configuration! {
    /// Configuration of `pressroom serve`.
    ServeConfig {
        environment: &'static str = environment[APP_ENV, FLASK_ENV];
        listen: ListenAddress = listen[HOST, PORT];
        secret_key: SecretKey = required_secret_key[SECRET_KEY];
        database: PostgresConfig = database[DATABASE_URL];
        replica: Option<PostgresConfig> = replica[DATABASE_READ_URL];
        redis: RedisConfig = redis[REDIS_URL, CELERY_VISIBILITY_TIMEOUT];
        api: ApiConfig;
        /// Queues to measure; tasks are sent to the first.
        queues: Vec<String> = queues[CELERY_QUEUES];
        /// Time after which a published task without a result is forgotten.
        published_task_lifetime: Duration = Reader::seconds[PUBLISHED_TASK_LIFETIME];
        shutdown_grace: Duration = Reader::seconds[SHUTDOWN_GRACE];
        /// Time between failing readiness checks and closing the listener; may be zero.
        shutdown_delay: Duration = Reader::delay[SHUTDOWN_DELAY];
        log: LogConfig;
    }
}

configuration! {
    /// Configuration of `pressroom worker`.
    WorkerConfig {
        environment: &'static str = environment[APP_ENV, FLASK_ENV];
        database: PostgresConfig = database[DATABASE_URL];
        redis: RedisConfig = redis[REDIS_URL, CELERY_VISIBILITY_TIMEOUT];
        work: WorkConfig;
        /// Node name of the worker.
        hostname: String = hostname[CELERY_HOSTNAME];
        /// Whether task events are sent from the start.
        events: bool = Reader::switch[CELERY_EVENTS];
        /// Time after which other workers take over the tasks of a worker that has died.
        lease: Duration = Reader::lease[CELERY_LEASE];
        shutdown_grace: Duration = Reader::seconds[SHUTDOWN_GRACE];
        log: LogConfig;
    }
}

fn hostname(reader: &mut Reader, setting: Setting) -> Result<String> {
    reader.required(setting, |given| {
        let name = expand_host(given);
        match name.split_once('@') {
            Some((node, host))
                if !node.is_empty() && !host.is_empty() && !name.contains(char::is_whitespace) =>
            {
                Ok(shown(name))
            }
            _ => Err(format!("{name:?} is not of the form name@host")),
        }
    })
}

/// Replaces `%h` in the name of a worker with the name of this host, as Celery does.
pub(crate) fn expand_host(name: &str) -> String {
    let own = celeriac::default_node_name();
    name.replace("%h", own.split_once('@').map_or("", |(_, host)| host))
}

configuration! {
    /// Configuration of embedded mode.
    DevConfig {
        environment: &'static str = supported[APP_ENV, FLASK_ENV, DATABASE_READ_URL.hidden(), REDIS_URL.hidden()];
        listen: ListenAddress = listen[HOST.or("127.0.0.1"), PORT];
        /// `None` for a key that is generated and kept in [`Self::data_dir`].
        secret_key: Option<SecretKey> = secret_key[SECRET_KEY];
        data_dir: PathBuf = data_dir[DATA_DIR];
        /// Path of the SQLite database.
        database: String = sqlite_path[DATABASE_URL];
        api: ApiConfig;
        work: WorkConfig;
        shutdown_grace: Duration = Reader::seconds[SHUTDOWN_GRACE];
        log: LogConfig;
        observatory if "observatory": EmbeddedObservatory;
    }
}

/// Reads the environment, and rejects settings that embedded mode does not support.
fn supported(
    reader: &mut Reader,
    app: Setting,
    flask: Setting,
    replica: Setting,
    redis: Setting,
) -> Result<&'static str> {
    let environment = environment(reader, app, flask)?;
    if environment == "production" {
        let problem = "embedded mode does not run in production; use `pressroom serve` and `pressroom worker`, \
                       or set APP_ENV to development";
        return Err(ConfigError::new(app.variable, problem));
    }
    let problem = "is not used in embedded mode; run `pressroom serve`, or unset it";
    reader.reject(replica, problem)?;
    reader.reject(redis, problem)?;
    Ok(environment)
}

/// Reads the path of the SQLite database, by default in the data folder.
fn sqlite_path(reader: &mut Reader, setting: Setting) -> Result<String> {
    let given = reader.optional(setting, |url| match url.strip_prefix("sqlite://") {
        Some(path) if !path.is_empty() => Ok((path.to_owned(), url.to_owned())),
        _ => Err("must be sqlite://PATH in embedded mode; for PostgreSQL run `pressroom serve`, or unset it"),
    })?;
    let default = data_dir(reader, DATA_DIR)?.join("pressroom.db");
    given
        .or_else(|| default.to_str().map(str::to_owned))
        .ok_or_else(|| ConfigError::new(DATA_DIR.variable, "is not UTF-8"))
}

/// Database to migrate.
#[derive(Debug, Clone)]
pub enum MigrateDatabase {
    Postgres {
        config: Box<PostgresConfig>,
        /// URL without its password, for messages.
        masked_url: String,
    },
    /// Path of the file.
    Sqlite(String),
}

configuration! {
    /// Configuration of `pressroom migrate`.
    MigrateConfig {
        database: MigrateDatabase = migrate_database[DATABASE_URL];
    }
}

fn migrate_database(reader: &mut Reader, setting: Setting) -> Result<MigrateDatabase> {
    reader.required(setting, |url| match url.strip_prefix("sqlite://") {
        Some(path) if !path.is_empty() => Ok((MigrateDatabase::Sqlite(path.to_owned()), url.to_owned())),
        _ => postgres(url).map(|(config, masked_url)| {
            let (config, shown) = (Box::new(config), masked_url.clone());
            (MigrateDatabase::Postgres { config, masked_url }, shown)
        }),
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
        /// Address of the API.
        api: ListenAddress = listen[HOST, PORT];
    }
}

/// The settings of all commands, for options before a command and for `pressroom config`.
///
/// [`Configuration::read`] reads the configurations of `serve` and `worker`.
#[derive(Debug, Clone)]
pub struct EverySetting;

impl Configuration for EverySetting {
    const BELOW: bool = false;

    /// Returns the settings of embedded mode, which is the default command, and the others as hidden settings.
    fn settings() -> Vec<Setting> {
        let mut settings = DevConfig::settings();
        let others = [ServeConfig::settings(), WorkerConfig::settings()];
        for setting in others.concat() {
            if !settings.iter().any(|known| known.variable == setting.variable) {
                settings.push(setting.hidden());
            }
        }
        settings
    }

    fn read(reader: &mut Reader) -> Result<Self> {
        ServeConfig::read(reader)?;
        WorkerConfig::read(reader)?;
        Ok(Self)
    }
}
