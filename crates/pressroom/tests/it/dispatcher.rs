//! The dispatcher in embedded mode, on a database that is busy when the process starts.
#![expect(clippy::disallowed_methods, reason = "the test locks the database directly")]

use std::{sync::Arc, time::Duration};

use celeriac::{Broker, Client, MemoryBroker, TaskContext, TaskError, TaskOptions, Worker};
use pressroom::{
    clock::SystemClock,
    domain::ARTICLE_NOTIFICATION,
    ids::RandomIds,
    store::{AccountStore as _, ArticleStore as _, OutboxStore as _},
    tasks::{Dispatcher, Durability},
};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    store::fixture::{at, new_article, new_user, task},
    support::{eventually, sqlite},
};

async fn notify(_: TaskContext, (article, _): (i64, String)) -> Result<Value, TaskError> {
    Ok(json!({"article": article}))
}

#[tokio::test]
async fn the_tasks_of_an_earlier_run_resume_once_the_database_is_available() {
    let file = sqlite::File::new();
    let store = Arc::new(file.store());
    let ann = store.insert_user(new_user("ann@example.com")).await.unwrap().id;
    let article = new_article("One", ann, at(0));
    store.insert_article(article, task(1, at(0))).await.unwrap();
    // The earlier run claimed the task and did not finish it.
    let a_year = Duration::from_hours(24 * 365);
    let claimed = store.claim_outbox(at(1), a_year, 9).await.unwrap();
    let other = rusqlite::Connection::open(file.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();

    let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(10));
    let shutdown = CancellationToken::new();
    let worker = Worker::builder(broker.clone()).task(ARTICLE_NOTIFICATION, TaskOptions::new(), notify);
    tokio::spawn(worker.build().run(shutdown.clone(), Duration::from_secs(5)));
    let client = Client::new(broker);
    let dispatcher = Dispatcher {
        store: store.clone(),
        client: client.clone(),
        clock: Arc::new(SystemClock),
        ids: Arc::new(RandomIds),
        queue: "celery".to_owned(),
        durability: Durability::OutboxUntilDone,
        wake: Arc::new(Notify::new()),
    };
    tokio::spawn(dispatcher.run(shutdown.clone()));
    // A single thread writes, in order, so the dispatcher's attempt has failed once the second of these has.
    for _ in 0..2 {
        store.delete_outbox(&[]).await.unwrap_err();
    }
    other.execute_batch("ROLLBACK").unwrap();

    let result: Value = client
        .wait(claimed[0].task_id, Duration::from_secs(30))
        .await
        .unwrap();
    assert_eq!(result["article"], claimed[0].args[0]);
    eventually("the outbox to be empty", async || {
        (store.outbox_backlog().await.unwrap().tasks == 0).then_some(())
    })
    .await;
    shutdown.cancel();
}
