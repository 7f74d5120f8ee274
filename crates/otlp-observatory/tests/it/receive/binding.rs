//! Binding of sockets and default addresses.

use std::net::TcpListener;

use otlp_observatory::{Config, Observatory};

use crate::support::config;

#[tokio::test]
async fn a_port_in_use_is_named_in_the_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for (purpose, config) in [
        ("OTLP over HTTP", config().http(address)),
        ("OTLP over gRPC", config().grpc(address)),
        ("health", config().health(address)),
        ("the pages", config().pages(address)),
    ] {
        let error = Observatory::bind(config).await.unwrap_err();
        assert!(error.is_in_use());
        assert_eq!((error.purpose, error.address), (purpose, address));
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}

#[tokio::test]
async fn disabled_endpoints_are_not_bound() {
    let config = config().grpc(None).health(None);
    let addresses = Observatory::bind(config).await.unwrap().addresses();
    assert_eq!((addresses.grpc, addresses.health), (None, None));
    assert!(addresses.http.ip().is_loopback() && addresses.http.port() != 0);
}

#[test]
fn the_default_addresses_are_on_loopback() {
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
