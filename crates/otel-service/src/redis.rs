//! Client spans and durations of Redis commands, following the stable database conventions (OpenTelemetry
//! semantic conventions 1.44). Arguments never reach a span.

use std::sync::Arc;

use opentelemetry::trace::{SpanKind, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use otlp_recorder::{Attributes, DurationHistogram, DurationSeries, PrewrittenAttributes, SpanStart, Table};

use crate::context;
use crate::db::{self, CallStatus};
use crate::failure::{Failure, record_failure};
use crate::metrics::SERIES_LIMIT;
use crate::recorder::OWN;
use crate::stopwatch::Stopwatch;

/// Address of a Redis server, for the attributes of its commands.
#[derive(Clone, Debug)]
pub struct RedisServer {
    /// `server.address`.
    pub address: String,
    /// `server.port`.
    pub port: u16,
    /// `db.namespace`, the number of the database.
    pub database: i64,
}

/// Instruments for the commands of a Redis client; cheap to clone.
///
/// ```
/// use otel_service::Redis;
///
/// let redis = Redis::new();
/// let command = redis.command("LPUSH", "LPUSH ? ?");
/// // ... send the command ...
/// command.finish(Ok(()));
/// ```
#[derive(Clone, Debug)]
pub struct Redis(Arc<Target>);

#[derive(Debug)]
struct Target {
    /// Attributes common to all commands: system, namespace, server.
    fixed: Vec<KeyValue>,
    /// Attributes of spans, by operation and text.
    prewritten: Table<(&'static str, &'static str), PrewrittenAttributes>,
    /// Durations of successful commands, by operation.
    succeeded: Table<&'static str, DurationSeries>,
}

impl Default for Redis {
    fn default() -> Self {
        Self::new()
    }
}

impl Redis {
    /// Creates the instruments of a client whose server address is unknown.
    #[must_use]
    pub fn new() -> Self {
        Self::with_attributes(vec![KeyValue::new("db.system.name", "redis")])
    }

    /// Creates the instruments of a client of `server`.
    #[must_use]
    pub fn of_server(server: RedisServer) -> Self {
        Self::with_attributes(vec![
            KeyValue::new("db.system.name", "redis"),
            KeyValue::new("db.namespace", server.database.to_string()),
            KeyValue::new("server.address", server.address),
            KeyValue::new("server.port", i64::from(server.port)),
        ])
    }

    fn with_attributes(fixed: Vec<KeyValue>) -> Self {
        Self(Arc::new(Target {
            fixed,
            prewritten: Table::new(SERIES_LIMIT),
            succeeded: Table::new(SERIES_LIMIT),
        }))
    }

    /// Starts a client span for a command or pipeline, and measures its `db.client.operation.duration`.
    ///
    /// `text` is the command with `?` in place of each argument, such as `BRPOP ? ?`. In a context returned by
    /// [`crate::on_behalf_of`], the span has links to the spans of all its contexts.
    pub fn command(&self, operation: &'static str, text: &'static str) -> RedisCommand {
        let stopwatch = Stopwatch::start();
        let describe = |into: &mut Attributes| {
            self.0.fixed.iter().for_each(|attribute| into.set(attribute));
            into.literal("db.operation.name", operation);
            into.literal("db.query.summary", operation);
            into.literal("db.query.text", text);
        };
        let start = |current: &Context| {
            let start = SpanStart::new(operation, SpanKind::Client)
                .links(context::links_of_commands(current))
                .time(stopwatch.time());
            OWN.start(current, start, |into| {
                let prewritten = self
                    .0
                    .prewritten
                    .get(&(operation, text), PrewrittenAttributes::new);
                match prewritten {
                    Some(prewritten) => prewritten.write(into, describe),
                    None => describe(into),
                }
            })
        };
        RedisCommand {
            cx: Context::map_current(start),
            target: Arc::clone(&self.0),
            operation,
            stopwatch,
            status: None,
        }
    }
}

/// A Redis command in progress.
///
/// Dropping it without [`RedisCommand::finish`] records a cancellation.
#[derive(Debug)]
pub struct RedisCommand {
    cx: Context,
    target: Arc<Target>,
    operation: &'static str,
    stopwatch: Stopwatch,
    /// `None` until the server has replied.
    status: Option<CallStatus>,
}

impl RedisCommand {
    /// Ends the span with the reply of the server.
    pub fn finish(mut self, result: Result<(), &dyn Failure>) {
        let error_type = result.err().and_then(|failure| record_failure(&self.cx, failure));
        self.status.get_or_insert_default().error_type = error_type;
    }

    /// Ends the span with an error reply, and records its code, such as `WRONGTYPE`, as
    /// `db.response.status_code`.
    pub fn refused(mut self, code: String, failure: &dyn Failure) {
        self.cx
            .span()
            .set_attribute(KeyValue::new("db.response.status_code", code.clone()));
        self.status.get_or_insert_default().status_code = Some(code);
        self.finish(Err(failure));
    }

    fn measure(&self, duration: &DurationHistogram, status: CallStatus, seconds: f64) {
        let span = self.cx.span();
        let attributes = |status: CallStatus| status.attributes(&self.target.fixed, self.operation, "");
        if status == CallStatus::default() {
            let bind = || duration.series(&attributes(CallStatus::default()));
            if let Some(series) = self.target.succeeded.get(&self.operation, bind) {
                series.record(seconds, span.span_context());
                return;
            }
        }
        duration.record(seconds, &attributes(status), span.span_context());
    }
}

impl Drop for RedisCommand {
    fn drop(&mut self) {
        let status = self
            .status
            .take()
            .unwrap_or_else(|| CallStatus::unfinished(&self.cx));
        let elapsed = self.stopwatch.elapsed();
        if let Some(duration) = db::duration() {
            self.measure(duration, status, elapsed.as_secs_f64());
        }
        self.stopwatch.end(&self.cx, elapsed);
    }
}
