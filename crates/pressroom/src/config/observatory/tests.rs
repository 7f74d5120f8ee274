use super::*;
use crate::config::{Config as Everything, Options};

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn load(mode: Mode, observatory: ObservatoryOptions) -> Result<Everything, ConfigError> {
    let options = Options {
        observatory,
        ..Options::default()
    };
    Everything::load(mode, options)
}

fn settings(mode: Mode, options: ObservatoryOptions) -> Config {
    load(mode, options).unwrap().observatory.unwrap()
}

fn refusal(options: ObservatoryOptions) -> String {
    load(Mode::Observatory, options).unwrap_err().to_string()
}

fn scout_options() -> ObservatoryOptions {
    ObservatoryOptions {
        scout_endpoint: some("https://tenant.example.com:4318"),
        scout_client_id: some("pressroom"),
        scout_client_secret: some("hunter2"),
        scout_token_url: some("https://tenant.example.com/oauth/token"),
        ..ObservatoryOptions::default()
    }
}

#[test]
fn by_default_it_listens_on_loopback_and_sends_nothing_on() {
    for (mode, memory) in [(Mode::Dev, 64 << 20), (Mode::Observatory, 256 << 20)] {
        let settings = settings(mode, ObservatoryOptions::default());
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
fn the_service_for_production_has_no_observatory_and_minds_no_setting_of_it() {
    let options = || Options {
        secret_key: some("0123456789abcdef0123456789abcdef"),
        database_url: some("postgresql://db/press"),
        observatory: ObservatoryOptions {
            // For the collector, which may be told the rest in another place.
            scout_endpoint: some("https://tenant.example.com:4318"),
            ..ObservatoryOptions::default()
        },
        ..Options::default()
    };
    for mode in [Mode::Serve, Mode::Worker, Mode::Migrate] {
        assert!(Everything::load(mode, options()).unwrap().observatory.is_none());
    }
}

#[test]
fn what_is_set_is_in_force() {
    let settings = settings(
        Mode::Observatory,
        ObservatoryOptions {
            observatory_host: some("::1"),
            observatory_port: some("1"),
            observatory_otlp_http_port: some("2"),
            observatory_otlp_grpc_port: some("3"),
            observatory_health_port: some("4"),
            observatory_memory: some("1GiB"),
            ..ObservatoryOptions::default()
        },
    );
    let address = |port| SocketAddr::new("::1".parse().unwrap(), port);
    assert_eq!(settings.pages, address(1));
    assert_eq!(settings.http, address(2));
    assert_eq!(settings.grpc, Some(address(3)));
    assert_eq!(settings.health, Some(address(4)));
    assert_eq!(settings.memory, 1 << 30);
}

#[test]
fn sizes_are_bytes_or_have_a_unit() {
    let memory = |text: &str| {
        let options = ObservatoryOptions {
            observatory_memory: some(text),
            ..ObservatoryOptions::default()
        };
        load(Mode::Observatory, options).map(|config| config.observatory.unwrap().memory)
    };
    for (text, bytes) in [
        ("1048576", 1 << 20),
        ("2048KiB", 2 << 20),
        (" 3 MiB ", 3 << 20),
        ("2GiB", 2 << 30),
    ] {
        assert_eq!(memory(text), Ok(bytes), "{text}");
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
        let message = memory(text).unwrap_err().to_string();
        assert!(message.starts_with("OBSERVATORY_MEMORY: "), "{message}");
    }
}

#[test]
fn scout_takes_all_of_its_settings_or_none() {
    let forward = settings(Mode::Dev, scout_options()).forward.unwrap();
    assert_eq!(forward.endpoint.as_str(), "https://tenant.example.com:4318/");
    assert_eq!(forward.environment.as_deref(), Some("development"));
    assert_eq!(forward.queue, Path::new("./data/observatory"));
    let credentials = forward.credentials.unwrap();
    assert_eq!(credentials.client_id, "pressroom");
    assert_eq!(credentials.audience.as_deref(), Some("b14collector"));

    for (variable, options) in [
        (
            "SCOUT_ENDPOINT",
            ObservatoryOptions {
                scout_endpoint: None,
                ..scout_options()
            },
        ),
        (
            "SCOUT_CLIENT_ID",
            ObservatoryOptions {
                scout_client_id: some(" "),
                ..scout_options()
            },
        ),
        (
            "SCOUT_CLIENT_SECRET",
            ObservatoryOptions {
                scout_client_secret: None,
                ..scout_options()
            },
        ),
        (
            "SCOUT_TOKEN_URL",
            ObservatoryOptions {
                scout_token_url: None,
                ..scout_options()
            },
        ),
    ] {
        let message = refusal(options);
        assert!(
            message.starts_with(&format!("{variable}: is required with SCOUT_")),
            "{message}"
        );
    }
    // An environment alone asks for nothing.
    let environment = ObservatoryOptions {
        scout_environment: some("staging"),
        ..ObservatoryOptions::default()
    };
    assert!(settings(Mode::Dev, environment).forward.is_none());
}

#[test]
fn any_endpoint_may_have_headers() {
    let forward = settings(
        Mode::Observatory,
        ObservatoryOptions {
            observatory_forward_endpoint: some("https://otlp.example.com/base"),
            observatory_forward_headers: some("Authorization=Bearer%20a%2Cb, x-scope = team ,"),
            observatory_queue_limit: some("1GiB"),
            ..ObservatoryOptions::default()
        },
    )
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
fn a_wrong_value_is_refused_with_its_variable_and_without_itself() {
    let usual = ObservatoryOptions::default;
    let forward = |endpoint: &str| ObservatoryOptions {
        observatory_forward_endpoint: some(endpoint),
        ..usual()
    };
    for (variable, options) in [
        (
            "OBSERVATORY_HOST",
            ObservatoryOptions {
                observatory_host: some("nowhere"),
                ..usual()
            },
        ),
        (
            "OBSERVATORY_PORT",
            ObservatoryOptions {
                observatory_port: some("70000"),
                ..usual()
            },
        ),
        (
            "OBSERVATORY_QUEUE_LIMIT",
            ObservatoryOptions {
                observatory_queue_limit: some("much"),
                ..forward("https://all")
            },
        ),
        ("OBSERVATORY_FORWARD_ENDPOINT", forward("hunter2")),
        ("OBSERVATORY_FORWARD_ENDPOINT", forward("ftp://all")),
        ("OBSERVATORY_FORWARD_ENDPOINT", forward("https://me:hunter2@all")),
        ("OBSERVATORY_FORWARD_ENDPOINT", forward("https://all?key=hunter2")),
        (
            "OBSERVATORY_FORWARD_ENDPOINT",
            forward("http://collector.example.com:4318"),
        ),
        (
            "OBSERVATORY_FORWARD_ENDPOINT",
            ObservatoryOptions {
                observatory_forward_headers: some("x-key=hunter2"),
                ..usual()
            },
        ),
        (
            "OBSERVATORY_FORWARD_ENDPOINT",
            ObservatoryOptions {
                observatory_forward_endpoint: some("https://all"),
                ..scout_options()
            },
        ),
        (
            "OBSERVATORY_FORWARD_HEADERS",
            ObservatoryOptions {
                observatory_forward_headers: some("ok=1,hunter2"),
                ..forward("https://all")
            },
        ),
        (
            "OBSERVATORY_FORWARD_HEADERS",
            ObservatoryOptions {
                observatory_forward_headers: some("x=%0Ahunter2"),
                ..forward("https://all")
            },
        ),
        (
            "SCOUT_TOKEN_URL",
            ObservatoryOptions {
                scout_token_url: some("hunter2"),
                ..scout_options()
            },
        ),
    ] {
        let message = refusal(options);
        assert!(message.starts_with(&format!("{variable}: ")), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[test]
fn the_settings_in_effect_are_shown_without_secrets() {
    let scout = load(Mode::Observatory, scout_options()).unwrap();
    let forward = ObservatoryOptions {
        observatory_forward_endpoint: some("https://otlp.example.com"),
        observatory_forward_headers: some("x-key=hunter2"),
        ..ObservatoryOptions::default()
    };
    let forward = load(Mode::Observatory, forward).unwrap();
    for (config, lines) in [
        (
            scout,
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
        let printed = config.to_string();
        for line in lines {
            assert!(printed.contains(line), "{line}{printed}");
        }
        assert!(!format!("{printed}{config:?}").contains("hunter2"));
    }
}
