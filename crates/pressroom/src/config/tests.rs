use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use super::{parts::SAMPLE_SECRET_KEYS, setting::Setting, settings, *};
use crate::accounts::Rates;

const KEY: &str = "0123456789abcdef0123456789abcdef";

type Values<'a> = &'a [(&'static str, &'a str)];

/// Settings that `serve` and `worker` require.
const PRODUCTION: Values<'static> = &[
    ("SECRET_KEY", KEY),
    ("DATABASE_URL", "postgresql+psycopg://app:hunter2@db/press"),
    ("REDIS_URL", "redis://:hunter2@cache:6379/1"),
];

/// Reads a configuration from `values`; later values override earlier ones.
pub(super) fn load<C: Configuration>(values: &[Values<'_>]) -> Result<(C, Reader), ConfigError> {
    let values = values.iter().copied().flatten();
    let values = values.map(|(variable, text)| (*variable, (*text).to_owned()));
    let mut given: BTreeMap<_, _> = values.collect();
    given.retain(|_, text| !text.is_empty());
    let mut reader = Reader::new(given);
    C::read(&mut reader).map(|config| (config, reader))
}

fn serve(values: Values<'_>) -> ServeConfig {
    load(&[PRODUCTION, values]).unwrap().0
}

fn rejection<C: Configuration>(values: &[Values<'_>]) -> String {
    let message = match load::<C>(values) {
        Ok(_) => panic!("{values:?} is accepted"),
        Err(error) => error.to_string(),
    };
    assert!(!message.contains('\n'), "one line: {message}");
    message
}

#[test]
fn embedded_mode_needs_no_settings() {
    let (config, _) = load::<DevConfig>(&[]).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8000");
    assert_eq!(config.database, "./data/pressroom.db");
    assert!(config.secret_key.is_none());
}

#[test]
fn sqlalchemys_form_of_the_database_url_is_accepted() {
    let (config, reader) = load::<ServeConfig>(&[PRODUCTION]).unwrap();
    assert!(
        reader
            .to_string()
            .contains("DATABASE_URL=postgresql://app:***@db/***\n")
    );
    assert_eq!(config.listen.to_string(), "[::]:8000");
}

#[test]
fn only_serve_reads_from_a_replica() {
    let replica = "postgresql+psycopg://app:hunter2@replica/press?pool_mode=transaction";
    let (config, reader) = load::<ServeConfig>(&[PRODUCTION, &[("DATABASE_READ_URL", replica)]]).unwrap();
    assert!(config.replica.is_some());
    let shown = "DATABASE_READ_URL=postgresql://app:***@replica/***\n";
    assert!(reader.to_string().contains(shown), "{reader}");
    for url in [
        "sqlite://replica.db",
        "postgresql://replica/press?pool_mode=hunter2",
    ] {
        let message = rejection::<ServeConfig>(&[PRODUCTION, &[("DATABASE_READ_URL", url)]]);
        assert!(message.starts_with("DATABASE_READ_URL: "), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
        assert!(load::<WorkerConfig>(&[PRODUCTION, &[("DATABASE_READ_URL", url)]]).is_ok());
        assert!(load::<MigrateConfig>(&[PRODUCTION, &[("DATABASE_READ_URL", url)]]).is_ok());
    }
    let message = rejection::<DevConfig>(&[&[("DATABASE_READ_URL", replica)]]);
    assert!(message.starts_with("DATABASE_READ_URL: "), "{message}");
}

#[test]
fn serve_rejects_a_missing_short_or_well_known_key() {
    for key in ["", "short", "dev-secret-key-change-in-production"] {
        let message = rejection::<ServeConfig>(&[PRODUCTION, &[("SECRET_KEY", key)]]);
        assert!(message.starts_with("SECRET_KEY: "), "{message}");
    }
}

#[test]
fn embedded_mode_rejects_a_short_key() {
    let message = rejection::<DevConfig>(&[&[("SECRET_KEY", "short")]]);
    assert!(message.starts_with("SECRET_KEY: "), "{message}");
}

#[test]
fn an_empty_value_counts_as_unset() {
    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        settings: Given<ServeConfig>,
    }
    let arguments = ["--port=", "--redis-url= ", "--database-url=postgresql://db/press"];
    let key = format!("--secret-key={KEY}");
    let arguments = ["pressroom"].into_iter().chain(arguments).chain([key.as_str()]);
    let command = <Command as clap::Parser>::parse_from(arguments);
    let before = Given::<EverySetting>::default();
    let config = command.settings.read(&before).unwrap();
    assert_eq!(config.listen.port, 8000);
    assert_eq!(
        config.redis.server().unwrap(),
        celeriac::RedisConfig::new("redis://localhost:6379/0")
            .server()
            .unwrap()
    );
}

#[test]
fn the_key_in_the_sample_environment_file_is_rejected() {
    let (_, key) = sample_settings()
        .into_iter()
        .find(|(name, _)| *name == "SECRET_KEY")
        .unwrap();
    assert!(SAMPLE_SECRET_KEYS.contains(&key));
}

pub(super) fn every_setting() -> Vec<Setting> {
    #[cfg(feature = "observatory")]
    let observatory = ObservatoryConfig::settings();
    #[cfg(not(feature = "observatory"))]
    let observatory = Vec::new();
    [settings::ALL.to_vec(), observatory].concat()
}

/// Names and values of `.env.example`, including those that are commented out.
fn sample_settings() -> Vec<(&'static str, &'static str)> {
    include_str!("../../tests/vectors/env.example")
        .lines()
        .filter_map(|line| line.trim_start_matches('#').split_once('='))
        .map(|(name, value)| (name, value.trim_matches('"')))
        .collect()
}

#[test]
fn the_sample_environment_file_has_a_valid_value_for_every_setting() {
    let sample = sample_settings();
    for setting in every_setting() {
        assert!(
            sample.iter().any(|(name, _)| *name == setting.variable),
            "{} is not in .env.example",
            setting.variable
        );
    }
    let key: Values<'_> = &[("SECRET_KEY", KEY)];
    assert!(load::<ServeConfig>(&[&sample, key]).is_ok());
    let (worker, _) = load::<WorkerConfig>(&[&sample, key]).unwrap();
    assert!(worker.work.notify.smtp.is_some() && worker.work.notify.webhook.is_some());
}

#[test]
fn the_help_of_each_command_shows_the_settings_it_reads() {
    fn check<C: Configuration>(values: Values<'_>) {
        let (_, reader) = load::<C>(&[values]).unwrap();
        let mut read = reader.names();
        let visible = C::settings().into_iter().filter(|setting| !setting.hidden);
        let mut shown: Vec<_> = visible.map(|setting| setting.variable).collect();
        read.sort_unstable();
        shown.sort_unstable();
        assert_eq!(read, shown);
    }
    check::<ServeConfig>(PRODUCTION);
    check::<WorkerConfig>(PRODUCTION);
    check::<MigrateConfig>(PRODUCTION);
    check::<TasksConfig>(&[]);
    check::<HealthcheckConfig>(&[]);
    check::<DevConfig>(&[]);
    #[cfg(feature = "observatory")]
    {
        check::<ExploreConfig>(&[]);
        check::<ObservatoryConfig>(&[]);
    }
}

#[test]
fn every_option_has_the_name_of_its_variable() {
    for Setting { variable, option, .. } in every_setting() {
        // `--keep` belongs to the observatory's commands only.
        let variable = match variable.strip_prefix("OBSERVATORY_KEEP") {
            Some(rest) => &format!("KEEP{rest}"),
            None => variable,
        };
        assert_eq!(variable.to_lowercase().replace('_', "-"), option);
    }
}

#[test]
fn embedded_mode_rejects_settings_that_it_does_not_use() {
    for (variable, value) in [
        ("APP_ENV", "production"),
        ("DATABASE_URL", "postgres://db/press"),
        ("REDIS_URL", "redis://cache"),
    ] {
        let message = rejection::<DevConfig>(&[&[(variable, value)]]);
        assert!(message.starts_with(&format!("{variable}: ")), "{message}");
    }
    let message = rejection::<DevConfig>(&[&[("FLASK_ENV", "production")]]);
    assert!(message.starts_with("APP_ENV: "), "{message}");
}

#[test]
fn an_invalid_value_is_rejected_with_its_variable() {
    for (variable, value) in [
        ("HOST", "no where"),
        ("HOST", "127.0.0.1.5"),
        ("HOST", "[localhost]"),
        ("HOST", "http://localhost"),
        ("HOST", "[::1]:8000"),
        ("PORT", "70000"),
        ("APP_ENV", "prod"),
        ("DATABASE_URL", "mysql://x/y"),
        ("DATABASE_URL", "sqlite://x.db"),
        ("DATABASE_URL", ""),
        ("REDIS_URL", "localhost:6379"),
        ("RATE_LIMIT", "maybe"),
        ("RATE_LIMIT_LOGIN_ACCOUNT", "0"),
        ("RATE_LIMIT_LOGIN_ADDRESS", "many"),
        ("RATE_LIMIT_REGISTER_ADDRESS", "-1"),
        ("TRUSTED_PROXIES", "10.0.0.0/8,proxy"),
        ("CORS_ALLOWED_ORIGINS", "app.example.com"),
        ("BODY_LIMIT", "0"),
        ("REQUEST_TIMEOUT", "-1"),
        ("HEADER_TIMEOUT", "0"),
        ("KEEP_ALIVE_TIMEOUT", "never"),
        ("MAX_CONNECTIONS", "0"),
        ("MAX_CONNECTIONS_PER_ADDRESS", "all"),
        ("SHUTDOWN_GRACE", "soon"),
        ("SHUTDOWN_DELAY", "-1"),
        ("JWT_EXPIRATION_HOURS", "NaN"),
        ("PASSWORD_SCHEME", "md5"),
        ("CELERY_QUEUES", " , "),
        ("CELERY_VISIBILITY_TIMEOUT", "1e300"),
    ] {
        let message = rejection::<ServeConfig>(&[PRODUCTION, &[(variable, value)]]);
        assert!(message.starts_with(&format!("{variable}: ")), "{message}");
        let subject = format!("the {}", variable.replace('_', " ").to_lowercase());
        assert!(
            !message.to_lowercase().contains(&subject),
            "a doubled subject: {message}"
        );
    }
    let worker: [(&str, Values<'_>); 10] = [
        ("SMTP_FROM", &[("SMTP_URL", "smtp://mail")]),
        (
            "SMTP_URL",
            &[("SMTP_URL", "http://mail"), ("SMTP_FROM", "press@example.com")],
        ),
        (
            "SMTP_FROM",
            &[("SMTP_URL", "smtp://mail"), ("SMTP_FROM", "press")],
        ),
        ("WEBHOOK_URL", &[("WEBHOOK_URL", "ftp://x")]),
        ("WEBHOOK_SECRET", &[("WEBHOOK_URL", "https://x/")]),
        ("CELERY_CONCURRENCY", &[("CELERY_CONCURRENCY", "0")]),
        ("CELERY_HOSTNAME", &[("CELERY_HOSTNAME", "reports")]),
        ("CELERY_EVENTS", &[("CELERY_EVENTS", "yes")]),
        ("CELERY_LEASE", &[("CELERY_LEASE", "0.5")]),
        ("CELERY_LEASE", &[("CELERY_LEASE", "3601")]),
    ];
    for (variable, values) in worker {
        let message = rejection::<WorkerConfig>(&[PRODUCTION, values]);
        assert!(message.starts_with(&format!("{variable}: ")), "{message}");
    }
}

#[test]
fn the_host_is_an_address_or_a_name() {
    for (host, listen, reachable) in [
        ("", "[::]:8000", "127.0.0.1:8000"),
        ("[::]", "[::]:8000", "127.0.0.1:8000"),
        ("0.0.0.0", "0.0.0.0:8000", "127.0.0.1:8000"),
        (" [::1] ", "[::1]:8000", "[::1]:8000"),
        ("192.0.2.1", "192.0.2.1:8000", "192.0.2.1:8000"),
        ("127.0.0.2", "127.0.0.2:8000", "127.0.0.2:8000"),
        ("localhost", "localhost:8000", "localhost:8000"),
        (
            "api-1.example.com.",
            "api-1.example.com.:8000",
            "api-1.example.com.:8000",
        ),
    ] {
        let address = serve(&[("HOST", host)]).listen;
        assert_eq!(address.to_string(), listen, "{host}");
        assert_eq!(address.reachable().to_string(), reachable, "{host}");
        let url = match host {
            "192.0.2.1" | "127.0.0.2" | "api-1.example.com." => format!("http://{host}:9"),
            _ => "http://localhost:9".to_owned(),
        };
        assert_eq!(address.local_url(9), url);
    }
}

#[test]
fn the_header_and_keep_alive_time_outs_are_independent() {
    let api = serve(&[("HEADER_TIMEOUT", "5")]).api;
    assert_eq!(api.header_timeout, Duration::from_secs(5));
    assert_eq!(api.keep_alive_timeout, Duration::from_secs(75));
    let api = serve(&[("KEEP_ALIVE_TIMEOUT", "600")]).api;
    assert_eq!(api.header_timeout, Duration::from_secs(30));
    assert_eq!(api.keep_alive_timeout, Duration::from_secs(600));
}

#[test]
fn the_shutdown_delay_may_be_zero() {
    let delay = |text| serve(&[("SHUTDOWN_DELAY", text)]).shutdown_delay;
    assert_eq!(delay(""), Duration::ZERO);
    assert_eq!(delay("0"), Duration::ZERO);
    assert_eq!(delay("2.5"), Duration::from_millis(2500));
    rejection::<ServeConfig>(&[PRODUCTION, &[("SHUTDOWN_DELAY", "86400")]]);
}

#[test]
fn a_workers_name_may_contain_the_host_name() {
    let named = |name| {
        let (config, _) = load::<WorkerConfig>(&[PRODUCTION, &[("CELERY_HOSTNAME", name)]]).unwrap();
        config.hostname
    };
    let default = celeriac::default_node_name();
    assert_eq!(named(""), default);
    assert_eq!(named("reports@%h"), default.replace("celery@", "reports@"));
    assert_eq!(named("reports@here"), "reports@here");
}

#[test]
fn a_worker_has_a_lease_and_may_send_events() {
    let worker = |values| load::<WorkerConfig>(&[PRODUCTION, values]).unwrap().0;
    let config = worker(&[]);
    assert_eq!((config.lease, config.events), (Duration::from_secs(6), false));
    let config = worker(&[("CELERY_LEASE", "2.5"), ("CELERY_EVENTS", "on")]);
    assert_eq!((config.lease, config.events), (Duration::from_millis(2500), true));
}

#[test]
fn secrets_are_not_printed() {
    let notifications: Values<'_> = &[
        ("SMTP_URL", "smtp://app:hunter2@mail:587"),
        ("SMTP_FROM", "press@example.com"),
        (
            "WEBHOOK_URL",
            "https://app:hunter2@hooks.example.com/in?token=hunter2",
        ),
        ("WEBHOOK_SECRET", "hunter2"),
    ];
    for url in [
        "redis://:hunter2@cache:6379/1",
        "sentinel://:hunter2@one:26379/0;sentinel://:hunter2@two:26379/0?master=news",
        "sentinel://:hunter2@one,two/0?master=news",
        "unix:///run/redis.sock?pass=hunter2",
    ] {
        let redis: Values<'_> = &[("REDIS_URL", url)];
        let (serve, first) = load::<ServeConfig>(&[PRODUCTION, redis]).unwrap();
        let (worker, second) = load::<WorkerConfig>(&[PRODUCTION, notifications, redis]).unwrap();
        let printed = format!("{first}{serve:?}{second}{worker:?}");
        assert!(
            !printed.contains("hunter2") && !printed.contains(KEY),
            "{printed}"
        );
    }
}

#[test]
fn rate_limits_are_set_separately_or_turned_off_together() {
    assert_eq!(serve(&[]).api.rates, Rates::default());
    let one: Values<'_> = &[
        ("RATE_LIMIT_LOGIN_ACCOUNT", "off"),
        ("RATE_LIMIT_REGISTER_ADDRESS", "5"),
    ];
    let expected = Rates {
        login_account: None,
        register_address: NonZeroU32::new(5),
        ..Rates::default()
    };
    assert_eq!(serve(one).api.rates, expected);
    let off: Values<'_> = &[("RATE_LIMIT", "off")];
    let (config, _) = load::<ServeConfig>(&[PRODUCTION, one, off]).unwrap();
    assert_eq!(config.api.rates, Rates::UNLIMITED);
}

#[test]
fn printed_settings_are_normalised() {
    let values: Values<'_> = &[
        ("RATE_LIMIT_LOGIN_ADDRESS", "600"),
        ("TRUSTED_PROXIES", "10.0.0.0/8, ::ffff:192.0.2.1"),
        ("CORS_ALLOWED_ORIGINS", "https://a.example, http://localhost:3000"),
    ];
    let (_, reader) = load::<ServeConfig>(&[PRODUCTION, values]).unwrap();
    let printed = reader.to_string();
    for line in [
        "RATE_LIMIT_LOGIN_ACCOUNT=10\n",
        "RATE_LIMIT_LOGIN_ADDRESS=600\n",
        "RATE_LIMIT_REGISTER_ADDRESS=30\n",
        "TRUSTED_PROXIES=10.0.0.0/8,192.0.2.1/32\n",
        "CORS_ALLOWED_ORIGINS=https://a.example,http://localhost:3000\n",
        "# DATABASE_READ_URL is not set\n",
    ] {
        assert!(printed.contains(line), "{line}{printed}");
    }
}

#[test]
fn the_urls_of_managed_services_in_the_documentation_are_accepted() {
    let page = include_str!("../../tests/vectors/managed-services.md");
    let mut count = 0;
    for variable in ["DATABASE_URL", "DATABASE_READ_URL", "REDIS_URL"] {
        let urls = page
            .lines()
            .filter_map(|line| line.strip_prefix(variable)?.strip_prefix('='));
        for url in urls {
            count += 1;
            let read = load::<ServeConfig>(&[PRODUCTION, &[(variable, url)]]);
            assert!(read.is_ok(), "{url}: {:?}", read.err());
        }
    }
    assert!(count > 15, "{count}");
}
