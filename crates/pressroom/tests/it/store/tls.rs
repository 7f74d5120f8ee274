//! TLS to PostgreSQL: the certificates that each `sslmode` accepts.

use pressroom::store::{
    HealthStore, StoreError,
    postgres::{PostgresConfig, PostgresStore},
};

use crate::support::postgres_server::Server;

/// Whether the connections of a store at `url` are encrypted.
async fn encrypted(url: &str) -> Result<bool, StoreError> {
    let store = PostgresStore::connect(&PostgresConfig::parse(url).unwrap()).unwrap();
    store.ping().await?;
    let (watcher, connection) =
        tokio_postgres::connect(url.split('?').next().unwrap(), tokio_postgres::NoTls)
            .await
            .unwrap();
    tokio::spawn(connection);
    let row = watcher
        .query_one(
            "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
            WHERE application_name = 'pressroom'",
            &[],
        )
        .await
        .unwrap();
    Ok(row.get(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sslmode_accepts_its_certificates() {
    let (server, certificate) = Server::with_tls(|_folder| {});
    let url = server.url();
    assert!(encrypted(&url).await.unwrap());
    assert!(encrypted(&format!("{url}?sslmode=prefer")).await.unwrap());
    let trusted = format!("{url}?sslmode=verify-full&sslrootcert={certificate}");
    assert!(encrypted(&trusted).await.unwrap());
    // The certificate is not signed by a CA that the system trusts.
    let rejected = encrypted(&format!("{url}?sslmode=require")).await;
    assert!(
        matches!(rejected, Err(StoreError::Unavailable(_))),
        "{rejected:?}"
    );
    // The host name is not in the certificate.
    let other_name = trusted.replace("127.0.0.1", "localhost");
    let rejected = encrypted(&other_name).await;
    assert!(
        matches!(rejected, Err(StoreError::Unavailable(_))),
        "{rejected:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn disable_and_prefer_connect_to_a_server_without_tls_and_require_fails() {
    let server = Server::start();
    let url = server.url();
    assert!(!encrypted(&format!("{url}?sslmode=disable")).await.unwrap());
    assert!(!encrypted(&format!("{url}?sslmode=prefer")).await.unwrap());
    let rejected = encrypted(&format!("{url}?sslmode=require")).await;
    assert!(
        matches!(rejected, Err(StoreError::Unavailable(_))),
        "{rejected:?}"
    );
}
