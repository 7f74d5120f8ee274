//! Signatures: a task's name, its arguments and the options of its delivery. A signature becomes a message
//! when a [`Client`](crate::Client) sends it, and a Celery dictionary inside a canvas.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    broker::Exchange,
    canvas::{Canvas, Kind, MAP, Node, STARMAP, SendContext},
    compression::Compression,
    message::{COMPRESSION, MAX_RETRIES, Message, seconds},
    task_id::TaskId,
    time,
};

/// Call of a task, before it is sent.
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
#[must_use = "a signature runs only when a client sends it"]
pub struct Signature(Node);

impl Signature {
    /// Creates a call to the task registered under this name. Without a queue, it goes to the default queue of the
    /// process that sends it: a client, or a worker for the later tasks of a canvas.
    pub fn new(task: impl Into<String>) -> Self {
        Self(Node::new(task, Kind::Task))
    }

    /// Creates a call of `celery.map`, which calls `task` once for each item, one after another in one worker, and
    /// returns the list of the return values.
    ///
    /// ```
    /// let doubled = celeriac::Signature::map("math.double", [1, 2, 3]).queue("numbers");
    /// ```
    pub fn map<I: Into<Value>>(task: impl Into<String>, items: impl IntoIterator<Item = I>) -> Self {
        Self::over_items(MAP, task.into(), items)
    }

    /// Creates a call of `celery.starmap`, like [`map`](Self::map) for items that are lists of positional arguments.
    /// [`chunks`](crate::chunks) distributes many items.
    pub fn starmap<I: Into<Value>>(task: impl Into<String>, items: impl IntoIterator<Item = I>) -> Self {
        Self::over_items(STARMAP, task.into(), items)
    }

    fn over_items<I: Into<Value>>(by: &str, task: String, items: impl IntoIterator<Item = I>) -> Self {
        let task = Node::new(task, Kind::Task).encode();
        let items = items.into_iter().map(Into::into).collect();
        Self(Node::over_items(by, task, items))
    }

    /// Sets the id of the task, which is random by default.
    pub fn id(self, id: impl Into<TaskId>) -> Self {
        self.option("task_id", id.into())
    }

    /// Adds a positional argument.
    pub fn arg(mut self, value: impl Into<Value>) -> Self {
        self.0.args.push(value.into());
        self
    }

    /// Adds positional arguments.
    pub fn args(mut self, values: Vec<Value>) -> Self {
        self.0.args.extend(values);
        self
    }

    /// Adds a keyword argument.
    pub fn kwarg(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.0.kwargs.insert(name.into(), value.into());
        self
    }

    /// Sets the destination queue.
    pub fn queue(self, queue: impl Into<String>) -> Self {
        self.option("queue", queue.into())
    }

    /// Sends the task to the queues that are bound to a named exchange with this routing key, instead of one queue.
    /// Sending fails if no queue is bound, except with a fan-out exchange.
    ///
    /// Celery's workers bind their `Broadcast` queues with the routing key `celery` by default. A Python worker that
    /// sends a later task of a canvas treats every exchange as a direct exchange.
    pub fn exchange(self, exchange: Exchange, routing_key: impl Into<String>) -> Self {
        self.option("exchange", exchange.name())
            .option("exchange_type", exchange.kind())
            .option("routing_key", routing_key.into())
    }

    /// Sets the priority, from 0 (first, the default) to 9 (last); larger numbers count as 9.
    pub fn priority(self, priority: u8) -> Self {
        self.option("priority", priority.min(9))
    }

    /// Sets the minimum delay between sending and running the task.
    pub fn countdown(mut self, countdown: Duration) -> Self {
        self.0.options.shift_remove("eta");
        self.option("countdown", seconds(countdown))
    }

    /// Sets the earliest time to run the task.
    pub fn eta(mut self, eta: Timestamp) -> Self {
        self.0.options.shift_remove("countdown");
        self.option("eta", time::format(eta))
    }

    /// Sets the expiry time. If the task has not started by then, it does not run and becomes `REVOKED`.
    pub fn expires(self, expires: Timestamp) -> Self {
        self.option("expires", time::format(expires))
    }

    /// Sets the time after which the task is aborted.
    pub fn time_limit(self, limit: Duration) -> Self {
        self.option("time_limit", seconds(limit))
    }

    /// Sets the time after which the task is asked to stop.
    pub fn soft_time_limit(self, limit: Duration) -> Self {
        self.option("soft_time_limit", seconds(limit))
    }

    /// Sets whether the result is discarded.
    pub fn ignore_result(self, ignore: bool) -> Self {
        self.option("ignore_result", ignore)
    }

    /// Sets the maximum number of retries (`None` for no limit), which overrides the worker's maximum. Only
    /// celeriac workers support it.
    pub fn max_retries(self, retries: impl Into<Option<u32>>) -> Self {
        self.option(MAX_RETRIES, retries.into().map_or(json!(-1), Value::from))
    }

    /// Adds a header, such as `traceparent`, which an observer uses as the parent of the send.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        let headers = self.0.options.entry("headers").or_insert_with(|| json!({}));
        if let Value::Object(headers) = headers {
            headers.insert(name.into(), value.into());
        }
        self
    }

    /// Sets the compression of the message's body; none by default.
    pub fn compression(self, compression: Compression) -> Self {
        self.option(COMPRESSION, compression.content_type())
    }

    /// Makes the signature immutable: it does not receive the result of the previous task. Celery's `si`.
    pub fn immutable(mut self) -> Self {
        self.0.immutable = true;
        self
    }

    /// Adds a task that runs with the return value once this task has succeeded. Celery's `link`.
    pub fn on_success(mut self, callback: impl Into<Canvas>) -> Self {
        self.0.link("link", &[callback.into().0.encode()]);
        self
    }

    /// Adds a task that runs with the id of this task once it has failed. Celery's `link_error`.
    pub fn on_error(mut self, errback: impl Into<Canvas>) -> Self {
        self.0.link("link_error", &[errback.into().0.encode()]);
        self
    }

    /// Returns a chain of this task and `next`, which receives the return value. Celery's `|`.
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

impl From<&str> for Signature {
    fn from(task: &str) -> Self {
        Self::new(task)
    }
}

impl From<String> for Signature {
    fn from(task: String) -> Self {
        Self::new(task)
    }
}

impl From<Signature> for Canvas {
    fn from(signature: Signature) -> Self {
        Self(signature.0)
    }
}
