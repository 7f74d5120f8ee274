//! apalis with Redis: the queue is polled every 10 milliseconds, because version 1.0.0 does not announce new tasks. Tasks are
//! acknowledged after they have run, and return to the queue 10 seconds after the last heartbeat of their worker (by default 300).

use std::time::Duration;

use apalis::{layers::WorkerBuilderExt as _, prelude::*};
use apalis_redis::{Config, RedisStorage};
use redis::aio::ConnectionManager;

use crate::{CONCURRENCY, Job};

fn config() -> Config {
    Config::default()
        .queue("bench")
        .batch_size(100)
        .heartbeat_interval(Duration::from_secs(2))
        .missed_heartbeats(5)
        // Locks are for tasks that run longer than a heartbeat interval. They cost a scan of the queue per task.
        .lock_tasks(false)
}

async fn storage(url: &str) -> anyhow::Result<Storage> {
    Ok(RedisStorage::new(apalis_redis::connect(url).await?).with_config(config()))
}

type Storage = RedisStorage<Job, ConnectionManager>;

pub struct Sender(Storage);

impl Sender {
    pub async fn new(url: &str) -> anyhow::Result<Self> {
        Ok(Self(storage(url).await?))
    }
}

impl crate::Send for Sender {
    async fn send(&mut self, jobs: Vec<Job>) -> anyhow::Result<()> {
        Ok(self.0.push_bulk(jobs).await?)
    }
}

pub async fn work(url: &str) -> anyhow::Result<()> {
    // The name of a killed worker cannot be reused before that worker has missed its heartbeats.
    WorkerBuilder::new(format!("worker-{}", std::process::id()))
        .backend(storage(url).await?.poll_with_interval(Duration::from_millis(10)))
        .concurrency(CONCURRENCY)
        .build(|job: Job| job.run())
        .run()
        .await?;
    Ok(())
}
