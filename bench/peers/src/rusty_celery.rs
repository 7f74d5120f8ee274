//! rusty-celery with Redis: tasks are acknowledged after they have run.

#![expect(non_local_definitions, reason = "the task macro is older than the lint")]

use std::sync::Arc;

use celery::{Celery, prelude::*};

use crate::{CONCURRENCY, Job};

#[celery::task]
async fn job(id: i64, sent: u64, takes: u64) -> TaskResult<()> {
    Job { id, sent, takes }.run().await.with_unexpected_err(|| "Redis failed")
}

async fn app(url: &str) -> anyhow::Result<Arc<Celery>> {
    Ok(celery::app!(
        broker = RedisBroker { url.to_owned() },
        tasks = [job],
        task_routes = [],
        prefetch_count = u16::try_from(CONCURRENCY)?,
        acks_late = true,
    )
    .await?)
}

pub struct Sender(Arc<Celery>);

impl Sender {
    pub async fn new(url: &str) -> anyhow::Result<Self> {
        Ok(Self(app(url).await?))
    }
}

impl crate::Send for Sender {
    async fn send(&mut self, jobs: Vec<Job>) -> anyhow::Result<()> {
        let sends = jobs.into_iter().map(|job| self.0.send_task(job::new(job.id, job.sent, job.takes)));
        futures_util::future::try_join_all(sends).await?;
        Ok(())
    }
}

pub async fn work(url: &str) -> anyhow::Result<()> {
    Ok(app(url).await?.consume().await?)
}
