//! celeriac with its defaults.

use std::{sync::Arc, time::Duration};

use celeriac::{CancellationToken, Client, RedisBroker, RedisConfig, Signature, TaskContext, TaskError, TaskOptions, Worker};

use crate::{CONCURRENCY, Job, Send};

pub struct Sender(Client);

impl Sender {
    pub fn new(url: &str) -> anyhow::Result<Self> {
        Ok(Self(Client::new(Arc::new(RedisBroker::new(RedisConfig::new(url))?))))
    }
}

impl Send for Sender {
    async fn send(&mut self, jobs: Vec<Job>) -> anyhow::Result<()> {
        let signature = |job: Job| {
            Signature::new("job").arg(job.id).arg(job.sent).arg(job.takes).ignore_result(true)
        };
        for sent in self.0.send_batch(jobs.into_iter().map(signature).collect()).await {
            sent?;
        }
        Ok(())
    }
}

pub async fn work(url: &str) -> anyhow::Result<()> {
    let broker = Arc::new(RedisBroker::new(RedisConfig::new(url))?);
    let task = async |_: TaskContext, (id, sent, takes): (i64, u64, u64)| -> Result<(), TaskError> {
        Ok(Job { id, sent, takes }.run().await?)
    };
    let worker = Worker::builder(broker).concurrency(CONCURRENCY).task("job", TaskOptions::new(), task).build();
    Ok(worker.run(CancellationToken::new(), Duration::ZERO).await?)
}
