//! Celery's task protocol in Rust: send tasks to Celery workers, and run tasks from Celery clients.
//!
//! The crate implements task protocol 2 in kombu's Redis layout (Celery 5.6, kombu 5.6): Python and Rust
//! share queues, results and events, and either side can be replaced separately. Unlike Celery, it loses no
//! message when a worker dies: a message is popped and reserved in one step, acknowledged together with its
//! result, and returned to its queue soon after its worker dies.
//!
//! [`Client`] sends a [`Signature`], or a [`Canvas`] built with [`chain`], [`group`] and [`chord`].
//! [`Worker`] runs tasks. [`Control`] inspects and controls workers, like `celery inspect` and `celery
//! control`. [`Scheduler`] sends periodic tasks. All of them use a [`Broker`]: [`RedisBroker`], or the
//! in-process [`MemoryBroker`].
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use celeriac::{
//!     Broker, CancellationToken, Client, MemoryBroker, Signature, TaskContext, TaskError, TaskOptions, Worker,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // In production: `RedisBroker::new(RedisConfig::new("redis://localhost:6379/0"))`.
//! let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(100));
//!
//! async fn add(_: TaskContext, (a, b): (i64, i64)) -> Result<i64, TaskError> {
//!     Ok(a + b)
//! }
//! let worker = Worker::builder(broker.clone()).task("math.add", TaskOptions::new(), add).build();
//! let shutdown = CancellationToken::new();
//! let running = tokio::spawn(worker.run(shutdown.clone(), Duration::from_secs(5)));
//!
//! let client = Client::new(broker);
//! let id = client.send(Signature::new("math.add").arg(2).arg(3)).await?;
//! assert_eq!(client.wait(id, Duration::from_secs(5)).await?, 5);
//!
//! shutdown.cancel();
//! running.await??;
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! - `bzip2`, `lzma`, `zstd`: further methods of [`Compression`]. Off by default.
//! - `telemetry`: the module `otel`, which records OpenTelemetry spans and metrics. Off by default.

#![warn(missing_docs, missing_debug_implementations, unreachable_pub)]

mod async_result;
mod back_off;
mod broker;
mod canvas;
mod client;
mod compression;
mod context;
mod control;
mod data;
mod event;
mod event_details;
mod event_stream;
mod exact_number;
mod exception;
mod failure_log;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod json;
mod lock;
mod log;
mod memory;
mod message;
mod observer;
#[cfg(feature = "telemetry")]
pub mod otel;
mod rate_limit;
mod redis;
mod repr;
mod result;
mod result_tree;
mod retry;
mod schedule;
mod signature;
#[cfg(feature = "__simulation")]
#[doc(hidden)]
pub mod simulation;
mod system;
mod task;
mod task_error;
mod task_id;
mod task_type;
mod time;
mod typed;
mod worker;

pub use self::{
    async_result::{AsyncResult, WaitError},
    broker::{
        Broker, BrokerError, Bus, ChordPart, ChordState, DeadLetter, DeadLetters, Delivery, DeliveryTag,
        Depth, Exchange, LastTicks, LetterFilter, LogReply, LoggedSendError, Publication, PublicationLog,
        Recovery, Renewal, ReplyTo, RequeueError, RequeueReport, RequeuedMessage, ResultBackend, ServerInfo,
        Settlement, SettlementStatus, Timetable,
    },
    canvas::{Canvas, CanvasError, chain, chord, chunks, group},
    client::{ApplyError, Client, SendError},
    compression::Compression,
    context::TaskContext,
    control::{Control, Reply},
    event::Event,
    event_details::{EventDetails, TaskDescription, TaskFailure, WorkerStatus},
    event_stream::EventStream,
    exact_number::{ExactNumber, NotExact},
    exception::Exception,
    memory::MemoryBroker,
    message::{DeliveryInfo, Embed, Headers, Message, Poison, PoisonReason, Properties, TimeLimit},
    observer::{
        Command, CommandFailure, CommandSpan, NoopObserver, Observer, RunSpan, SendInfo, SendSpan,
        SpanHandle, TaskInfo,
    },
    rate_limit::{InvalidRate, RateLimit},
    redis::{ConfigError, RedisBroker, RedisConfig, RedisScript},
    result::{ResultMeta, Status, TaskCall},
    retry::{Retry, RetryDelay},
    schedule::{CatchUp, Cron, CronError, Entry, Interval, Schedule, ScheduleError, Scheduler},
    signature::Signature,
    system::default_node_name,
    task::{TaskOptions, TaskOutcome},
    task_error::TaskError,
    task_id::TaskId,
    task_type::{TaskType, TypedResult, TypedSignature},
    typed::{Decimal, PythonType, Typed},
    worker::{Worker, WorkerBuilder, WorkerError},
};

/// Crates whose types appear in this crate's public API, and the most frequent of these types.
pub use {
    futures_util::stream::BoxStream,
    jiff::{self, Timestamp},
    serde_json::{self, Map, Value},
    tokio_util::sync::CancellationToken,
    uuid::Uuid,
};

/// Makes `cargo test` compile the program in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
