//! A complete installation for one test: PostgreSQL, Redis, a mail server, an OTLP receiver, and processes
//! of the program.

use std::{net::SocketAddr, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::support::{
    eventually,
    mail::MailServer,
    otlp::Receiver,
    postgres::Database,
    process::{self, Folder, Process},
    raw,
    redis_server::RedisServer,
};

/// An installation for one test.
pub(super) struct Installation {
    folder: Folder,
    variables: Vec<(&'static str, String)>,
    /// Database on the shared server, dropped with the installation.
    _database: Option<Database>,
    pub(super) redis: RedisServer,
    pub(super) otlp: Receiver,
    pub(super) mail: MailServer,
}

impl Installation {
    /// Starts the servers, with a migrated database, but no processes of the program.
    pub(super) async fn new() -> Self {
        let database = Database::empty().await;
        Self::on(database.url.clone(), Some(database)).await
    }

    /// Like [`Installation::new`], on the given database.
    pub(super) async fn on(database_url: String, database: Option<Database>) -> Self {
        let installation = Self::unmigrated(database_url, database).await;
        installation.migrate();
        installation
    }

    /// Like [`Installation::on`], without migrating the database.
    pub(super) async fn unmigrated(database_url: String, database: Option<Database>) -> Self {
        let redis = RedisServer::start();
        let otlp = Receiver::start().await;
        let mail = MailServer::start().await;
        let variables = vec![
            ("APP_ENV", "production".to_owned()),
            ("SECRET_KEY", "0123456789abcdef0123456789abcdef".to_owned()),
            ("DATABASE_URL", database_url),
            ("REDIS_URL", redis.url()),
            ("SMTP_URL", mail.url()),
            ("SMTP_FROM", "Press <press@example.com>".to_owned()),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", otlp.url()),
            ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
            ("OTEL_BLRP_SCHEDULE_DELAY", "100".to_owned()),
            ("OTEL_METRIC_EXPORT_INTERVAL", "200".to_owned()),
        ];
        Self {
            folder: Folder::new(),
            variables,
            _database: database,
            redis,
            otlp,
            mail,
        }
    }

    pub(super) fn migrate(&self) {
        let migrated = process::run(&["migrate"], &[("DATABASE_URL", self.variable("DATABASE_URL"))]);
        assert!(
            migrated.status.success(),
            "{}",
            String::from_utf8_lossy(&migrated.stderr)
        );
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the environment of the processes, with additional variables.
    pub(super) fn variables<'a>(&'a self, more: &[(&'static str, &'a str)]) -> Vec<(&'static str, &'a str)> {
        let variables = self.variables.iter();
        variables
            .map(|(name, value)| (*name, value.as_str()))
            .chain(more.iter().copied())
            .collect()
    }

    /// Returns the value of a variable.
    pub(super) fn variable(&self, name: &str) -> &str {
        let mut variables = self.variables.iter();
        let found = variables.find(|(known, _)| *known == name);
        &found.unwrap_or_else(|| panic!("{name} is not set")).1
    }

    pub(super) async fn serve(&self) -> (Process, SocketAddr) {
        self.serve_with(&[]).await
    }

    /// Starts the API with additional variables.
    pub(super) async fn serve_with(&self, more: &[(&'static str, &str)]) -> (Process, SocketAddr) {
        process::start_api(&["serve"], &self.variables(more), self.folder()).await
    }

    pub(super) fn worker(&self) -> Process {
        self.worker_with(&[])
    }

    /// Starts a worker with additional variables.
    pub(super) fn worker_with(&self, more: &[(&'static str, &str)]) -> Process {
        process::start("worker", &["worker"], &self.variables(more), self.folder())
    }

    /// Adds a message in Celery's format to the queue, with positional `arguments`; `change` may alter it.
    pub(super) fn send_task(&self, id: &str, arguments: &Value, change: impl FnOnce(&mut Value)) {
        self.send_task_to("celery", id, arguments, change);
    }

    /// Like [`Installation::send_task`], with a given queue.
    pub(super) fn send_task_to(
        &self,
        queue: &str,
        id: &str,
        arguments: &Value,
        change: impl FnOnce(&mut Value),
    ) {
        let mut message: Value =
            serde_json::from_str(include_str!("../../vectors/celery-message.json")).unwrap();
        message.as_object_mut().unwrap().remove("_body_decoded");
        message["body"] = STANDARD.encode(json!([arguments, {}, {}]).to_string()).into();
        message["headers"]["id"] = id.into();
        message["headers"]["root_id"] = id.into();
        message["properties"]["correlation_id"] = id.into();
        message["properties"]["delivery_tag"] = id.into();
        change(&mut message);
        self.redis
            .command(&["LPUSH", queue, &message.to_string()])
            .unwrap();
    }

    /// Waits for a message in the queue and returns the oldest one.
    pub(super) async fn waiting_message(&self) -> String {
        eventually("a message in Redis", async || {
            let response = self.redis.command(&["LRANGE", "celery", "-1", "-1"])?;
            let (start, end) = (response.find('{')?, response.rfind('}')?);
            Some(response[start..=end].to_owned())
        })
        .await
    }

    /// Waits for `count` e-mails and asserts that there are no more.
    pub(super) async fn mails(&self, count: usize) {
        eventually("the e-mails", async || {
            (self.mail.received().len() >= count).then_some(())
        })
        .await;
        assert_eq!(self.mail.received().len(), count, "{:?}", self.mail.received());
    }
}

/// Alice, who has written an article, and Bob, who has favourited it. The queue is empty afterwards.
pub(super) struct People {
    pub(super) alice: String,
}

impl People {
    pub(super) async fn new(api: SocketAddr, installation: &Installation) -> Self {
        let alice = raw::register(api, "alice@example.com").await;
        let bob = raw::register(api, "bob@example.com").await;
        let first = create(api, &alice, "First", None).await;
        let target = format!(
            "/api/articles/{}/favorite",
            first.json()["slug"].as_str().unwrap()
        );
        assert_eq!(
            raw::request(api, "POST", &target, Some(&bob), None).await.status,
            200
        );
        installation.waiting_message().await;
        installation.redis.command(&["DEL", "celery"]).unwrap();
        Self { alice }
    }
}

pub(super) async fn create(
    api: SocketAddr,
    token: &str,
    title: &str,
    traceparent: Option<&str>,
) -> raw::Response {
    let body = json!({"title": title, "body": "x"}).to_string();
    let trace = traceparent.map_or(String::new(), |parent| format!("traceparent: {parent}\r\n"));
    let request = format!(
        "POST /api/articles/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{trace}Authorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let response = raw::send(api, request.as_bytes()).await;
    assert_eq!(
        response.status,
        201,
        "{}",
        String::from_utf8_lossy(&response.body)
    );
    response
}
