//! Client spans and durations of database statements, and the state of connection pools, by the stable database
//! conventions (OpenTelemetry semantic conventions 1.4x). Statements are static text with placeholders: values never
//! reach a span.

mod connections;

use std::borrow::Cow;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, OnceLock};

use opentelemetry::trace::{SpanKind, TraceContextExt};
use opentelemetry::{Context, KeyValue, StringValue};

use crate::context;
use crate::export::Attributes;
use crate::failure::{self, Failure, record_failure};
use crate::metrics::{self, DATABASE_SECONDS, Durations, Instruments, SERIES_LIMIT, Series, Table};
use crate::names::event;
use crate::recording::{Beginning, KnownAttributes};
use crate::stopwatch::Stopwatch;

pub use connections::ConnectionTimes;

static DURATION: Instruments<Durations> = Instruments::new();

/// One statement of the program, written once as a constant.
#[derive(Clone, Copy, Debug)]
pub struct Statement {
    /// `db.operation.name`, as `SELECT`.
    pub operation: &'static str,
    /// `db.collection.name`, the main table.
    pub collection: &'static str,
    /// `db.query.summary` and the span's name, as `SELECT articles`.
    pub summary: &'static str,
    /// `db.query.text`, with placeholders; told on one line.
    pub text: &'static str,
}

impl Statement {
    /// A statement; see the fields.
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

impl Statement {
    fn place(&self) -> Place {
        let texts = [self.operation, self.collection, self.summary, self.text];
        texts.map(|text| (text.as_ptr().addr(), text.len()))
    }
}

/// An error that a database may have given.
pub trait DbError {
    /// The database's own code, for SQL the SQLSTATE.
    fn status_code(&self) -> Option<String>;
}

/// What a statement gave back.
pub trait Returned {
    /// `db.response.returned_rows`; `None` where rows make no sense.
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

/// The connections of a pool at one moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ConnectionCounts {
    /// Open and free.
    pub idle: u64,
    /// Open and taken.
    pub used: u64,
    /// The most there may be.
    pub max: u64,
    /// Callers that wait for one.
    pub pending: u64,
}

/// A database that statements are sent to; cheap to clone.
#[derive(Clone, Debug)]
pub struct Database(Arc<Target>);

#[derive(Debug)]
struct Target {
    /// The attributes that never change: system, namespace, server.
    fixed: Vec<KeyValue>,
    /// By where the statements stand.
    known: Table<Place, KnownStatement>,
}

/// What is found once for each statement. Each part is there once it was needed: a series without measurements would be
/// exported too.
#[derive(Debug, Default)]
struct KnownStatement {
    attributes: KnownAttributes,
    /// The durations of those that went well.
    succeeded: OnceLock<Series>,
}

/// Where the texts of a statement stand in the program, and how long they are: it is not worth comparing the texts.
type Place = [(usize, usize); 4];

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

/// `text` without its line breaks and what they are indented with, which are the program's layout.
fn on_one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}

impl Database {
    /// `system` is a `db.system.name` (`postgresql`, `sqlite`), `namespace` the database's name, `server` its address
    /// and port where it has one.
    pub fn new(system: &'static str, namespace: String, server: Option<(String, u16)>) -> Self {
        let mut fixed = vec![
            KeyValue::new("db.system.name", system),
            KeyValue::new("db.namespace", kept(namespace)),
        ];
        if let Some((address, port)) = server {
            fixed.push(KeyValue::new("server.address", kept(address)));
            fixed.push(KeyValue::new("server.port", i64::from(port)));
        }
        Self(Arc::new(Target {
            fixed,
            known: Table::new(SERIES_LIMIT),
        }))
    }

    /// Runs `work`, which is `statement` being carried out, in a client span named after its summary, and records
    /// `db.client.operation.duration`. A statement that is sent again belongs to one call, and so to one span.
    ///
    /// # Errors
    /// Those of `work`; one that is a [`Failure`] marks the span.
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

    /// [`Database::observe`] for a database that blocks.
    ///
    /// # Errors
    /// Those of `work`; one that is a [`Failure`] marks the span.
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

    /// Reports the pool's connections whenever metrics are collected: `read` runs on the exporter's thread, must be
    /// quick and must not block. Call it after [`crate::init`].
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
            .with_description("Connections that are in the state given.")
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
            .with_description("The most open connections allowed.")
            .with_callback(move |observer| observer.observe(signed(counts().max), &attributes))
            .build();
        let attributes = [named];
        meter
            .i64_observable_up_down_counter("db.client.connection.pending_requests")
            .with_unit("{request}")
            .with_description("Callers that wait for a connection.")
            .with_callback(move |observer| observer.observe(signed(read().pending), &attributes))
            .build();
    }
}

/// Says on the span in force, which is a statement's, that the statement is sent again, and how the last attempt ended.
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

/// A statement under way. Dropped without an answer it counts as cancelled.
struct Call<'a> {
    database: &'a Database,
    statement: &'a Statement,
    /// `None` when there are too many of them.
    known: Option<&'a KnownStatement>,
    cx: Context,
    stopwatch: Stopwatch,
    ended: Option<Ended>,
}

/// What the duration says of the end.
#[derive(Default, Eq, PartialEq)]
struct Ended {
    error_type: Option<Cow<'static, str>>,
    status_code: Option<String>,
}

impl<'a> Call<'a> {
    fn start(database: &'a Database, statement: &'a Statement) -> Self {
        let stopwatch = Stopwatch::start();
        let beginning = Beginning {
            since: stopwatch.time(),
            ..Beginning::new(statement.summary, SpanKind::Client)
        };
        let known = database.0.known.get(&statement.place(), KnownStatement::default);
        let describe = |into: &mut Attributes| database.0.describe(statement, into);
        let describe = |into: &mut Attributes| match known {
            Some(known) => known.attributes.begin(into, describe),
            None => describe(into),
        };
        Self {
            database,
            statement,
            known,
            cx: Context::map_current(|current| context::start(current, beginning, describe)),
            stopwatch,
            ended: None,
        }
    }

    fn answered<T: Returned, E: Failure + DbError>(mut self, result: &Result<T, E>) {
        let span = self.cx.span();
        let mut ended = Ended::default();
        match result {
            Ok(returned) => {
                if let Some(rows) = returned.returned_rows() {
                    span.set_attribute(KeyValue::new("db.response.returned_rows", rows));
                }
            }
            Err(error) => {
                ended.status_code = error.status_code();
                if let Some(code) = &ended.status_code {
                    span.set_attribute(KeyValue::new("db.response.status_code", code.clone()));
                }
                ended.error_type = record_failure(&self.cx, error);
            }
        }
        self.ended = Some(ended);
    }
}

impl Call<'_> {
    fn record(&self, ended: Ended, seconds: f64) {
        let Some(duration) = duration() else { return };
        let span = self.cx.span();
        if let Some(known) = self.known
            && ended == Ended::default()
        {
            let bind = || duration.series(&self.attributes(Ended::default()));
            let series = known.succeeded.get_or_init(bind);
            series.record(seconds, span.span_context());
            return;
        }
        duration.record(seconds, &self.attributes(ended), span.span_context());
    }

    fn attributes(&self, ended: Ended) -> Vec<KeyValue> {
        let mut attributes = Vec::with_capacity(self.database.0.fixed.len() + 4);
        attributes.extend_from_slice(&self.database.0.fixed);
        attributes.push(KeyValue::new("db.operation.name", self.statement.operation));
        if !self.statement.collection.is_empty() {
            attributes.push(KeyValue::new("db.collection.name", self.statement.collection));
        }
        if let Some(error_type) = ended.error_type {
            attributes.push(KeyValue::new("error.type", error_type));
        }
        if let Some(code) = ended.status_code {
            attributes.push(KeyValue::new("db.response.status_code", code));
        }
        attributes
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let ended = self.ended.take().unwrap_or_else(|| Ended {
            error_type: Some(failure::record_unfinished(&self.cx)),
            status_code: None,
        });
        let elapsed = self.stopwatch.elapsed();
        self.record(ended, elapsed.as_secs_f64());
        self.stopwatch.end(&self.cx, elapsed);
    }
}

/// `db.client.operation.duration`, shared by SQL statements and Redis commands.
pub(crate) fn duration() -> Option<&'static Durations> {
    DURATION.get(|meter| {
        Durations::new(
            meter,
            "db.client.operation.duration",
            "Duration of database client operations.",
            &DATABASE_SECONDS,
        )
    })
}

/// A value that is kept for as long as the process lives, so that its copies cost nothing, on whichever thread they are
/// made and dropped. For what a program sets up once.
pub(crate) fn kept(text: String) -> StringValue {
    StringValue::from(&*text.leak())
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_told_on_one_line() {
        for (text, told) in [
            ("SELECT 1", "SELECT 1"),
            (
                "\n    SELECT '  a'\n        FROM b\n\n    WHERE c = $1\n",
                "SELECT '  a' FROM b WHERE c = $1",
            ),
            ("", ""),
        ] {
            assert_eq!(on_one_line(text), told);
        }
    }
}
