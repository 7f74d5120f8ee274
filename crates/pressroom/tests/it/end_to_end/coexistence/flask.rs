//! Processes of the Flask application in `tests/flask` and of its Celery worker.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use super::Installation;
use crate::support::{
    eventually,
    postgres_server::free_port,
    process::{self, Process, required, succeeds},
};

/// Redis list to which each run of the task adds a line.
const RUNS: &str = "flask.ran";

/// The Flask API.
pub(super) struct Flask {
    pub(super) address: SocketAddr,
    process: Process,
}

impl Flask {
    /// Creates missing tables with SQLAlchemy, as the application does when it starts.
    pub(super) fn create_tables(installation: &Installation) {
        succeeds(&mut python(installation, &["-c", "import app"]));
    }

    pub(super) async fn start(installation: &Installation) -> Self {
        let port = free_port();
        let number = port.to_string();
        let command = python(
            installation,
            &["-m", "flask", "--app", "app", "run", "--port", &number],
        );
        let mut process = process::start_command("flask", command, installation.folder());
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        process.wait_for_ok(address, "/api/health").await;
        Self { address, process }
    }

    pub(super) async fn stop(mut self) {
        self.process.terminate().await;
    }
}

/// The Celery worker of the Flask application, which runs one task at a time.
pub(super) struct Celery {
    process: Process,
}

impl Celery {
    /// Starts a worker and waits until it consumes tasks.
    pub(super) async fn start(installation: &Installation) -> Self {
        let name = format!("flask{}@test", free_port());
        let arguments = ["-m", "celery", "-A", "tasks", "worker", "--pool", "solo"];
        let mut command = python(installation, &arguments);
        command.args(["--loglevel", "INFO", "--hostname", &name]);
        let process = process::start_command(&name, command, installation.folder());
        eventually("Celery to be ready", async || {
            process.output().contains(&format!("{name} ready.")).then_some(())
        })
        .await;
        Self { process }
    }

    /// Stops the worker after its running task; reserved tasks go back into the queue.
    pub(super) async fn stop(mut self) {
        let status = self.process.terminate().await;
        assert!(status.success(), "{}", self.process.output());
    }
}

/// Returns the tasks that Celery has run so far, each with `task`, `article`, `event`, `title` and `trace`.
pub(super) fn run_by_celery(installation: &Installation) -> Vec<Value> {
    let reply = installation.redis.command(&["LRANGE", RUNS, "0", "-1"]).unwrap();
    let lines = reply.lines().filter(|line| line.starts_with('{'));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Returns the database's URL in the form that SQLAlchemy requires.
pub(super) fn flask_url(url: &str) -> String {
    let (_, rest) = url.split_once("://").unwrap();
    format!("postgresql+psycopg://{rest}")
}

/// Returns a command for the Python interpreter with Flask, set up for the installation's database and Redis.
pub(super) fn python(installation: &Installation, arguments: &[&str]) -> Command {
    let mut command = Command::new(required("TEST_FLASK_PYTHON"));
    command
        .args(arguments)
        .env_clear()
        .envs(["DATABASE_URL", "REDIS_URL", "SECRET_KEY"].map(|name| (name, installation.variable(name))))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONUNBUFFERED", "1")
        .current_dir(source())
        .stdin(Stdio::null());
    command
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/flask")
}
