//! Sends and runs the task of `bench/peers/run` with celeriac, apalis and rusty-celery.
//!
//! ```text
//! peers-bench <library> send <url>    sends tasks as requested on standard input
//! peers-bench <library> work <url>    runs a worker until it is killed
//! ```
//!
//! A request is a line `<first id> <count> <tasks per second> <milliseconds>`: the ids count up from the first, or are all -1
//! if the first is -1; a rate of 0 means as fast as possible. The reply is a line `sent` on standard output.

mod apalis;
mod celeriac;
mod rusty_celery;

use std::{
    io::{BufRead, Write},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use redis::aio::ConnectionManager;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

const CONCURRENCY: usize = 20;
const BATCH: u64 = 500;

/// Arguments of the task.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Job {
    /// Id to record, or -1 for a task that does nothing.
    id: i64,
    /// Time of sending, in microseconds since the Unix epoch.
    sent: u64,
    /// Duration of the task in milliseconds.
    takes: u64,
}

impl Job {
    /// Sleeps, and then records the id and the time in microseconds between sending and start.
    async fn run(self) -> redis::RedisResult<()> {
        static RECORDS: OnceCell<ConnectionManager> = OnceCell::const_new();
        if self.id < 0 {
            return Ok(());
        }
        let latency = now() - self.sent;
        if self.takes > 0 {
            tokio::time::sleep(Duration::from_millis(self.takes)).await;
        }
        let connect = async || {
            let url = std::env::var("RECORDS_URL").expect("RECORDS_URL is set");
            redis::Client::open(url)?.get_connection_manager().await
        };
        let mut records = RECORDS.get_or_try_init(connect).await?.clone();
        redis::cmd("RPUSH").arg("ran").arg(format!("{} {latency}", self.id)).exec_async(&mut records).await
    }
}

/// Client of a task queue.
trait Send {
    async fn send(&mut self, jobs: Vec<Job>) -> anyhow::Result<()>;
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set");
    u64::try_from(since.as_micros()).expect("the time fits")
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match words.as_slice() {
            ["celeriac", "send", url] => requests(celeriac::Sender::new(url)?).await,
            ["celeriac", "work", url] => celeriac::work(url).await,
            ["apalis", "send", url] => requests(apalis::Sender::new(url).await?).await,
            ["apalis", "work", url] => apalis::work(url).await,
            ["rusty-celery", "send", url] => requests(rusty_celery::Sender::new(url).await?).await,
            ["rusty-celery", "work", url] => rusty_celery::work(url).await,
            _ => bail!("usage: peers-bench celeriac|apalis|rusty-celery send|work <url>"),
        }
    })
}

async fn requests(mut sender: impl Send) -> anyhow::Result<()> {
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let mut words = line.split_whitespace();
        let mut word = || words.next().with_context(|| format!("{line:?} is not a request"));
        let (first, count, rate, takes) =
            (word()?.parse::<i64>()?, word()?.parse::<u64>()?, word()?.parse::<f64>()?, word()?.parse()?);
        let batch = if rate > 0.0 { 1 } else { BATCH };
        let begin = Instant::now();
        let mut sent = 0;
        while sent < count {
            if rate > 0.0 {
                // tokio's timer has a resolution of only a millisecond.
                thread::sleep((begin + Duration::from_secs_f64(sent as f64 / rate)).duration_since(Instant::now()));
            }
            let end = count.min(sent + batch);
            let job = |offset: u64| Job {
                id: if first < 0 { -1 } else { first + i64::try_from(offset).expect("ids are small") },
                sent: now(),
                takes,
            };
            sender.send((sent..end).map(job).collect()).await?;
            sent = end;
        }
        writeln!(std::io::stdout(), "sent")?;
    }
    Ok(())
}
