//! How a task is written in an outbox row: its name, and its arguments and headers as JSON.

use serde_json::Value;

/// The Celery task that tells of a change to an article.
pub(super) const TASK_NAME: &str = "app.jobs.tasks.send_article_notification";

/// Propagation headers as an array of pairs, which keeps their order.
pub(super) fn trace_column(trace: &[(String, String)]) -> Value {
    trace
        .iter()
        .map(|(name, value)| Value::from(vec![name.as_str(), value.as_str()]))
        .collect()
}

/// The reverse of [`trace_column`]. Anything else reads as no headers: a task without its trace is
/// worth more than none.
pub(super) fn trace(column: Value) -> Vec<(String, String)> {
    serde_json::from_value(column).unwrap_or_default()
}

/// The positional arguments.
pub(super) fn args(column: Value) -> Vec<Value> {
    match column {
        Value::Array(args) => args,
        single => vec![single],
    }
}
