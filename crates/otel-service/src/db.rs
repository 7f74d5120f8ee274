//! Client spans and durations of database statements, and metrics of connection pools, following the stable
//! database conventions (OpenTelemetry semantic conventions 1.44). Statements are static text with
//! placeholders, so values never reach a span.

mod call;
mod connections;

use std::future::Future;
use std::hash::{Hash, Hasher};
use std::pin::pin;
use std::sync::Arc;

use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, KeyValue};

use crate::context;
use crate::failure::Failure;
use crate::names::event;

pub(crate) use call::{Call, Operation, Target, duration};
pub use connections::{ConnectionCounts, ConnectionTimes};

/// A database statement, declared as a constant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
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

impl Hash for Statement {
    /// Hashes the summary only: few statements share a summary, and the text is long.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.summary.hash(state);
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

/// A database whose statements are observed; cheap to clone.
#[derive(Clone, Debug)]
pub struct Database(Arc<Target>);

impl Database {
    /// Creates a database to observe.
    ///
    /// `system` is its `db.system.name` (`postgresql`, `sqlite`), `namespace` the name of the database,
    /// `server` the address and port of the server, if any.
    pub fn new(system: &'static str, namespace: String, server: Option<(String, u16)>) -> Self {
        let fixed = vec![
            KeyValue::new("db.system.name", system),
            KeyValue::new("db.namespace", namespace),
        ];
        Self(Arc::new(Target::new(fixed, server)))
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
        let call = Call::start(&*self.0, *statement);
        let result = context::within(&call.cx, pin!(work)).await;
        returned(call, &result);
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
        let call = Call::start(&*self.0, *statement);
        let attached = call.cx.clone().attach();
        let result = work();
        drop(attached);
        returned(call, &result);
        result
    }
}

/// Records the result of a statement and ends its span.
fn returned<T: Returned, E: Failure + DbError>(call: Call<&Target>, result: &Result<T, E>) {
    match result {
        Ok(returned) => {
            if let Some(rows) = returned.returned_rows() {
                let rows = KeyValue::new("db.response.returned_rows", rows);
                call.cx.span().set_attribute(rows);
            }
            call.finish(None, None);
        }
        Err(error) => call.finish(Some(error), error.status_code()),
    }
}

/// Records a retry after the error `last` as an event of the current span, which must belong to a statement.
pub fn statement_retried<E: Failure + DbError>(last: &E) {
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
