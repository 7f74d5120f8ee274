//! What to send: a task's name, its arguments and the options of its delivery. Becomes a message when a
//! [`Client`](crate::Client) sends it, and a dictionary as Celery's when it is part of something larger.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    canvas::{Canvas, Kind, Node, SendContext},
    message::{MAX_RETRIES, Message, seconds},
    task_id::TaskId,
    time,
};

/// A task call that is not sent yet.
///
/// ```
/// use std::time::Duration;
/// let signature = celeriac::Signature::new("app.jobs.tasks.send_article_notification")
///     .arg(1)
///     .arg("created")
///     .countdown(Duration::from_secs(5))
///     .priority(3)
///     .on_error(celeriac::Signature::new("app.jobs.tasks.report"));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Signature(Node);

impl Signature {
    /// A call of the task registered under this name, on the queue `celery`.
    pub fn new(task: impl Into<String>) -> Self {
        Self(Node::new(task, Kind::Task))
    }

    /// The task's id; a random one otherwise.
    #[must_use]
    pub fn id(self, id: impl Into<TaskId>) -> Self {
        self.option("task_id", id.into())
    }

    /// Adds a positional argument.
    #[must_use]
    pub fn arg(mut self, value: impl Into<Value>) -> Self {
        self.0.args.push(value.into());
        self
    }

    /// Adds positional arguments.
    #[must_use]
    pub fn args(mut self, values: Vec<Value>) -> Self {
        self.0.args.extend(values);
        self
    }

    /// Adds a keyword argument.
    #[must_use]
    pub fn kwarg(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.0.kwargs.insert(name.into(), value.into());
        self
    }

    /// The queue to send to.
    #[must_use]
    pub fn queue(self, queue: impl Into<String>) -> Self {
        self.option("queue", queue.into())
    }

    /// 0 (first, the default) to 9 (last); larger numbers count as 9.
    #[must_use]
    pub fn priority(self, priority: u8) -> Self {
        self.option("priority", priority.min(9))
    }

    /// To be run no earlier than this long after it was sent.
    #[must_use]
    pub fn countdown(mut self, countdown: Duration) -> Self {
        self.0.options.shift_remove("eta");
        self.option("countdown", seconds(countdown))
    }

    /// To be run no earlier than this time.
    #[must_use]
    pub fn eta(mut self, eta: Timestamp) -> Self {
        self.0.options.shift_remove("countdown");
        self.option("eta", time::format(eta))
    }

    /// Not to be run after this time: it becomes `REVOKED`.
    #[must_use]
    pub fn expires(self, expires: Timestamp) -> Self {
        self.option("expires", time::format(expires))
    }

    /// Ended after this long.
    #[must_use]
    pub fn time_limit(self, limit: Duration) -> Self {
        self.option("time_limit", seconds(limit))
    }

    /// Told to end after this long.
    #[must_use]
    pub fn soft_time_limit(self, limit: Duration) -> Self {
        self.option("soft_time_limit", seconds(limit))
    }

    /// Whether the result is thrown away.
    #[must_use]
    pub fn ignore_result(self, ignore: bool) -> Self {
        self.option("ignore_result", ignore)
    }

    /// How often it is tried again (`None`: for ever), whatever its worker has set. Only Celeriac workers know of it.
    #[must_use]
    pub fn max_retries(self, retries: impl Into<Option<u32>>) -> Self {
        self.option(MAX_RETRIES, retries.into().map_or(json!(-1), Value::from))
    }

    /// A further header, such as `traceparent`: an observer takes it as the parent of the send.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        let headers = self.0.options.entry("headers").or_insert_with(|| json!({}));
        if let Value::Object(headers) = headers {
            headers.insert(name.into(), value.into());
        }
        self
    }

    /// It takes no result of a task before it: its arguments are all it gets. Celery's `si`.
    #[must_use]
    pub fn immutable(mut self) -> Self {
        self.0.immutable = true;
        self
    }

    /// Run with the return value when this task has succeeded. Celery's `link`.
    #[must_use]
    pub fn on_success(mut self, callback: impl Into<Canvas>) -> Self {
        self.0.link("link", &[callback.into().0.encode()]);
        self
    }

    /// Run with the id of the task when it has failed for good. Celery's `link_error`.
    #[must_use]
    pub fn on_error(mut self, errback: impl Into<Canvas>) -> Self {
        self.0.link("link_error", &[errback.into().0.encode()]);
        self
    }

    /// This, and after it `next` with its return value. Celery's `|`.
    pub fn then(self, next: impl Into<Canvas>) -> Canvas {
        Canvas::from(self).then(next)
    }

    /// Returns the message that sends the task.
    pub(crate) fn into_message(self, context: &SendContext<'_>) -> Message {
        let node = self.0;
        context
            .message(node.task, node.args, node.kwargs, node.options)
            .expect("a signature's setters give every option its type")
    }

    fn option(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.set(name, value);
        self
    }
}

impl From<Signature> for Canvas {
    fn from(signature: Signature) -> Self {
        Self(signature.0)
    }
}
