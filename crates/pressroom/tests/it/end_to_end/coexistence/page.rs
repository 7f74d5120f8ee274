//! The commands of `docs/coming-from-flask.md`, run as they stand there and in their order.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use super::{
    Database, Flask, Installation, PASSWORD,
    flask::{Celery, flask_url, ran_by_celery},
    login,
};
use crate::support::{eventually, postgres_server::free_port, raw};

/// How long the commands may take together.
const PATIENCE: Duration = Duration::from_secs(60);

const PAGE: &str = include_str!("../../../../../../docs/coming-from-flask.md");

/// The shell blocks, each followed by the comment that says who runs it.
fn commands() -> String {
    let mut blocks = Vec::new();
    for block in PAGE.split("\n```sh\n").skip(1) {
        let (commands, rest) = block.split_once("\n```\n").unwrap();
        let claim = format!("<!-- run by: crates/pressroom/tests/it/{} -->", file_here());
        assert!(rest.starts_with(&claim), "who runs this?\n{commands}");
        blocks.push(commands);
    }
    assert!(!blocks.is_empty());
    blocks.join("\n")
}

fn file_here() -> &'static str {
    file!().split_once("tests/it/").unwrap().1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_of_the_page_lead_there_and_back() {
    let database = Database::empty().await;
    let installation = Installation::unmigrated(flask_url(&database.url), Some(database)).await;
    let flask = Flask::start(&installation).await;
    raw::register(flask.address, "alice@example.com").await;
    let celery = Celery::start(&installation).await;

    let programs = Path::new(env!("CARGO_BIN_EXE_pressroom")).parent().unwrap();
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", programs.display());
    let script = format!("set -eu -o pipefail\n{}", commands());
    // Whatever fails, nothing that the page starts may outlive this.
    let script = format!("trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{script}");
    let mut shell = Command::new("bash");
    shell
        .args(["-c", &script])
        .env_clear()
        .envs(["DATABASE_URL", "REDIS_URL", "SECRET_KEY"].map(|name| (name, installation.variable(name))))
        .env("PATH", path)
        .env("FLASK", format!("http://{}", flask.address))
        .env("PRESSROOM", format!("http://127.0.0.1:{}", free_port()))
        .env("OTEL_SDK_DISABLED", "true")
        .current_dir(installation.folder())
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || shell.output().unwrap());
    let output = tokio::time::timeout(PATIENCE, output).await;
    let output = output.expect("the commands end").unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );

    login(200, flask.address, "alice@example.com", PASSWORD).await;
    // The page's article was made at Pressroom while Celery alone ran tasks.
    eventually("its task", async || ran_by_celery(&installation).pop()).await;
    celery.stop().await;
}
