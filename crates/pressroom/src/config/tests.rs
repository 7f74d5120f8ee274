use super::*;

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn serve() -> Options {
    Options {
        secret_key: Some(KEY.to_owned()),
        database_url: Some("postgresql+psycopg://app:hunter2@db/press".to_owned()),
        redis_url: Some("redis://:hunter2@cache:6379/1".to_owned()),
        ..Options::default()
    }
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn refusal(mode: Mode, options: Options) -> String {
    let message = Config::load(mode, options).unwrap_err().to_string();
    assert!(!message.contains('\n'), "one line: {message}");
    message
}

#[test]
fn dev_needs_nothing() {
    let config = Config::load(Mode::Dev, Options::default()).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8000");
    assert_eq!(config.database, Database::Sqlite("./data/pressroom.db".into()));
    assert!(config.redis_url.is_none());
}

#[test]
fn sqlalchemys_form_of_the_database_url_is_understood() {
    let config = Config::load(Mode::Serve, serve()).unwrap();
    assert_eq!(
        config.database,
        Database::Postgres(Secret::new("postgresql://app:hunter2@db/press"))
    );
    assert_eq!(config.listen.to_string(), "0.0.0.0:8000");
}

#[test]
fn a_replica_is_for_serve_alone() {
    let with = |url: &str| Options {
        database_read_url: some(url),
        ..serve()
    };
    let replica = "postgresql+psycopg://app:hunter2@replica/press?pool_mode=transaction";
    let config = Config::load(Mode::Serve, with(replica)).unwrap();
    let known = Secret::new("postgresql://app:hunter2@replica/press?pool_mode=transaction");
    assert_eq!(config.database_read_url, Some(known));
    assert!(!config.to_string().contains("hunter2"));
    for mode in [Mode::Worker, Mode::Migrate] {
        let config = Config::load(mode, with(replica)).unwrap();
        assert_eq!(config.database_read_url, None, "{mode:?}");
    }
    for url in [
        "sqlite://replica.db",
        "postgresql://replica/press?pool_mode=hunter2",
    ] {
        let message = refusal(Mode::Serve, with(url));
        assert!(message.starts_with("DATABASE_READ_URL: "), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
    let embedded = Options {
        database_read_url: some(replica),
        ..Options::default()
    };
    assert!(refusal(Mode::Dev, embedded).starts_with("DATABASE_READ_URL: "));
}

#[test]
fn serve_refuses_a_key_that_protects_nothing() {
    for key in [
        None,
        some(""),
        some("short"),
        some("dev-secret-key-change-in-production"),
    ] {
        let options = Options {
            secret_key: key.clone(),
            ..serve()
        };
        assert!(
            refusal(Mode::Serve, options).starts_with("SECRET_KEY: "),
            "{key:?}"
        );
    }
}

#[test]
fn embedded_mode_refuses_a_short_key_and_makes_one_for_an_empty_one() {
    let with = |key: &str| Options {
        secret_key: some(key),
        ..Options::default()
    };
    assert!(refusal(Mode::Dev, with("short")).starts_with("SECRET_KEY: "));
    assert!(Config::load(Mode::Dev, with("")).unwrap().secret_key.is_none());
}

#[test]
fn an_empty_value_is_no_value() {
    let options = Options {
        port: some(""),
        redis_url: some(" "),
        smtp_url: some(""),
        webhook_url: some(""),
        ..serve()
    };
    let config = Config::load(Mode::Serve, options).unwrap();
    assert_eq!(config.listen.port(), 8000);
    assert_eq!(config.redis_url, Some(Secret::new("redis://localhost:6379/0")));
}

#[test]
fn the_sample_environment_file_has_a_key_that_is_refused() {
    let sample = include_str!("../../../../.env.example");
    let key = sample
        .lines()
        .find_map(|line| line.strip_prefix("SECRET_KEY="))
        .unwrap();
    assert!(SAMPLE_SECRET_KEYS.contains(&key));
}

/// Names and values of `.env.example`, those that are commented out too.
fn sample_settings() -> Vec<(&'static str, &'static str)> {
    include_str!("../../../../.env.example")
        .lines()
        .filter_map(|line| line.trim_start_matches('#').split_once('='))
        .map(|(name, value)| (name, value.trim_matches('"')))
        .collect()
}

#[test]
fn the_sample_environment_file_names_every_setting_with_a_value_that_can_be_used() {
    let sample = sample_settings();
    let command = <Options as clap::Args>::augment_args(clap::Command::new("pressroom"));
    let mut arguments = vec!["pressroom".to_owned()];
    for argument in command.get_arguments() {
        let variable = argument.get_env().and_then(|name| name.to_str()).unwrap();
        let value = sample.iter().find(|(name, _)| *name == variable);
        let (_, value) = value.unwrap_or_else(|| panic!("{variable} is not in .env.example"));
        let value = if variable == "SECRET_KEY" { KEY } else { value };
        arguments.push(format!("--{}={value}", argument.get_long().unwrap()));
    }
    assert!(arguments.len() > 20, "{arguments:?}");
    let matches = command.try_get_matches_from(arguments).unwrap();
    let options = <Options as clap::FromArgMatches>::from_arg_matches(&matches).unwrap();
    let config = Config::load(Mode::Serve, options).unwrap();
    assert!(config.production && config.notifications.smtp.is_some());
}

#[test]
fn embedded_mode_refuses_what_it_would_ignore() {
    let cases = [
        (
            "APP_ENV: ",
            Options {
                app_env: some("production"),
                ..Options::default()
            },
        ),
        (
            "APP_ENV: ",
            Options {
                flask_env: some("production"),
                ..Options::default()
            },
        ),
        (
            "DATABASE_URL: ",
            Options {
                database_url: some("postgres://db/press"),
                ..Options::default()
            },
        ),
        (
            "REDIS_URL: ",
            Options {
                redis_url: some("redis://cache"),
                ..Options::default()
            },
        ),
    ];
    for (expected, options) in cases {
        assert!(refusal(Mode::Dev, options).starts_with(expected));
    }
}

#[test]
fn a_wrong_value_is_refused_with_its_variable() {
    let cases = [
        (
            "HOST",
            Options {
                host: some("nowhere"),
                ..serve()
            },
        ),
        (
            "PORT",
            Options {
                port: some("70000"),
                ..serve()
            },
        ),
        (
            "APP_ENV",
            Options {
                app_env: some("prod"),
                ..serve()
            },
        ),
        (
            "DATABASE_URL",
            Options {
                database_url: some("mysql://x/y"),
                ..serve()
            },
        ),
        (
            "DATABASE_URL",
            Options {
                database_url: some("sqlite://x.db"),
                ..serve()
            },
        ),
        (
            "DATABASE_URL",
            Options {
                database_url: None,
                ..serve()
            },
        ),
        (
            "REDIS_URL",
            Options {
                redis_url: some("localhost:6379"),
                ..serve()
            },
        ),
        (
            "SMTP_FROM",
            Options {
                smtp_url: some("smtp://mail"),
                ..serve()
            },
        ),
        (
            "WEBHOOK_URL",
            Options {
                webhook_url: some("ftp://x"),
                ..serve()
            },
        ),
        (
            "WEBHOOK_SECRET",
            Options {
                webhook_url: some("https://x/"),
                ..serve()
            },
        ),
        (
            "RATE_LIMIT",
            Options {
                rate_limit: some("maybe"),
                ..serve()
            },
        ),
        (
            "RATE_LIMIT_LOGIN_ACCOUNT",
            Options {
                rate_limit_login_account: some("0"),
                ..serve()
            },
        ),
        (
            "RATE_LIMIT_LOGIN_ADDRESS",
            Options {
                rate_limit_login_address: some("many"),
                ..serve()
            },
        ),
        (
            "RATE_LIMIT_REGISTER_ADDRESS",
            Options {
                rate_limit_register_address: some("-1"),
                ..serve()
            },
        ),
        (
            "TRUSTED_PROXIES",
            Options {
                trusted_proxies: some("10.0.0.0/8,proxy"),
                ..serve()
            },
        ),
        (
            "CORS_ALLOWED_ORIGINS",
            Options {
                cors_allowed_origins: some("app.example.com"),
                ..serve()
            },
        ),
        (
            "BODY_LIMIT",
            Options {
                body_limit: some("0"),
                ..serve()
            },
        ),
        (
            "REQUEST_TIMEOUT",
            Options {
                request_timeout: some("-1"),
                ..serve()
            },
        ),
        (
            "SHUTDOWN_GRACE",
            Options {
                shutdown_grace: some("soon"),
                ..serve()
            },
        ),
        (
            "SHUTDOWN_DELAY",
            Options {
                shutdown_delay: some("-1"),
                ..serve()
            },
        ),
        (
            "JWT_EXPIRATION_HOURS",
            Options {
                jwt_expiration_hours: some("NaN"),
                ..serve()
            },
        ),
        (
            "PASSWORD_SCHEME",
            Options {
                password_scheme: some("md5"),
                ..serve()
            },
        ),
        (
            "CELERY_QUEUES",
            Options {
                celery_queues: some(" , "),
                ..serve()
            },
        ),
        (
            "CELERY_CONCURRENCY",
            Options {
                celery_concurrency: some("0"),
                ..serve()
            },
        ),
        (
            "CELERY_HOSTNAME",
            Options {
                celery_hostname: some("reports"),
                ..serve()
            },
        ),
        (
            "CELERY_VISIBILITY_TIMEOUT",
            Options {
                celery_visibility_timeout: some("1e300"),
                ..serve()
            },
        ),
    ];
    for (variable, options) in cases {
        let message = refusal(Mode::Serve, options);
        assert!(message.starts_with(&format!("{variable}: ")), "{message}");
    }
}

#[test]
fn the_delay_of_a_shutdown_may_be_nothing() {
    let delay = |given: Option<String>| {
        let options = Options {
            shutdown_delay: given,
            ..serve()
        };
        Config::load(Mode::Serve, options).map(|config| config.shutdown_delay)
    };
    assert_eq!(delay(None).unwrap(), Duration::ZERO);
    assert_eq!(delay(some("0")).unwrap(), Duration::ZERO);
    assert_eq!(delay(some("2.5")).unwrap(), Duration::from_millis(2500));
    assert!(delay(some("86400")).is_err(), "longer than anybody waits");
}

#[test]
fn a_workers_name_may_leave_the_host_to_the_machine() {
    let named = |name: Option<String>| {
        let options = Options {
            celery_hostname: name,
            ..serve()
        };
        Config::load(Mode::Serve, options).unwrap().hostname
    };
    let default = celeriac::default_node_name();
    assert_eq!(named(None), default);
    assert_eq!(named(some("reports@%h")), default.replace("celery@", "reports@"));
    assert_eq!(named(some("reports@here")), "reports@here");
}

#[test]
fn no_secret_is_printed() {
    let options = Options {
        smtp_url: some("smtp://app:hunter2@mail:587"),
        smtp_from: some("press@example.com"),
        webhook_url: some("https://app:hunter2@hooks.example.com/in?token=hunter2"),
        webhook_secret: some("hunter2"),
        ..serve()
    };
    let config = Config::load(Mode::Serve, options).unwrap();
    let printed = format!("{config}{config:?}");
    assert!(!printed.contains("hunter2"), "{printed}");
    assert!(!printed.contains(KEY));
    assert!(
        config
            .to_string()
            .contains("DATABASE_URL=postgresql://app:***@db/press\n")
    );
    for url in [
        "sentinel://:hunter2@one:26379/0;sentinel://:hunter2@two:26379/0?master=news",
        "sentinel://:hunter2@one,two/0?master=news",
        "unix:///run/redis.sock?pass=hunter2",
    ] {
        let options = Options {
            redis_url: some(url),
            ..serve()
        };
        let config = Config::load(Mode::Serve, options).unwrap();
        let printed = format!("{config}{config:?}");
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}

#[test]
fn rates_are_set_one_by_one_or_off_together() {
    let rates = |options| Config::load(Mode::Serve, options).unwrap().rates;
    assert_eq!(rates(serve()), Rates::default());
    let one = Options {
        rate_limit_login_account: some("off"),
        rate_limit_register_address: some("5"),
        ..serve()
    };
    let expected = Rates {
        login_account: None,
        register_address: std::num::NonZeroU32::new(5),
        ..Rates::default()
    };
    assert_eq!(rates(one.clone()), expected);
    let off = Options {
        rate_limit: some("off"),
        ..one
    };
    assert_eq!(rates(off), Rates::UNLIMITED);
}

#[test]
fn the_settings_in_effect_say_whom_to_believe_and_what_to_let_through() {
    let options = Options {
        rate_limit_login_address: some("600"),
        trusted_proxies: some("10.0.0.0/8, ::ffff:192.0.2.1"),
        cors_allowed_origins: some("https://a.example, http://localhost:3000"),
        ..serve()
    };
    let printed = Config::load(Mode::Serve, options).unwrap().to_string();
    for line in [
        "RATE_LIMIT_LOGIN_ACCOUNT=10\n",
        "RATE_LIMIT_LOGIN_ADDRESS=600\n",
        "RATE_LIMIT_REGISTER_ADDRESS=30\n",
        "TRUSTED_PROXIES=10.0.0.0/8,192.0.2.1/32\n",
        "CORS_ALLOWED_ORIGINS=https://a.example,http://localhost:3000\n",
    ] {
        assert!(printed.contains(line), "{line}{printed}");
    }
}
