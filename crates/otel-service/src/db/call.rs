//! A call to a database or Redis server: its client span and its duration.

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::OnceLock;

use opentelemetry::trace::{SpanKind, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use otlp_recorder::{Attributes, DurationHistogram, DurationSeries, PrewrittenAttributes, SpanStart, Table};

use super::Statement;
use crate::context;
use crate::failure::{self, Failure, record_failure};
use crate::metrics::{DATABASE_SECONDS, Instruments, SERIES_LIMIT};
use crate::recorder::OWN;
use crate::stopwatch::Stopwatch;

/// A database or Redis server, with the cached data of its statements.
#[derive(Debug)]
pub(crate) struct Target {
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
    pub(crate) fn new(fixed: Vec<KeyValue>) -> Self {
        Self {
            fixed,
            known: Table::new(SERIES_LIMIT),
        }
    }

    /// Returns the cache of `statement`, or `None` if the table is full.
    fn known(&self, statement: &Statement) -> Option<&KnownStatement> {
        self.known.get(statement, KnownStatement::default)
    }

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

/// A call in progress. Dropping it before [`Call::finish`] records a cancellation.
#[derive(Debug)]
pub(crate) struct Call<T: Deref<Target = Target>> {
    target: T,
    statement: Statement,
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
    pub(crate) fn start(target: T, statement: Statement) -> Self {
        let stopwatch = Stopwatch::start();
        let cx = Context::map_current(|current| {
            let start = SpanStart::new(statement.summary, SpanKind::Client)
                .links(context::links_of_calls(current))
                .time(stopwatch.time());
            let describe = |into: &mut Attributes| target.describe(&statement, into);
            OWN.start(current, start, |into| match target.known(&statement) {
                Some(known) => known.attributes.write(into, describe),
                None => describe(into),
            })
        });
        Self {
            target,
            statement,
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
            error_type: failure.and_then(|failure| record_failure(&self.cx, failure)),
            status_code: code,
        });
    }

    fn record(&self, duration: &DurationHistogram, status: CallStatus, seconds: f64) {
        let span = self.cx.span();
        if status == CallStatus::default()
            && let Some(known) = self.target.known(&self.statement)
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
        let mut attributes = Vec::with_capacity(self.target.fixed.len() + 4);
        attributes.extend_from_slice(&self.target.fixed);
        attributes.push(KeyValue::new("db.operation.name", self.statement.operation));
        if !self.statement.collection.is_empty() {
            attributes.push(KeyValue::new("db.collection.name", self.statement.collection));
        }
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
