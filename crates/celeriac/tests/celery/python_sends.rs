//! Python sends, Rust runs, Python reads the result.

use std::sync::Arc;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    celery::Python,
    server::Server,
    support::{Journal, PATIENCE, Running, worker},
    with_every_celery,
};

with_every_celery! {
    a_task_runs_and_its_result_is_found
}

async fn a_task_runs_and_its_result_is_found(python: Python) {
    let server = Server::start();
    let broker = Arc::new(server.broker());
    let running = Running::start(
        worker(broker, &Journal::default(), &CancellationToken::new()).build(),
        PATIENCE,
    );
    let mut client = python.client(&server.url());
    assert_eq!(client.run("add.delay(2, 3).get(timeout=20)").await, json!(5));
    running.stop().await.unwrap();
}
