//! OpenTelemetry for Rust services: one call reads the standard `OTEL_*` variables and sets up traces,
//! metrics and logs over OTLP. The crate also provides instruments for HTTP, databases, Redis and
//! business operations.
//!
//! Spans of the OpenTelemetry API and of `tracing` nest within each other; `tracing` events become log records.
//! Telemetry never blocks a request: a separate thread exports it, and telemetry beyond the capacity of its
//! queue is dropped, counted and logged once.
//!
//! ```no_run
//! use std::time::Duration;
//! use otel_service::{Service, init};
//!
//! let telemetry = init(Service::new("my-service", env!("CARGO_PKG_VERSION")))?;
//! otel_service::info!(answer = 42, "started");
//! telemetry.shutdown(Duration::from_secs(5)).ok();
//! # Ok::<(), otel_service::InitError>(())
//! ```

mod b3;
mod baggage;
mod baggage_attributes;
mod builder;
mod client;
mod config;
mod console;
mod context;
mod db;
mod environment;
mod escape;
mod exceptions;
mod failure;
mod gauges;
mod http;
mod http_settings;
mod init;
pub mod instrumentation;
mod instruments;
mod layer;
mod logs;
mod mask;
mod metrics;
pub mod names;
mod output;
mod platform;
mod process;
#[cfg(feature = "prometheus")]
mod prometheus;
mod propagation;
mod providers;
mod query;
mod recorder;
mod redis;
mod resource;
mod runtime;
mod sampler;
pub mod sampling;
mod service;
mod span;
mod sqlx;
mod stopwatch;
mod task;
pub mod testing;
mod trace_context;
mod untraced;
mod views;

pub use self::http::{ClientAddress, ClientUrl, HttpLayer, HttpService, ResponseBody, ResponseFuture};
pub use builder::{TelemetryBuilder, init};
pub use client::{
    GrpcClientBody, GrpcClientFuture, GrpcClientLayer, GrpcClientService, HttpClientFuture, HttpClientLayer,
    HttpClientService,
};
pub use config::{ConfigFileError, destination_variable, supported_variables};
pub use context::{
    context_span, current_trace_id, extract_context, inject_context, on_behalf_of, rename_span,
    set_attribute, set_server_attribute, without_spans,
};
pub use db::{ConnectionCounts, ConnectionTimes, Database, DbError, Returned, Statement, statement_retried};
pub use environment::{context_variables, environment_context};
pub use escape::{escaped, escaped_json};
pub use failure::{Failure, ServerError, record_error};
pub use gauges::{observe_counter, observe_gauge, observe_up_down_counter};
pub use init::{InitError, Telemetry, exit};
pub use instruments::{
    FloatCounter, Static, UpDown, ValueGauge, ValueHistogram, float_counter, gauge, up_down_counter,
    value_histogram,
};
#[doc(hidden)]
pub use logs::function;
pub use logs::panic_message;
pub use mask::mask;
pub use metrics::{Counter, Histogram, counter, histogram, meter};
pub use opentelemetry;
pub use opentelemetry::trace::SpanKind;
pub use opentelemetry::{Context, KeyValue};
pub use otlp_recorder::{CustomExporter, ShutdownError, enter_component};
pub use output::{flush_output, print, print_error};
#[cfg(feature = "prometheus")]
pub use prometheus::PrometheusError;
pub use propagation::Propagation;
pub use redis::{Redis, RedisCommand, RedisServer};
pub use runtime::observe_runtime;
pub use service::{Export, LogFormat, LogOutput, Service};
pub use span::Span;
pub use task::{spawn, spawn_blocking};
#[doc(hidden)]
pub use tracing;

/// Compiles the program in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
