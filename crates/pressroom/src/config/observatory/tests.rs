use std::path::Path;

use super::*;
use crate::config::{DevConfig, MigrateConfig, ServeConfig, WorkerConfig, tests::load};

type Values<'a> = &'a [(&'static str, &'a str)];

const SCOUT: Values<'static> = &[
    ("SCOUT_ENDPOINT", "https://tenant.example.com:4318"),
    ("SCOUT_CLIENT_ID", "pressroom"),
    ("SCOUT_CLIENT_SECRET", "hunter2"),
    ("SCOUT_TOKEN_URL", "https://tenant.example.com/oauth/token"),
];

fn settings(values: &[Values<'_>]) -> Config {
    load::<ObservatoryConfig>(values).unwrap().0.observatory
}

fn rejection(values: &[Values<'_>]) -> String {
    load::<ObservatoryConfig>(values).unwrap_err().to_string()
}

#[test]
fn the_observatory_listens_on_loopback_and_forwards_nothing_by_default() {
    let embedded = load::<DevConfig>(&[]).unwrap().0.observatory.0;
    for (settings, memory) in [(embedded, 64 << 20), (settings(&[]), 256 << 20)] {
        let usual = Config::default();
        assert_eq!(settings.http, usual.http);
        assert_eq!(settings.grpc, usual.grpc);
        assert_eq!(settings.health, usual.health);
        assert_eq!(settings.pages, usual.pages);
        assert_eq!(settings.memory, memory);
        assert!(settings.forward.is_none());
    }
}

#[test]
fn production_commands_ignore_the_settings_of_the_observatory() {
    let values: Values<'_> = &[
        ("SECRET_KEY", "0123456789abcdef0123456789abcdef"),
        ("DATABASE_URL", "postgresql://db/press"),
        // Set for the collector, which may get the other settings from elsewhere.
        ("SCOUT_ENDPOINT", "https://tenant.example.com:4318"),
    ];
    assert!(load::<ServeConfig>(&[values]).is_ok());
    assert!(load::<WorkerConfig>(&[values]).is_ok());
    assert!(load::<MigrateConfig>(&[values]).is_ok());
}

#[test]
fn given_settings_take_effect() {
    let settings = settings(&[&[
        ("OBSERVATORY_HOST", "::1"),
        ("OBSERVATORY_PORT", "1"),
        ("OBSERVATORY_OTLP_HTTP_PORT", "2"),
        ("OBSERVATORY_OTLP_GRPC_PORT", "3"),
        ("OBSERVATORY_HEALTH_PORT", "4"),
        ("OBSERVATORY_MEMORY", "1GiB"),
        ("OBSERVATORY_MASK", "off"),
    ]]);
    let address = |port| SocketAddr::new("::1".parse().unwrap(), port);
    assert_eq!(settings.pages, address(1));
    assert_eq!(settings.http, address(2));
    assert_eq!(settings.grpc, Some(address(3)));
    assert_eq!(settings.health, Some(address(4)));
    assert_eq!(settings.memory, 1 << 30);
    assert!(!settings.mask);
}

#[test]
fn sizes_are_bytes_or_have_a_unit() {
    for (text, bytes) in [
        ("1048576", 1 << 20),
        ("2048KiB", 2 << 20),
        (" 3 MiB ", 3 << 20),
        ("2GiB", 2 << 30),
    ] {
        assert_eq!(
            settings(&[&[("OBSERVATORY_MEMORY", text)]]).memory,
            bytes,
            "{text}"
        );
    }
    for text in [
        "1",
        "1023KiB",
        "64MB",
        "64 mib",
        "-1MiB",
        "1.5GiB",
        "99999999999999999GiB",
    ] {
        let message = rejection(&[&[("OBSERVATORY_MEMORY", text)]]);
        assert!(message.starts_with("OBSERVATORY_MEMORY: "), "{message}");
    }
}

#[test]
fn scout_needs_all_of_its_settings_or_none() {
    let forward = load::<DevConfig>(&[SCOUT])
        .unwrap()
        .0
        .observatory
        .0
        .forward
        .unwrap();
    assert_eq!(forward.endpoint.as_str(), "https://tenant.example.com:4318/");
    assert_eq!(forward.environment.as_deref(), Some("development"));
    assert_eq!(forward.queue, Path::new("./data/observatory"));
    let credentials = forward.credentials.unwrap();
    assert_eq!(credentials.client_id, "pressroom");
    assert_eq!(credentials.audience.as_deref(), Some("b14collector"));

    for (variable, _) in SCOUT {
        let message = rejection(&[SCOUT, &[(*variable, "")]]);
        assert!(
            message.starts_with(&format!("{variable}: is required with SCOUT_")),
            "{message}"
        );
    }
    // `SCOUT_ENVIRONMENT` alone does not enable forwarding.
    assert!(settings(&[&[("SCOUT_ENVIRONMENT", "staging")]]).forward.is_none());
}

#[test]
fn any_endpoint_may_have_headers() {
    let forward = settings(&[&[
        ("OBSERVATORY_FORWARD_ENDPOINT", "https://otlp.example.com/base"),
        (
            "OBSERVATORY_FORWARD_HEADERS",
            "Authorization=Bearer%20a%2Cb, x-scope = team ,",
        ),
        ("OBSERVATORY_QUEUE_LIMIT", "1GiB"),
    ]])
    .forward
    .unwrap();
    assert_eq!(forward.endpoint.as_str(), "https://otlp.example.com/base");
    assert_eq!(forward.queue_limit, 1 << 30);
    assert_eq!(
        forward.headers,
        [
            ("authorization".to_owned(), Secret::new("Bearer a,b")),
            ("x-scope".to_owned(), Secret::new("team")),
        ]
    );
    assert!(forward.credentials.is_none() && forward.environment.is_none());
}

#[test]
fn an_error_names_the_variable_and_does_not_quote_its_value() {
    let endpoint: Values<'_> = &[("OBSERVATORY_FORWARD_ENDPOINT", "https://all")];
    let cases: [(&str, &[Values<'_>]); 13] = [
        ("OBSERVATORY_HOST", &[&[("OBSERVATORY_HOST", "nowhere")]]),
        ("OBSERVATORY_PORT", &[&[("OBSERVATORY_PORT", "70000")]]),
        (
            "OBSERVATORY_QUEUE_LIMIT",
            &[endpoint, &[("OBSERVATORY_QUEUE_LIMIT", "much")]],
        ),
        (
            "OBSERVATORY_FORWARD_ENDPOINT",
            &[&[("OBSERVATORY_FORWARD_ENDPOINT", "hunter2")]],
        ),
        (
            "OBSERVATORY_FORWARD_ENDPOINT",
            &[&[("OBSERVATORY_FORWARD_ENDPOINT", "ftp://all")]],
        ),
        (
            "OBSERVATORY_FORWARD_ENDPOINT",
            &[&[("OBSERVATORY_FORWARD_ENDPOINT", "https://me:hunter2@all")]],
        ),
        (
            "OBSERVATORY_FORWARD_ENDPOINT",
            &[&[("OBSERVATORY_FORWARD_ENDPOINT", "https://all?key=hunter2")]],
        ),
        (
            "OBSERVATORY_FORWARD_ENDPOINT",
            &[&[(
                "OBSERVATORY_FORWARD_ENDPOINT",
                "http://collector.example.com:4318",
            )]],
        ),
        (
            "OBSERVATORY_FORWARD_ENDPOINT",
            &[&[("OBSERVATORY_FORWARD_HEADERS", "x-key=hunter2")]],
        ),
        ("OBSERVATORY_FORWARD_ENDPOINT", &[SCOUT, endpoint]),
        (
            "OBSERVATORY_FORWARD_HEADERS",
            &[endpoint, &[("OBSERVATORY_FORWARD_HEADERS", "ok=1,hunter2")]],
        ),
        (
            "OBSERVATORY_FORWARD_HEADERS",
            &[endpoint, &[("OBSERVATORY_FORWARD_HEADERS", "x=%0Ahunter2")]],
        ),
        ("SCOUT_TOKEN_URL", &[SCOUT, &[("SCOUT_TOKEN_URL", "hunter2")]]),
    ];
    for (variable, values) in cases {
        let message = rejection(values);
        assert!(message.starts_with(&format!("{variable}: ")), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[test]
fn the_printed_settings_contain_no_secret() {
    let forward: Values<'_> = &[
        ("OBSERVATORY_FORWARD_ENDPOINT", "https://otlp.example.com"),
        ("OBSERVATORY_FORWARD_HEADERS", "x-key=hunter2"),
    ];
    for (values, lines) in [
        (
            SCOUT,
            [
                "OBSERVATORY_MEMORY=256MiB\n",
                "SCOUT_ENDPOINT=https://tenant.example.com:4318/\n",
                "SCOUT_CLIENT_SECRET=***\n",
                "SCOUT_ENVIRONMENT=development\n",
                "# OBSERVATORY_FORWARD_HEADERS is not set\n",
            ],
        ),
        (
            forward,
            [
                "OBSERVATORY_HOST=127.0.0.1\n",
                "OBSERVATORY_OTLP_GRPC_PORT=4317\n",
                "OBSERVATORY_FORWARD_ENDPOINT=https://otlp.example.com/\n",
                "OBSERVATORY_FORWARD_HEADERS=x-key=***\n",
                "# SCOUT_CLIENT_SECRET is not set\n",
            ],
        ),
    ] {
        let (config, reader) = load::<ObservatoryConfig>(&[values]).unwrap();
        let printed = reader.to_string();
        for line in lines {
            assert!(printed.contains(line), "{line}{printed}");
        }
        assert!(!format!("{printed}{config:?}").contains("hunter2"));
    }
}
