//! Runs the commands of `docs/coming-from-flask.md`, unchanged and in order.

use std::{process::Stdio, time::Duration};

use super::{
    Database, Flask, Installation, PASSWORD,
    flask::{Celery, flask_url, run_by_celery},
    login,
};
use crate::support::{eventually, page, postgres_server::free_port, raw};

/// Time limit for all commands together.
const TIMEOUT: Duration = Duration::from_secs(60);

const PAGE: &str = include_str!("../../../../../../docs/coming-from-flask.md");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_of_the_page_migrate_and_roll_back() {
    let database = Database::empty().await;
    let installation = Installation::unmigrated(flask_url(&database.url), Some(database)).await;
    let flask = Flask::start(&installation).await;
    raw::register(flask.address, "alice@example.com").await;
    let celery = Celery::start(&installation).await;

    // Stops the processes that the page starts even if a command fails.
    let clean_up = "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT";
    let mut shell = page::shell(&format!("{clean_up}\n{}", page::commands(PAGE, file!())));
    shell
        .envs(["DATABASE_URL", "REDIS_URL", "SECRET_KEY"].map(|name| (name, installation.variable(name))))
        .env("FLASK", format!("http://{}", flask.address))
        .env("PRESSROOM", format!("http://127.0.0.1:{}", free_port()))
        .env("OTEL_SDK_DISABLED", "true")
        .current_dir(installation.folder())
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || shell.output().unwrap());
    let output = tokio::time::timeout(TIMEOUT, output).await;
    let output = output.expect("the commands finish in time").unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );

    login(200, flask.address, "alice@example.com", PASSWORD).await;
    // The page creates an article through Pressroom while only Celery runs tasks.
    eventually("the article's task", async || run_by_celery(&installation).pop()).await;
    celery.stop().await;
}
