//! Sockets are bound before anything runs.

use std::net::TcpListener;

use otlp_observatory::{Config, Observatory};

use crate::support::config;

#[tokio::test]
async fn a_port_that_is_taken_is_named_and_the_others_stay_free() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for (purpose, config) in [
        (
            "OTLP over HTTP",
            Config {
                http: address,
                ..config()
            },
        ),
        (
            "OTLP over gRPC",
            Config {
                grpc: Some(address),
                ..config()
            },
        ),
        (
            "health",
            Config {
                health: Some(address),
                ..config()
            },
        ),
        (
            "the pages",
            Config {
                pages: address,
                ..config()
            },
        ),
    ] {
        let error = Observatory::bind(config).await.unwrap_err();
        assert!(error.is_taken());
        assert_eq!((error.purpose, error.address), (purpose, address));
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}

#[tokio::test]
async fn what_is_not_asked_for_is_not_bound() {
    let config = Config {
        grpc: None,
        health: None,
        ..config()
    };
    let addresses = Observatory::bind(config).await.unwrap().addresses();
    assert_eq!((addresses.grpc, addresses.health), (None, None));
    assert!(addresses.http.ip().is_loopback() && addresses.http.port() != 0);
}

#[test]
fn only_this_machine_is_listened_to_unless_told_otherwise() {
    let config = Config::default();
    for (address, port) in [
        (config.http, 4318),
        (config.grpc.unwrap(), 4317),
        (config.health.unwrap(), 13133),
        (config.pages, 4319),
    ] {
        assert!(address.ip().is_loopback());
        assert_eq!(address.port(), port);
    }
}
