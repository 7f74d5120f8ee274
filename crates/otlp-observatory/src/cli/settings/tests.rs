use std::collections::BTreeMap;

use super::*;

type Given<'a> = &'a [(&'static str, &'a str)];

const SCOUT: Given<'static> = &[
    ("SCOUT_ENDPOINT", "https://tenant.example.com:4318"),
    ("SCOUT_CLIENT_ID", "pressroom"),
    ("SCOUT_CLIENT_SECRET", "hunter2"),
    ("SCOUT_TOKEN_URL", "https://tenant.example.com/oauth/token"),
];

impl Values for BTreeMap<&'static str, &str> {
    fn read<T>(
        &mut self,
        setting: Setting,
        parse: impl FnOnce(&str) -> Result<(T, String), String>,
    ) -> Result<Option<T>> {
        let given = self
            .get(setting.variable)
            .copied()
            .filter(|text| !text.is_empty());
        let read = given.or(setting.default).map(parse).transpose();
        let read = read.map_err(|problem| SettingError::new(setting, problem))?;
        Ok(read.map(|(value, _)| value))
    }
}

/// Reads the configuration from `values`; later values override earlier ones.
fn load(values: &[Given<'_>]) -> Result<Config> {
    let mut given = values
        .iter()
        .copied()
        .flatten()
        .copied()
        .collect::<BTreeMap<_, _>>();
    config(&mut given, OBSERVATORY_MEMORY)
}

fn settings(values: &[Given<'_>]) -> Config {
    load(values).unwrap()
}

fn rejection(values: &[Given<'_>]) -> String {
    load(values).unwrap_err().to_string()
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
    let forward = settings(&[SCOUT]).forward.unwrap();
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
    let endpoint: Given<'_> = &[("OBSERVATORY_FORWARD_ENDPOINT", "https://all")];
    let cases: [(&str, &[Given<'_>]); 13] = [
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
fn every_option_has_the_name_of_its_variable() {
    for Setting { variable, option, .. } in SETTINGS {
        assert_eq!(variable.to_lowercase().replace('_', "-"), *option);
    }
}
