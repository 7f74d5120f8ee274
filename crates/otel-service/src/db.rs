//! Client spans and durations of database statements, and metrics of connection pools, following the stable
//! database conventions (OpenTelemetry semantic conventions 1.44). Statements are static text with
//! placeholders, so values never reach a span.

mod connections;

use std::borrow::Cow;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, OnceLock};

use opentelemetry::trace::{SpanKind, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use otlp_recorder::{Attributes, DurationHistogram, DurationSeries, PrewrittenAttributes, SpanStart, Table};

use crate::context;
use crate::failure::{self, Failure, record_failure};
use crate::metrics::{self, DATABASE_SECONDS, Instruments, SERIES_LIMIT};
use crate::names::event;
use crate::recorder::OWN;
use crate::stopwatch::Stopwatch;

pub use connections::ConnectionTimes;

static DURATION: Instruments<DurationHistogram> = Instruments::new();

/// A statement, defined as a constant of the program.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Statement {
    /// `db.operation.name`, such as `SELECT`.
    pub operation: &'static str,
    /// `db.collection.name`, the main table.
    pub collection: &'static str,
    /// `db.query.summary` and the name of the span, such as `SELECT articles`.
    pub summary: &'static str,
    /// `db.query.text`, with placeholders; exported without line breaks.
    pub text: &'static str,
}

impl Statement {
    /// Creates a statement from its fields.
    pub const fn new(
        operation: &'static str,
        collection: &'static str,
        summary: &'static str,
        text: &'static str,
    ) -> Self {
        Self {
            operation,
            collection,
            summary,
            text,
        }
    }
}

/// An error of a database client.
pub trait DbError {
    /// Returns the error code of the database (for SQL, the SQLSTATE), or `None` if the error did not come
    /// from the database.
    fn status_code(&self) -> Option<String>;
}

/// The result of a statement.
pub trait Returned {
    /// Returns the value of `db.response.returned_rows`, or `None` if the statement returns no rows.
    fn returned_rows(&self) -> Option<i64>;
}

impl<T> Returned for Vec<T> {
    fn returned_rows(&self) -> Option<i64> {
        i64::try_from(self.len()).ok()
    }
}

impl<T> Returned for Option<T> {
    fn returned_rows(&self) -> Option<i64> {
        Some(i64::from(self.is_some()))
    }
}

macro_rules! returns_no_rows {
    ($($type:ty),*) => {$(
        impl Returned for $type {
            fn returned_rows(&self) -> Option<i64> {
                None
            }
        }
    )*};
}

returns_no_rows!((), bool, u64, i64, usize);

/// A snapshot of a connection pool.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ConnectionCounts {
    /// Idle connections.
    pub idle: u64,
    /// Connections in use.
    pub used: u64,
    /// Maximum number of connections.
    pub max: u64,
    /// Callers waiting for a connection.
    pub pending: u64,
}

/// A database whose statements are observed; cheap to clone.
#[derive(Clone, Debug)]
pub struct Database(Arc<Target>);

#[derive(Debug)]
struct Target {
    /// Attributes common to all statements: system, namespace, server.
    fixed: Vec<KeyValue>,
    known: Table<Statement, KnownStatement>,
}

/// Attributes and series cached for one statement. Each is created on first use, because a series without
/// measurements would also be exported.
#[derive(Debug, Default)]
struct KnownStatement {
    attributes: PrewrittenAttributes,
    /// Durations of successful calls.
    succeeded: OnceLock<DurationSeries>,
}

impl Target {
    fn describe(&self, statement: &Statement, into: &mut Attributes) {
        self.fixed.iter().for_each(|attribute| into.set(attribute));
        into.text("db.operation.name", statement.operation);
        if !statement.collection.is_empty() {
            into.text("db.collection.name", statement.collection);
        }
        into.text("db.query.summary", statement.summary);
        into.text("db.query.text", &on_one_line(statement.text));
    }
}

/// Joins the lines of `text` with single spaces; line breaks and indentation are source layout.
fn on_one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}

impl Database {
    /// Creates a database to observe.
    ///
    /// `system` is its `db.system.name` (`postgresql`, `sqlite`), `namespace` the name of the database,
    /// `server` the address and port of the server, if any.
    pub fn new(system: &'static str, namespace: String, server: Option<(String, u16)>) -> Self {
        let mut fixed = vec![
            KeyValue::new("db.system.name", system),
            KeyValue::new("db.namespace", namespace),
        ];
        if let Some((address, port)) = server {
            fixed.push(KeyValue::new("server.address", address));
            fixed.push(KeyValue::new("server.port", i64::from(port)));
        }
        Self(Arc::new(Target {
            fixed,
            known: Table::new(SERIES_LIMIT),
        }))
    }

    /// Runs `work`, which executes `statement`, in a client span named after the summary of the statement,
    /// and records `db.client.operation.duration`.
    ///
    /// One call covers all attempts of a statement that is retried.
    ///
    /// # Errors
    ///
    /// Returns the errors of `work`. A [`Failure`] sets the error status of the span.
    pub async fn observe<T: Returned, E: Failure + DbError>(
        &self,
        statement: &Statement,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let call = Call::start(self, statement);
        let result = context::within(&call.cx, pin!(work)).await;
        call.answered(&result);
        result
    }

    /// Like [`Database::observe`], for a blocking client.
    ///
    /// # Errors
    ///
    /// Returns the errors of `work`. A [`Failure`] sets the error status of the span.
    pub fn observe_blocking<T: Returned, E: Failure + DbError>(
        &self,
        statement: &Statement,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let call = Call::start(self, statement);
        let attached = call.cx.clone().attach();
        let result = work();
        drop(attached);
        call.answered(&result);
        result
    }

    /// Registers gauges for the connections of a pool. Call it after [`crate::init`].
    ///
    /// `read` is called whenever metrics are collected, so it must be quick and must not block.
    pub fn observe_connections(
        &self,
        pool: &'static str,
        read: impl Fn() -> ConnectionCounts + Send + Sync + 'static,
    ) {
        let meter = metrics::meter();
        let read = Arc::new(read);
        let named = KeyValue::new("db.client.connection.pool.name", pool);
        let state = |name: &'static str| [named.clone(), KeyValue::new("db.client.connection.state", name)];
        let (idle, used) = (state("idle"), state("used"));
        let counts = Arc::clone(&read);
        meter
            .i64_observable_up_down_counter("db.client.connection.count")
            .with_unit("{connection}")
            .with_description("Connections that are currently in the state given by the `state` attribute.")
            .with_callback(move |observer| {
                let now = counts();
                observer.observe(signed(now.idle), &idle);
                observer.observe(signed(now.used), &used);
            })
            .build();
        let (counts, attributes) = (Arc::clone(&read), [named.clone()]);
        meter
            .i64_observable_up_down_counter("db.client.connection.max")
            .with_unit("{connection}")
            .with_description("Maximum number of open connections allowed.")
            .with_callback(move |observer| observer.observe(signed(counts().max), &attributes))
            .build();
        let attributes = [named];
        meter
            .i64_observable_up_down_counter("db.client.connection.pending_requests")
            .with_unit("{request}")
            .with_description("Current pending requests for an open connection.")
            .with_callback(move |observer| observer.observe(signed(read().pending), &attributes))
            .build();
    }
}

/// Adds an event to the current span, which must belong to a statement: the statement is retried after the
/// error `last`.
pub fn statement_sent_again<E: Failure + DbError>(last: &E) {
    Context::map_current(|cx| {
        let span = cx.span();
        if !span.is_recording() {
            return;
        }
        let error_type = last.error_type().map(|name| KeyValue::new("error.type", name));
        let code = last
            .status_code()
            .map(|code| KeyValue::new("db.response.status_code", code));
        let attributes = error_type.into_iter().chain(code).collect();
        span.add_event(event::DB_STATEMENT_RETRY, attributes);
    });
}

/// A statement in progress. Dropping it before its result is known counts as a cancellation.
struct Call<'a> {
    database: &'a Database,
    statement: &'a Statement,
    /// `None` if the table of known statements is full.
    known: Option<&'a KnownStatement>,
    cx: Context,
    stopwatch: Stopwatch,
    status: Option<CallStatus>,
}

/// Attributes of the duration that depend on the result; the default is success.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct CallStatus {
    pub(crate) error_type: Option<Cow<'static, str>>,
    pub(crate) status_code: Option<String>,
}

impl CallStatus {
    /// Records on the span of `cx` that a call was dropped before its result was known.
    pub(crate) fn unfinished(cx: &Context) -> Self {
        Self {
            error_type: Some(failure::record_unfinished(cx)),
            status_code: None,
        }
    }

    /// Returns the attributes of the duration of a call, beginning with `fixed`.
    pub(crate) fn attributes(
        self,
        fixed: &[KeyValue],
        operation: &'static str,
        collection: &'static str,
    ) -> Vec<KeyValue> {
        let mut attributes = Vec::with_capacity(fixed.len() + 4);
        attributes.extend_from_slice(fixed);
        attributes.push(KeyValue::new("db.operation.name", operation));
        if !collection.is_empty() {
            attributes.push(KeyValue::new("db.collection.name", collection));
        }
        if let Some(error_type) = self.error_type {
            attributes.push(KeyValue::new("error.type", error_type));
        }
        if let Some(code) = self.status_code {
            attributes.push(KeyValue::new("db.response.status_code", code));
        }
        attributes
    }
}

impl<'a> Call<'a> {
    fn start(database: &'a Database, statement: &'a Statement) -> Self {
        let stopwatch = Stopwatch::start();
        let start = SpanStart::new(statement.summary, SpanKind::Client).time(stopwatch.time());
        let known = database.0.known.get(statement, KnownStatement::default);
        let describe = |into: &mut Attributes| database.0.describe(statement, into);
        let describe = |into: &mut Attributes| match known {
            Some(known) => known.attributes.write(into, describe),
            None => describe(into),
        };
        Self {
            database,
            statement,
            known,
            cx: Context::map_current(|current| OWN.start(current, start, describe)),
            stopwatch,
            status: None,
        }
    }

    fn answered<T: Returned, E: Failure + DbError>(mut self, result: &Result<T, E>) {
        let span = self.cx.span();
        let mut status = CallStatus::default();
        match result {
            Ok(returned) => {
                if let Some(rows) = returned.returned_rows() {
                    span.set_attribute(KeyValue::new("db.response.returned_rows", rows));
                }
            }
            Err(error) => {
                status.status_code = error.status_code();
                if let Some(code) = &status.status_code {
                    span.set_attribute(KeyValue::new("db.response.status_code", code.clone()));
                }
                status.error_type = record_failure(&self.cx, error);
            }
        }
        self.status = Some(status);
    }
}

impl Call<'_> {
    fn record(&self, status: CallStatus, seconds: f64) {
        let Some(duration) = duration() else { return };
        let span = self.cx.span();
        let Statement {
            operation,
            collection,
            ..
        } = *self.statement;
        let attributes =
            |status: CallStatus| status.attributes(&self.database.0.fixed, operation, collection);
        match self.known {
            Some(known) if status == CallStatus::default() => {
                let bind = || duration.series(&attributes(status));
                known
                    .succeeded
                    .get_or_init(bind)
                    .record(seconds, span.span_context());
            }
            _ => duration.record(seconds, &attributes(status), span.span_context()),
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let status = self
            .status
            .take()
            .unwrap_or_else(|| CallStatus::unfinished(&self.cx));
        let elapsed = self.stopwatch.elapsed();
        self.record(status, elapsed.as_secs_f64());
        self.stopwatch.end(&self.cx, elapsed);
    }
}

/// Returns `db.client.operation.duration`, which SQL statements and Redis commands share.
pub(crate) fn duration() -> Option<&'static DurationHistogram> {
    DURATION.get(&OWN, |factory| {
        factory.durations(
            "db.client.operation.duration",
            "Duration of database client operations.",
            &DATABASE_SECONDS,
        )
    })
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_exported_on_one_line() {
        for (text, expected) in [
            ("SELECT 1", "SELECT 1"),
            (
                "\n    SELECT '  a'\n        FROM b\n\n    WHERE c = $1\n",
                "SELECT '  a' FROM b WHERE c = $1",
            ),
            ("", ""),
        ] {
            assert_eq!(on_one_line(text), expected);
        }
    }
}
