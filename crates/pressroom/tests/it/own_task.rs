//! A custom task, as docs/writing-a-task.md shows it: with the store, a span, and the outbox.
#![expect(clippy::disallowed_methods, reason = "tests insert rows directly")]

use std::{sync::Arc, time::Duration};

use celeriac::{
    Broker, Client, MemoryBroker, Signature, TaskContext, TaskError, TaskOptions, Worker, WorkerBuilder,
};
use pressroom::{
    clock::SystemClock,
    domain::ArticleId,
    ids::RandomIds,
    store::{OutboxStore as _, Store, StoreError},
    tasks::{Dispatcher, Durability},
};
use serde_json::{Value, json};
use telemetry::Span;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::support::{eventually, postgres::Database};

/// Counts the words of an article.
#[derive(Clone)]
pub struct WordCount {
    pub store: Arc<dyn Store>,
}

impl WordCount {
    pub const NAME: &str = "app.jobs.tasks.count_words";

    /// Registers the task with a worker.
    pub fn register(self, worker: WorkerBuilder) -> WorkerBuilder {
        let options = TaskOptions::new()
            .time_limit(Duration::from_secs(30))
            .parameters(&["article_id"]);
        worker.task(
            Self::NAME,
            options,
            move |_: TaskContext, (article_id,): (i32,)| {
                let task = self.clone();
                async move {
                    let counted = Span::internal("job.count_words").run(task.run(ArticleId(article_id)));
                    counted.await.map_err(TaskError::retry)
                }
            },
        )
    }

    async fn run(&self, id: ArticleId) -> Result<Value, StoreError> {
        let Some(article) = self.store.find_article_by_id(id).await? else {
            return Ok(json!({"status": "error", "error": "Article not found"}));
        };
        let words = article.body.split_whitespace().count();
        telemetry::info!(article.id = id.0, "Words counted");
        Ok(json!({"status": "success", "words": words}))
    }
}

/// Starts a worker with the task, which runs until the token is cancelled.
fn start_worker(store: Arc<dyn Store>, broker: Arc<dyn Broker>, shutdown: CancellationToken) {
    let worker = WordCount { store }.register(Worker::builder(broker)).build();
    tokio::spawn(worker.run(shutdown, Duration::from_secs(5)));
}

async fn insert_article(database: &Database) -> i32 {
    let row = database
        .client()
        .await
        .query_one(
            "WITH author AS (
                INSERT INTO users (email, password_hash, name, bio, image, created_at, updated_at)
                VALUES ('ann@example.com', 'x', 'Ann', '', '', now(), now())
                RETURNING id
            )
            INSERT INTO articles (slug, title, description, body, author_id, favorites_count, created_at, updated_at)
            SELECT 'one', 'One', '', 'four words of text', id, 0, now(), now()
            FROM author
            RETURNING id",
            &[],
        )
        .await
        .unwrap();
    row.get(0)
}

#[tokio::test]
async fn a_custom_task_reads_the_store_and_returns_its_result() {
    let database = Database::migrated().await;
    let id = insert_article(&database).await;
    let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(10));
    let shutdown = CancellationToken::new();
    start_worker(Arc::new(database.store()), broker.clone(), shutdown.clone());

    let client = Client::new(broker);
    for (article, expected) in [
        (id, json!({"status": "success", "words": 4})),
        (id + 1, json!({"status": "error", "error": "Article not found"})),
    ] {
        let sent = client
            .send(Signature::new(WordCount::NAME).kwarg("article_id", article))
            .await
            .unwrap();
        let result = client.wait(&sent, Duration::from_secs(10)).await.unwrap();
        assert_eq!(result, expected);
    }
    shutdown.cancel();
}

#[tokio::test]
async fn the_outbox_dispatches_tasks_of_any_name() {
    let database = Database::migrated().await;
    let id = insert_article(&database).await;
    let store = Arc::new(database.store());
    let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(10));
    let shutdown = CancellationToken::new();
    start_worker(store.clone(), broker.clone(), shutdown.clone());
    let task_id = "5f2f6d5e-7a59-4f0c-8f58-1c7b3f1f0a01";
    database
        .client()
        .await
        .batch_execute(&format!(
            "INSERT INTO outbox (task_id, name, args, trace, created_at, claimable_at)
            VALUES ('{task_id}', '{}', jsonb_build_array({id}), '[]', now() AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC')",
            WordCount::NAME,
        ))
        .await
        .unwrap();

    let client = Client::new(broker.clone());
    let dispatcher = Dispatcher {
        store: store.clone(),
        client: client.clone(),
        clock: Arc::new(SystemClock),
        queue: "celery".to_owned(),
        ids: Arc::new(RandomIds),
        durability: Durability::Broker(store.clone()),
        wake: Arc::new(Notify::new()),
    };
    tokio::spawn(dispatcher.run(shutdown.clone()));
    let result = client.wait(task_id, Duration::from_secs(10)).await.unwrap();
    assert_eq!(result, json!({"status": "success", "words": 4}));
    eventually("the outbox to be empty", async || {
        (store.outbox_backlog().await.unwrap().tasks == 0).then_some(())
    })
    .await;
    shutdown.cancel();
}
