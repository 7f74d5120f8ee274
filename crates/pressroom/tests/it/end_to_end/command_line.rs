//! The command line: invalid settings and their messages, printed settings and documents.

use crate::support::{postgres_server::free_port, process};

const DATABASE: (&str, &str) = ("DATABASE_URL", "postgresql://app:hunter2@localhost/press");
const KEY: (&str, &str) = ("SECRET_KEY", "0123456789abcdef0123456789abcdef");

#[test]
fn an_invalid_setting_is_reported_in_one_line_that_names_the_variable() {
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a str);
    let cases: [Case<'_>; 11] = [
        (&["serve"], &[DATABASE], "SECRET_KEY: "),
        (&["serve"], &[DATABASE, ("SECRET_KEY", "short")], "SECRET_KEY: "),
        (
            &["serve"],
            &[DATABASE, ("SECRET_KEY", "replace-me-with-openssl-rand-hex-32")],
            "SECRET_KEY: ",
        ),
        (&["serve"], &[KEY], "DATABASE_URL: "),
        (&["serve", "--port", "abc"], &[DATABASE, KEY], "PORT: "),
        (
            &["worker"],
            &[DATABASE, ("CELERY_CONCURRENCY", "none")],
            "CELERY_CONCURRENCY: ",
        ),
        (&[], &[("APP_ENV", "production")], "APP_ENV: "),
        (
            &["migrate"],
            &[("DATABASE_URL", "mysql://app:hunter2@x/y")],
            "DATABASE_URL: ",
        ),
        (
            &["observatory"],
            &[("OBSERVATORY_MEMORY", "much")],
            "OBSERVATORY_MEMORY: ",
        ),
        (
            &["observatory"],
            &[
                ("SCOUT_ENDPOINT", "https://tenant.example.com:4318"),
                ("SCOUT_CLIENT_SECRET", "hunter2"),
            ],
            "SCOUT_CLIENT_ID: ",
        ),
        (
            &[],
            &[("OBSERVATORY_FORWARD_ENDPOINT", "https://me:hunter2@example.com")],
            "OBSERVATORY_FORWARD_ENDPOINT: ",
        ),
    ];
    for (arguments, variables, expected) in cases {
        let output = process::run(arguments, variables);
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(
            message.starts_with(&format!("pressroom: {expected}")),
            "{message}"
        );
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[test]
fn the_settings_in_effect_are_printed_without_secrets() {
    let output = process::run(&["config"], &[DATABASE, KEY]);
    assert!(output.status.success());
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(
        printed.contains("DATABASE_URL=postgresql://app:***@localhost/***\n"),
        "{printed}"
    );
    assert!(printed.contains("SECRET_KEY=***\n"), "{printed}");
    assert!(
        !printed.contains("hunter2") && !printed.contains(KEY.1),
        "{printed}"
    );
}

#[test]
fn help_documents_every_setting_that_config_prints() {
    let help = String::from_utf8(process::run(&["--help"], &[]).stdout).unwrap();
    let config = String::from_utf8(process::run(&["config", "--embedded"], &[]).stdout).unwrap();
    let names = config
        .lines()
        .filter_map(|line| line.trim_start_matches("# ").split(['=', ' ']).next());
    let mut count = 0;
    for name in names {
        count += 1;
        assert!(
            help.contains(&format!("[env: {name}]")),
            "{name} is not in --help"
        );
    }
    assert!(count > 15);
}

/// The unit tests of the configurations check that commands read the settings that they declare.
#[test]
fn the_help_of_a_command_shows_only_its_own_settings() {
    let shown = |command: &str| {
        let arguments: Vec<_> = command.split(' ').chain(["--help"]).collect();
        let help = String::from_utf8(process::run(&arguments, &[]).stdout).unwrap();
        let words: Vec<_> = help.split_whitespace().collect();
        let names = words.windows(2).filter(|pair| pair[0] == "[env:");
        let names: Vec<_> = names
            .map(|pair| pair[1].trim_end_matches(']').to_owned())
            .collect();
        (names.join(" "), help.contains("OTEL_EXPORTER_OTLP_ENDPOINT"))
    };
    for (command, settings) in [
        ("migrate", "DATABASE_URL"),
        ("tasks", "REDIS_URL CELERY_VISIBILITY_TIMEOUT"),
        ("tasks dead list", "REDIS_URL CELERY_VISIBILITY_TIMEOUT"),
        ("healthcheck", "HOST PORT"),
        ("openapi", ""),
        ("traces", "OBSERVATORY_HOST OBSERVATORY_PORT"),
        ("logs", "OBSERVATORY_HOST OBSERVATORY_PORT"),
    ] {
        assert_eq!(shown(command), (settings.to_owned(), false), "{command}");
    }
    for (command, own, others) in [
        (
            "serve",
            "SECRET_KEY",
            "SMTP_URL CELERY_CONCURRENCY DATA_DIR OBSERVATORY_PORT",
        ),
        (
            "worker",
            "SMTP_URL",
            "SECRET_KEY PORT JWT_EXPIRATION_HOURS DATABASE_READ_URL DATA_DIR",
        ),
        (
            "dev",
            "DATA_DIR",
            "REDIS_URL DATABASE_READ_URL CELERY_LEASE SHUTDOWN_DELAY",
        ),
    ] {
        let (settings, telemetry) = shown(command);
        let settings: Vec<_> = settings.split(' ').collect();
        assert!(settings.contains(&own) && telemetry, "{command}: {settings:?}");
        for other in others.split(' ') {
            assert!(!settings.contains(&other), "{command}: {other}");
        }
    }
    let (settings, _) = shown("observatory");
    assert!(
        settings.contains("OBSERVATORY_MEMORY") && !settings.contains("CELERY"),
        "{settings}"
    );
}

#[cfg(feature = "mcp")]
#[test]
fn the_tools_for_agents_end_with_their_input() {
    let output = process::run(&["mcp"], &[]);
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
}

/// Makes changes to the contract visible in review. `pressroom openapi > docs/openapi.json` accepts a
/// change.
#[test]
fn the_openapi_document_equals_the_reviewed_snapshot() {
    let printed = String::from_utf8(process::run(&["openapi"], &[]).stdout).unwrap();
    assert_eq!(printed, include_str!("../../../../../docs/openapi.json"));
}

#[test]
fn the_openapi_document_describes_every_route() {
    let output = process::run(&["openapi"], &[]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    assert_eq!(
        paths,
        [
            "/api/articles/",
            "/api/articles/{slug}",
            "/api/articles/{slug}/favorite",
            "/api/health",
            "/api/health/live",
            "/api/health/ready",
            "/api/login",
            "/api/logout",
            "/api/register",
            "/api/user",
        ]
    );
}

#[test]
fn healthcheck_fails_when_nothing_listens() {
    let port = free_port().to_string();
    let output = process::run(&["healthcheck"], &[("PORT", port.as_str())]);
    assert!(!output.status.success());
}
