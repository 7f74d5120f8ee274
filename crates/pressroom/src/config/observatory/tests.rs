use super::*;
use crate::config::{DevConfig, MigrateConfig, ServeConfig, WorkerConfig, tests::load};

type Values<'a> = &'a [(&'static str, &'a str)];

const SCOUT: Values<'static> = &[
    ("SCOUT_ENDPOINT", "https://tenant.example.com:4318"),
    ("SCOUT_CLIENT_ID", "pressroom"),
    ("SCOUT_CLIENT_SECRET", "hunter2"),
    ("SCOUT_TOKEN_URL", "https://tenant.example.com/oauth/token"),
];

#[test]
fn the_observatory_listens_on_loopback_and_forwards_nothing_by_default() {
    let embedded = load::<DevConfig>(&[]).unwrap().0.observatory.0;
    let alone = load::<ObservatoryConfig>(&[]).unwrap().0.observatory;
    for (settings, memory) in [(embedded, 64 << 20), (alone, 256 << 20)] {
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
