//! Celery's remote control: queries and commands for workers in any language. The worker's side is
//! `worker::mailbox`; both sides share the formats in [`command`] and [`envelope`].

pub(crate) mod clock;
pub(crate) mod command;
pub(crate) mod envelope;

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value, json};
use tokio::{
    sync::mpsc::{UnboundedSender, unbounded_channel},
    time::{Instant, sleep},
};

use self::{
    clock::Clock,
    command::{Command, EXCHANGE, REPLY_EXCHANGE},
    envelope::PERSISTENT,
};
use crate::{
    back_off::BackOff,
    broker::{Broker, BrokerError, ReplyTo},
    log::debug,
    system,
    task_id::TaskId,
};

/// Delays between two polls for replies; they double up to the maximum. Replies are polled because a blocking
/// read would occupy a connection for each query.
const MIN_POLL_DELAY: Duration = Duration::from_millis(1);
const MAX_POLL_DELAY: Duration = Duration::from_millis(50);

/// Client for Celery's remote control: queries workers and sends them commands. Cheap to clone.
///
/// ```
/// # use std::{sync::Arc, time::Duration};
/// # use celeriac::{Broker, Control, MemoryBroker};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(100));
/// let control = Control::new(broker).timeout(Duration::from_millis(500));
/// for reply in control.inspect("stats", serde_json::Map::new()).await? {
///     println!("{}: {}", reply.node, reply.content["uptime"]);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Control {
    pub(crate) broker: Arc<dyn Broker>,
    clock: Arc<Clock>,
    timeout: Duration,
    limit: usize,
    destination: Option<Vec<String>>,
    pattern: Option<String>,
}

/// Reply of one worker.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Reply {
    /// Name of the worker, `celery@host`.
    pub node: String,
    /// Content of the reply; an object with an `error` member if the method failed.
    pub content: Value,
}

impl Reply {
    /// Returns the error that the worker reports, if any.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.content.get("error").and_then(Value::as_str)
    }
}

impl Control {
    /// Creates a client that addresses all workers of `broker` and waits one second for their replies.
    pub fn new(broker: Arc<dyn Broker>) -> Self {
        Self {
            broker,
            clock: Arc::default(),
            timeout: Duration::from_secs(1),
            limit: usize::MAX,
            destination: None,
            pattern: None,
        }
    }

    /// Sets the maximum time to wait for replies. Waiting ends early once all workers that received the
    /// command have replied.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the maximum number of replies to wait for.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Addresses only these workers.
    pub fn destination(mut self, nodes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.destination = Some(nodes.into_iter().map(Into::into).collect());
        self
    }

    /// Addresses only workers whose names match a shell pattern.
    pub fn glob(mut self, pattern: impl Into<String>) -> Self {
        self.pattern = Some(pattern.into());
        self
    }

    /// Returns the names of the workers that reply.
    ///
    /// # Errors
    /// Returns an error if the broker cannot be reached.
    pub async fn ping(&self) -> Result<Vec<String>, BrokerError> {
        let replies = self.inspect("ping", Map::new()).await?;
        Ok(replies.into_iter().map(|reply| reply.node).collect())
    }

    /// Calls a method of the workers and returns their replies; an empty list if no worker replies in time.
    ///
    /// # Errors
    /// Returns an error if the broker cannot be reached.
    pub async fn inspect(
        &self,
        method: &str,
        arguments: Map<String, Value>,
    ) -> Result<Vec<Reply>, BrokerError> {
        let to = ReplyTo {
            exchange: REPLY_EXCHANGE.to_owned(),
            routing_key: system::random_id().to_string(),
        };
        let command = Command {
            ticket: Some(system::random_id().to_string()),
            reply_to: Some(to.clone()),
            ..self.command(method, arguments)
        };
        let (control, (sender, mut received)) = (self.clone(), unbounded_channel());
        // A separate task closes the reply queue even if the caller stops waiting. It does so only after the
        // last reply, because a later reply would never be removed.
        tokio::spawn(async move { control.ask(&command, &to, sender).await });
        let mut replies = Vec::new();
        while replies.len() < self.limit
            && let Some(reply) = received.recv().await
        {
            replies.push(reply?);
        }
        Ok(replies)
    }

    /// Calls a method of the workers without waiting for replies. Returns the number of workers that received
    /// the command.
    ///
    /// # Errors
    /// Returns an error if the broker does not confirm.
    pub async fn cast(&self, method: &str, arguments: Map<String, Value>) -> Result<usize, BrokerError> {
        self.send(&self.command(method, arguments)).await
    }

    /// Revokes tasks: workers will not run them. With `terminate`, running tasks are aborted too.
    ///
    /// # Errors
    /// Returns an error if the broker cannot be reached.
    pub async fn revoke(
        &self,
        ids: impl IntoIterator<Item = impl Into<TaskId>>,
        terminate: bool,
    ) -> Result<Vec<Reply>, BrokerError> {
        let ids: Vec<TaskId> = ids.into_iter().map(Into::into).collect();
        let arguments = object([("task_id", json!(ids)), ("terminate", json!(terminate))]);
        self.inspect("revoke", arguments).await
    }

    /// Sets the rate limit of a task on each worker, such as `10/s`, `100/m` or `3/h`; `0` removes the limit.
    ///
    /// # Errors
    /// Returns an error if the broker cannot be reached.
    pub async fn rate_limit(&self, task: &str, rate: &str) -> Result<Vec<Reply>, BrokerError> {
        let arguments = object([("task_name", json!(task)), ("rate_limit", json!(rate))]);
        self.inspect("rate_limit", arguments).await
    }

    /// Shuts down the workers, which do not reply. As with a signal, running tasks may finish.
    ///
    /// # Errors
    /// Returns an error if the broker does not confirm.
    pub async fn shutdown(&self) -> Result<usize, BrokerError> {
        self.cast("shutdown", Map::new()).await
    }

    fn command(&self, method: &str, arguments: Map<String, Value>) -> Command {
        Command {
            method: method.to_owned(),
            arguments: Some(arguments),
            destination: self.destination.clone(),
            pattern: self.pattern.clone(),
            matcher: self.pattern.as_ref().map(|_| "glob".to_owned()),
            ticket: None,
            reply_to: None,
        }
    }

    async fn send(&self, command: &Command) -> Result<usize, BrokerError> {
        let expires = match command.reply_to {
            Some(_) => system::unix_time() + self.timeout.as_secs_f64(),
            None => 0.0,
        };
        let headers = json!({"clock": self.clock.tick(), "expires": expires});
        let text = envelope::encode(EXCHANGE, "", PERSISTENT, &headers, command);
        self.broker.broadcast(EXCHANGE, "", text).await
    }

    /// Sends a command, forwards the replies to `replies` even if its receiver was dropped, and closes the
    /// reply queue.
    async fn ask(&self, command: &Command, to: &ReplyTo, replies: ReplySender) {
        if let Err(error) = self.collect(command, to, &replies).await {
            let _ = replies.send(Err(error));
        }
        drop(replies);
        if let Err(error) = self.broker.close_replies(to).await {
            debug!(%error, "failed to close a reply queue; it will expire on its own");
        }
    }

    async fn collect(
        &self,
        command: &Command,
        to: &ReplyTo,
        replies: &ReplySender,
    ) -> Result<(), BrokerError> {
        self.broker.open_replies(to).await?;
        let deadline = Instant::now() + self.timeout;
        let receivers = self.send(command).await?;
        let named = command.destination.as_ref().map_or(usize::MAX, Vec::len);
        let mut missing = receivers.min(named);
        let mut polls = BackOff::new(MIN_POLL_DELAY, MAX_POLL_DELAY);
        while missing > 0 && Instant::now() < deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            sleep(polls.next_delay().min(left)).await;
            for raw in self.broker.take_replies(to).await? {
                for (node, content) in self.decode(&raw, command.ticket.as_deref()) {
                    missing = missing.saturating_sub(1);
                    let _ = replies.send(Ok(Reply { node, content }));
                }
            }
        }
        Ok(())
    }

    /// Returns the contents of a reply to the command with this ticket, by worker.
    fn decode(&self, raw: &[u8], ticket: Option<&str>) -> Map<String, Value> {
        let content = match envelope::decode(raw, envelope::MAX_REPLY_SIZE) {
            Ok(content) => content,
            Err(reason) => {
                debug!(%reason, "ignored a reply that cannot be decoded");
                return Map::new();
            }
        };
        self.clock.adjust(content.headers["clock"].as_u64());
        let theirs = content.headers.get("ticket");
        match content.body {
            Value::Object(nodes) if theirs.is_none_or(|theirs| theirs.as_str() == ticket) => nodes,
            _ => Map::new(),
        }
    }
}

type ReplySender = UnboundedSender<Result<Reply, BrokerError>>;

pub(crate) fn object<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    let fields = fields.into_iter();
    fields.map(|(name, value)| (name.to_owned(), value)).collect()
}
