//! The Rust side of `bench/tasks`: commands that fill a queue, run a worker and send tasks. Each command prints
//! its measurement as one JSON line. Clients and workers are measured end to end, against a real Redis.
//!
//! ```text
//! throughput fill <url> <count> [ignore [<task> <arguments>]]
//!     sends messages in batches, for the task `noop` by default
//! throughput work <url> <concurrency> [observed]
//!     runs a worker until SIGTERM; `observed` records spans and metrics of its tasks (feature `telemetry`)
//! throughput drain <url> <count>
//!     measures how long a worker takes to empty the queue
//! throughput send <url> <count> <parallel>
//!     sends one message per call, as `.delay()` does
//! throughput roundtrip <url> <count>
//!     sends tasks and waits for every result, while a worker runs
//! ```

use std::{
    io::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use celeriac::{
    Broker, Client, RedisBroker, RedisConfig, Signature, TaskContext, TaskError, TaskOptions, Worker,
    WorkerBuilder,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const BATCH: usize = 500;
const TIMEOUT: Duration = Duration::from_secs(60);

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // One thread: the tasks do nothing, so a second thread would only add wake-ups.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match words.as_slice() {
            ["fill", url, count] => fill(url, count.parse()?, &signature(false)).await,
            ["fill", url, count, "ignore"] => fill(url, count.parse()?, &signature(true)).await,
            ["fill", url, count, "ignore", task, arguments] => {
                let arguments = serde_json::from_str(arguments)?;
                let signature = Signature::new(*task).args(arguments).ignore_result(true);
                fill(url, count.parse()?, &signature).await
            }
            ["work", url, concurrency] => work(url, concurrency.parse()?).await,
            #[cfg(feature = "telemetry")]
            ["work", url, concurrency, "observed"] => observed::work(url, concurrency.parse()?).await,
            ["drain", url, count] => drain(url, count.parse()?).await,
            ["send", url, count, parallel] => send(url, count.parse()?, parallel.parse()?).await,
            ["roundtrip", url, count] => roundtrip(url, count.parse()?).await,
            // `cargo bench` runs all benchmarks without arguments; this benchmark needs a server.
            [] => Ok(()),
            _ => Err("usage: fill|work|drain|send|roundtrip <url> ...".into()),
        }
    })
}

fn broker(url: &str) -> Result<Arc<RedisBroker>, Error> {
    Ok(Arc::new(RedisBroker::new(RedisConfig::new(url))?))
}

fn signature(ignore: bool) -> Signature {
    Signature::new("noop").arg(1).arg("created").ignore_result(ignore)
}

fn print(line: &str) -> Result<(), Error> {
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

async fn fill(url: &str, count: usize, signature: &Signature) -> Result<(), Error> {
    let client = Client::new(broker(url)?);
    let begin = Instant::now();
    let mut left = count;
    while left > 0 {
        let batch = left.min(BATCH);
        for sent in client.send_batch(vec![signature.clone(); batch]).await {
            sent?;
        }
        left -= batch;
    }
    rate("fill", count, begin.elapsed())
}

async fn send(url: &str, count: usize, parallel: usize) -> Result<(), Error> {
    let client = Client::new(broker(url)?);
    client.send(signature(true)).await?;
    let begin = Instant::now();
    let senders: Vec<_> = (0..parallel)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                for _ in 0..count / parallel {
                    client.send(signature(true)).await?;
                }
                Ok::<_, celeriac::SendError>(())
            })
        })
        .collect();
    for sender in senders {
        sender.await??;
    }
    rate("send", count / parallel * parallel, begin.elapsed())
}

async fn roundtrip(url: &str, count: usize) -> Result<(), Error> {
    let client = Client::new(broker(url)?);
    let first = client.send(signature(false)).await?;
    client.wait(&first, TIMEOUT).await?;
    let begin = Instant::now();
    // Sends the next batch while results of the previous batch still arrive.
    let mut waiting = JoinSet::new();
    for _ in 0..count / BATCH {
        for sent in client.send_batch(vec![signature(false); BATCH]).await {
            let (client, id) = (client.clone(), sent?);
            waiting.spawn(async move { client.wait(&id, TIMEOUT).await });
        }
        while waiting.len() > 2 * BATCH {
            waiting.join_next().await.expect("some are waiting")??;
        }
    }
    while let Some(ended) = waiting.join_next().await {
        ended??;
    }
    rate("roundtrip", count / BATCH * BATCH, begin.elapsed())
}

async fn work(url: &str, concurrency: usize) -> Result<(), Error> {
    run(Worker::builder(broker(url)?), concurrency).await
}

async fn run(worker: WorkerBuilder, concurrency: usize) -> Result<(), Error> {
    let worker = worker
        .concurrency(concurrency)
        .task(
            "noop",
            TaskOptions::default(),
            async |_: TaskContext, (_, _): (i64, String)| Ok::<_, TaskError>(()),
        )
        .build();
    let shutdown = CancellationToken::new();
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let running = tokio::spawn(worker.run(shutdown.clone(), Duration::from_secs(10)));
    terminated.recv().await;
    shutdown.cancel();
    running.await??;
    Ok(())
}

/// Measures the time from the first acknowledgement to the last. Fill the queue before starting a worker, so
/// that the worker's start-up time is not measured.
async fn drain(url: &str, count: u64) -> Result<(), Error> {
    let broker = broker(url)?;
    let mut begin = None;
    let mut taken_before = 0;
    loop {
        let depth = broker.depth("celery").await?;
        let left = depth.waiting + depth.unacked;
        if begin.is_none() && left < count {
            begin = Some(Instant::now());
            taken_before = count - left;
        }
        if let (0, Some(begin)) = (left, begin) {
            let taken = usize::try_from(count - taken_before)?;
            return rate("drain", taken, begin.elapsed());
        }
        // The interval limits the precision, but more polls would take server time from the worker.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn rate(what: &str, count: usize, took: Duration) -> Result<(), Error> {
    let seconds = took.as_secs_f64();
    print(&format!(
        r#"{{"what": "{what}", "count": {count}, "seconds": {seconds:.3}, "per_second": {:.0}}}"#,
        count as f64 / seconds
    ))
}

#[cfg(feature = "telemetry")]
mod observed {
    use celeriac::{default_node_name, otel::OtelObserver};
    use telemetry::Service;

    use super::*;

    /// Runs a worker with the telemetry that the `OTEL_*` variables configure.
    pub async fn work(url: &str, concurrency: usize) -> Result<(), Error> {
        let telemetry = telemetry::init(Service::new("throughput", env!("CARGO_PKG_VERSION")))?;
        let config = RedisConfig::new(url);
        let observer = Arc::new(OtelObserver::new(default_node_name()).with_redis(&config));
        let broker = Arc::new(RedisBroker::new(config)?.observer(observer.clone()));
        run(Worker::builder(broker).observer(observer), concurrency).await?;
        telemetry.shutdown(Duration::from_secs(5))?;
        Ok(())
    }
}
