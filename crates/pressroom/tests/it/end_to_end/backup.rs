//! Runs the commands of `docs/backup.md`, unchanged and in order, with each form of `DATABASE_URL`.

#![expect(clippy::disallowed_methods, reason = "tests query the tables directly")]

use std::process::Stdio;

use crate::support::{
    page,
    postgres::{client, with_database},
    postgres_server::Server,
    process::{self, Folder},
    redis_server::RedisServer,
};

const PAGE: &str = include_str!("../../../../../docs/backup.md");

/// A role whose password has to be percent-encoded.
const ROLE: &str = "CREATE ROLE app LOGIN CREATEDB PASSWORD 'p@ss?/&#'";
const CREDENTIALS: &str = "app:p%40ss%3F%2F%26%23";

const INSERT: &str = "INSERT INTO users (email, password_hash, name, bio, image, created_at, updated_at)
    SELECT i || '@example.com', 'x', 'User', '', '', now(), now()";

/// Starts a server that checks the password of `app`; returns it with the path of its certificate.
fn server() -> (Server, String) {
    Server::with_tls(|folder| {
        let file = folder.join("data/pg_hba.conf");
        let trusted = std::fs::read_to_string(&file).unwrap();
        std::fs::write(
            &file,
            format!("host all app 127.0.0.1/32 scram-sha-256\n{trusted}"),
        )
        .unwrap();
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_of_the_page_restore_a_backup_with_each_form_of_the_url() {
    let (server, certificate) = server();
    let redis = RedisServer::start();
    let admin = client(&server.url()).await;
    admin.batch_execute(ROLE).await.unwrap();
    let address = server
        .url()
        .split_once('@')
        .unwrap()
        .1
        .replace("/postgres", "/pressroom");
    let (host, port) = address.split_once('/').unwrap().0.split_once(':').unwrap();
    for url in [
        format!("postgresql://{CREDENTIALS}@{address}"),
        format!(
            "postgres://{CREDENTIALS}@{address}?sslmode=require&sslrootcert={certificate}&connect_timeout=9"
        ),
        format!("postgresql+psycopg://{CREDENTIALS}@{address}?pool_mode=transaction&prepared_statements=on"),
        format!(
            "postgresql+psycopg2://{CREDENTIALS}@{address}?ssl=true&sslrootcert={certificate}&pool_pre_ping=true"
        ),
        format!("postgresql+asyncpg://{CREDENTIALS}@{address}?schema=public&sslmode=disable&pgbouncer=true"),
        format!(
            "postgresql://app@replaced.example/none?host={host}&port={port}&dbname=pressroom&connection_limit=1&password={}",
            CREDENTIALS.split_once(':').unwrap().1
        ),
    ] {
        for statement in [
            "DROP DATABASE IF EXISTS pressroom WITH (FORCE)",
            "DROP DATABASE IF EXISTS pressroom_restored WITH (FORCE)",
            "CREATE DATABASE pressroom OWNER app",
        ] {
            admin.batch_execute(statement).await.unwrap();
        }
        let migrated = process::run(&["migrate"], &[("DATABASE_URL", &url)]);
        assert!(migrated.status.success(), "{url}: {migrated:?}");
        let original = client(&with_database(&server.url(), "pressroom")).await;
        original
            .batch_execute(&format!("{INSERT} FROM generate_series(1, 3) AS i"))
            .await
            .unwrap();

        let folder = Folder::new();
        let script = format!(
            "{}\nprintf '%s' \"$RESTORED_URL\" >restored",
            page::commands(PAGE, file!())
        );
        let mut shell = page::shell(&script);
        shell
            .env("DATABASE_URL", &url)
            .env("REDIS_URL", redis.url())
            .current_dir(folder.path())
            .stdin(Stdio::null());
        let printed = process::succeeds(&mut shell);
        assert_eq!(
            printed.matches("3|0\n").count(),
            2,
            "{url}: both counts: {printed}"
        );

        let restored = std::fs::read_to_string(folder.path().join("restored")).unwrap();
        let current = process::run(&["migrate"], &[("DATABASE_URL", &restored)]);
        assert_eq!(
            String::from_utf8_lossy(&current.stdout),
            "The schema is current.\n",
            "{url}"
        );
        let restored = client(&with_database(&server.url(), "pressroom_restored")).await;
        let insert = format!("{INSERT} FROM generate_series(4, 4) AS i RETURNING id");
        let id: i32 = restored.query_one(&insert, &[]).await.unwrap().get(0);
        assert!(id > 1_000_000, "{id} may have been another user's");
    }
}
