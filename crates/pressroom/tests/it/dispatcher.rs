//! The dispatcher: in embedded mode on a database that is busy when the process starts, and with a backlog and
//! a single connection.
#![expect(clippy::disallowed_methods, reason = "tests use the databases directly")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use celeriac::{Broker, Client, MemoryBroker, TaskContext, TaskError, TaskOptions, Worker};
use jiff::Timestamp;
use pressroom::{
    clock::SystemClock,
    domain::{ARTICLE_NOTIFICATION, Backlog, OutboxTask},
    ids::RandomIds,
    store::{AccountStore as _, ArticleStore as _, OutboxStore, StoreError, postgres::PostgresStore},
    tasks::{Dispatcher, Durability},
};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    store::fixture::{at, new_article, new_user, task},
    support::{eventually, postgres::Database, sqlite},
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

async fn nothing(_: TaskContext, (): ()) -> Result<(), TaskError> {
    Ok(())
}

/// A store that counts failures.
#[derive(Debug)]
struct Counting {
    store: Arc<PostgresStore>,
    failures: AtomicUsize,
}

impl Counting {
    fn count<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        self.failures.fetch_add(usize::from(result.is_err()), Relaxed);
        result
    }
}

#[async_trait]
impl OutboxStore for Counting {
    async fn claim_outbox(
        &self,
        now: Timestamp,
        lease: Duration,
        limit: i64,
    ) -> Result<Vec<OutboxTask>, StoreError> {
        self.count(self.store.claim_outbox(now, lease, limit).await)
    }

    async fn delete_outbox(&self, ids: &[i64]) -> Result<(), StoreError> {
        self.count(self.store.delete_outbox(ids).await)
    }

    async fn release_outbox(
        &self,
        ids: &[i64],
        until: Timestamp,
        retry_at: Timestamp,
    ) -> Result<(), StoreError> {
        self.count(self.store.release_outbox(ids, until, retry_at).await)
    }

    async fn release_all_outbox(&self) -> Result<u64, StoreError> {
        self.count(self.store.release_all_outbox().await)
    }

    async fn outbox_backlog(&self) -> Result<Backlog, StoreError> {
        self.count(self.store.outbox_backlog().await)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_and_the_publishing_of_earlier_claims_share_one_connection() {
    let database = Database::migrated().await;
    let insert = "INSERT INTO outbox (task_id, name, args, trace, created_at, claimable_at)
        SELECT gen_random_uuid(), 'task', '[]', '{}', '2020-01-01', '2020-01-01' FROM generate_series(1, 10000)";
    database.client().await.batch_execute(insert).await.unwrap();
    let mut config = database.config();
    config.sizes.maintenance = 1;
    let store = Arc::new(PostgresStore::connect(&config).unwrap());
    let counting = Arc::new(Counting {
        store: store.clone(),
        failures: AtomicUsize::new(0),
    });
    let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(10_000));
    let shutdown = CancellationToken::new();
    let worker = Worker::builder(broker.clone()).task("task", TaskOptions::new(), nothing);
    tokio::spawn(worker.build().run(shutdown.clone(), Duration::from_secs(5)));
    let dispatcher = Dispatcher {
        store: counting.clone(),
        client: Client::new(broker),
        clock: Arc::new(SystemClock),
        ids: Arc::new(RandomIds),
        queue: "celery".to_owned(),
        durability: Durability::Broker(store.clone()),
        wake: Arc::new(Notify::new()),
    };
    tokio::spawn(dispatcher.run(shutdown.clone()));
    eventually("the outbox to be empty", async || {
        (store.outbox_backlog().await.unwrap().tasks == 0).then_some(())
    })
    .await;
    assert_eq!(counting.failures.load(Relaxed), 0);
    shutdown.cancel();
}
