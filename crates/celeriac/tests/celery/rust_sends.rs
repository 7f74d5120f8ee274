//! Rust sends, Python runs, Rust reads the result.

use std::sync::Arc;

use celeriac::{Client, Signature, Status};
use serde_json::json;

use crate::{celery::Python, server::Server, support::final_result, with_every_celery};

with_every_celery! {
    a_task_runs_and_its_result_is_found
}

async fn a_task_runs_and_its_result_is_found(python: Python) {
    let server = Server::start();
    let client = Client::new(Arc::new(server.broker()));
    let worker = python.worker(&server.url(), &[], &[]).await;
    let id = client.send(Signature::new("add").arg(2).arg(3)).await.unwrap();
    let meta = final_result(&client, &id).await;
    assert_eq!((meta.status, meta.result), (Status::Success, json!(5)));
    worker.stop().await;
}
