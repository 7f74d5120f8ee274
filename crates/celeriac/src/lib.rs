//! The Celery task protocol in Rust: send tasks to Celery workers, run tasks that Celery clients send.
//!
//! It speaks task protocol 2 in kombu's Redis layout (Celery 5.6, kombu 5.6), so that Python and Rust share
//! queues, results and events, and either side can be replaced alone. Beyond Celery, a message is never in
//! nobody's hands: it is popped and reserved in one step, acknowledged together with its result, and given back
//! soon after its worker has died.
//!
//! [`Client`] sends a [`Signature`]; [`Worker`] runs tasks; both work on a [`Broker`], of which there are two:
//! [`RedisBroker`], and [`MemoryBroker`] inside one process. [`Control`] asks workers and steers them, as
//! `celery inspect` and `celery control` do.
//!
//! Work of several tasks is a [`Canvas`] made with [`chain`], [`group`] and [`chord`]: [`Client::apply`] sends it and
//! gives back an [`AsyncResult`] to wait on.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use celeriac::{Client, MemoryBroker, Signature, TaskContext, TaskError, TaskOptions, Worker};
//! use tokio_util::sync::CancellationToken;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // `RedisBroker::new(RedisConfig::new("redis://localhost:6379/0"))` in production.
//! let broker: Arc<dyn celeriac::Broker> = Arc::new(MemoryBroker::new(100));
//!
//! async fn add(_: TaskContext, (a, b): (i64, i64)) -> Result<i64, TaskError> {
//!     Ok(a + b)
//! }
//! let worker = Worker::builder(broker.clone()).task("math.add", TaskOptions::default(), add).build();
//! let shutdown = CancellationToken::new();
//! let running = tokio::spawn(worker.run(shutdown.clone(), Duration::from_secs(5)));
//!
//! let client = Client::new(broker);
//! let id = client.send(Signature::new("math.add").arg(2).arg(3)).await?;
//! // The in-process broker answers when the task has ended; with Redis, the result comes later.
//! assert_eq!(client.result(&id).await?.expect("the task has ended").result, 5);
//!
//! shutdown.cancel();
//! running.await??;
//! # Ok(())
//! # }
//! ```

#![warn(missing_docs, missing_debug_implementations, unreachable_pub)]

mod async_result;
mod backoff;
mod broker;
mod canvas;
mod client;
mod control;
mod event;
mod exception;
mod failure_log;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod json;
mod log;
mod memory;
mod message;
mod observer;
#[cfg(feature = "telemetry")]
pub mod otel;
mod redis;
mod repr;
mod result;
mod result_tree;
mod retry;
mod schedule;
mod signature;
mod system;
mod task;
mod task_id;
mod time;
mod worker;

pub use self::{
    async_result::{AsyncResult, WaitError},
    broker::{
        Broker, BrokerError, Bus, ChordPart, ChordState, DeadLetter, DeadLetters, Delivery, DeliveryTag,
        Depth, LastTicks, LetterFilter, Publication, Renewal, ReplyTo, RequeueError, RequeueReport,
        RequeuedMessage, ResultBackend, ServerInfo, Settlement, SettlementStatus, Timetable,
    },
    canvas::{Canvas, CanvasError, chain, chord, group},
    client::{ApplyError, Client, SendError},
    control::{Control, Reply},
    event::Event,
    exception::Exception,
    memory::MemoryBroker,
    message::{DeliveryInfo, Embed, Headers, Message, Poison, PoisonReason, Properties, TimeLimit},
    observer::{
        Command, CommandFailure, CommandSpan, NoopObserver, Observer, RunSpan, SendInfo, SendSpan,
        SpanHandle, TaskInfo,
    },
    redis::{ConfigError, RedisBroker, RedisConfig, RedisScript},
    result::{ResultMeta, Status},
    retry::RetryDelay,
    schedule::{CatchUp, Cron, CronError, Entry, Interval, Schedule, ScheduleError, Scheduler},
    signature::Signature,
    system::default_node_name,
    task::{TaskContext, TaskError, TaskOptions, TaskOutcome},
    task_id::TaskId,
    worker::{Worker, WorkerBuilder, WorkerError},
};

/// The program in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
