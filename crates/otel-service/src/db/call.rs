//! A call to a database or Redis server: its client span and its duration.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::OnceLock;

use opentelemetry::trace::{SpanKind, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use otlp_recorder::{Attributes, DurationHistogram, DurationSeries, PrewrittenAttributes, SpanStart, Table};

use super::Statement;
use crate::context;
use crate::exceptions;
use crate::failure::{self, Failure, record_failure};
use crate::metrics::{DATABASE_SECONDS, Instruments, SERIES_LIMIT};
use crate::recorder::OWN;
use crate::stopwatch::Stopwatch;

/// Maximum number of stored procedures whose attributes and series are cached.
const PROCEDURES: usize = 64;

/// A database or Redis server, with the cached data of its statements.
#[derive(Debug)]
pub(crate) struct Target {
    /// Attributes common to all statements: system, namespace, server, peer.
    fixed: Vec<KeyValue>,
    known: Table<Statement, KnownStatement>,
    /// Calls of stored procedures, by the name of the procedure.
    procedures: Table<String, KnownStatement>,
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
    /// Creates a target from its attributes, to which it adds those of its server.
    pub(crate) fn new(mut fixed: Vec<KeyValue>, server: Option<(String, u16)>) -> Self {
        if let Some((address, port)) = server {
            let port = i64::from(port);
            // A name can stand for several addresses, and the clients do not tell which one they use.
            if let Ok(peer) = address.parse::<IpAddr>() {
                fixed.push(KeyValue::new("network.peer.address", peer.to_string()));
                fixed.push(KeyValue::new("network.peer.port", port));
            }
            fixed.push(KeyValue::new("server.address", address));
            fixed.push(KeyValue::new("server.port", port));
        }
        Self {
            fixed,
            known: Table::new(SERIES_LIMIT),
            procedures: Table::new(PROCEDURES),
        }
    }

    /// Returns the cache of a call, or `None` if the table is full.
    fn known(&self, call: &Operation) -> Option<&KnownStatement> {
        match &call.procedure {
            Some(procedure) => self.procedures.get(procedure, KnownStatement::default),
            None => self.known.get(&call.statement, KnownStatement::default),
        }
    }

    fn describe(
        &self,
        Operation {
            statement, procedure, ..
        }: &Operation,
        into: &mut Attributes,
    ) {
        self.fixed.iter().for_each(|attribute| into.set(attribute));
        into.text("db.operation.name", statement.operation);
        if !statement.collection.is_empty() {
            into.text("db.collection.name", statement.collection);
        }
        if let Some(procedure) = procedure {
            into.text("db.stored_procedure.name", procedure);
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

/// What a call does.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) statement: Statement,
    /// Name of the stored procedure or script that the call runs.
    pub(crate) procedure: Option<String>,
    /// Number of operations in the call.
    pub(crate) size: usize,
}

impl From<Statement> for Operation {
    fn from(statement: Statement) -> Self {
        Self {
            statement,
            procedure: None,
            size: 1,
        }
    }
}

/// A call in progress. Dropping it before [`Call::finish`] records a cancellation.
#[derive(Debug)]
pub(crate) struct Call<T: Deref<Target = Target>> {
    target: T,
    operation: Operation,
    pub(crate) cx: Context,
    stopwatch: Stopwatch,
    /// `None` until the result is known.
    status: Option<CallStatus>,
}

/// Attributes of the duration that depend on the result; the default is success.
#[derive(Debug, Default, Eq, PartialEq)]
struct CallStatus {
    error_type: Option<Cow<'static, str>>,
    status_code: Option<String>,
}

impl<T: Deref<Target = Target>> Call<T> {
    /// Starts the span. In a context of [`crate::on_behalf_of`], the span has links to the spans of all its
    /// contexts.
    pub(crate) fn start(target: T, operation: impl Into<Operation>) -> Self {
        let operation = operation.into();
        let stopwatch = Stopwatch::start();
        let cx = Context::map_current(|current| {
            let start = SpanStart::new(operation.statement.summary, SpanKind::Client)
                .links(context::links_of_calls(current))
                .time(stopwatch.time());
            let describe = |into: &mut Attributes| target.describe(&operation, into);
            OWN.start(current, start, |into| {
                match target.known(&operation) {
                    Some(known) => known.attributes.write(into, describe),
                    None => describe(into),
                }
                // A single operation is no batch.
                if operation.size > 1 {
                    into.number(
                        "db.operation.batch.size",
                        i64::try_from(operation.size).unwrap_or(i64::MAX),
                    );
                }
            })
        });
        Self {
            target,
            operation,
            cx,
            stopwatch,
            status: None,
        }
    }

    /// Records the result and ends the span. `code` is the error code of the database.
    pub(crate) fn finish(mut self, failure: Option<&dyn Failure>, code: Option<String>) {
        if let Some(code) = &code {
            let code = KeyValue::new("db.response.status_code", code.clone());
            self.cx.span().set_attribute(code);
        }
        self.status = Some(CallStatus {
            error_type: failure.and_then(|failure| {
                record_failure(&self.cx, exceptions::Operation::DbClientOperation, failure)
            }),
            status_code: code,
        });
    }

    fn record(&self, duration: &DurationHistogram, status: CallStatus, seconds: f64) {
        let span = self.cx.span();
        if status == CallStatus::default()
            && let Some(known) = self.target.known(&self.operation)
        {
            let bind = || duration.series(&self.attributes(status));
            let series = known.succeeded.get_or_init(bind);
            series.record(seconds, span.span_context());
        } else {
            duration.record(seconds, &self.attributes(status), span.span_context());
        }
    }

    /// Returns the attributes of the duration.
    fn attributes(&self, status: CallStatus) -> Vec<KeyValue> {
        let Operation {
            statement, procedure, ..
        } = &self.operation;
        let mut attributes = Vec::with_capacity(self.target.fixed.len() + 5);
        attributes.extend_from_slice(&self.target.fixed);
        attributes.push(KeyValue::new("db.operation.name", statement.operation));
        attributes.push(KeyValue::new("db.query.summary", statement.summary));
        if !statement.collection.is_empty() {
            attributes.push(KeyValue::new("db.collection.name", statement.collection));
        }
        let procedure = procedure.clone();
        attributes.extend(procedure.map(|name| KeyValue::new("db.stored_procedure.name", name)));
        let error_type = status.error_type;
        attributes.extend(error_type.map(|error_type| KeyValue::new("error.type", error_type)));
        let code = status.status_code;
        attributes.extend(code.map(|code| KeyValue::new("db.response.status_code", code)));
        attributes
    }
}

impl<T: Deref<Target = Target>> Drop for Call<T> {
    fn drop(&mut self) {
        let status = self.status.take().unwrap_or_else(|| CallStatus {
            error_type: Some(failure::record_unfinished(&self.cx)),
            status_code: None,
        });
        let elapsed = self.stopwatch.elapsed();
        if let Some(duration) = duration() {
            self.record(duration, status, elapsed.as_secs_f64());
        }
        self.stopwatch.end(&self.cx, elapsed);
    }
}

/// Returns `db.client.operation.duration`.
pub(crate) fn duration() -> Option<&'static DurationHistogram> {
    static DURATION: Instruments<DurationHistogram> = Instruments::new();
    DURATION.get(&OWN, |factory| {
        factory.durations(
            "db.client.operation.duration",
            "Duration of database client operations.",
            &DATABASE_SECONDS,
        )
    })
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
