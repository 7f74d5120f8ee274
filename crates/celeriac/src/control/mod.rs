//! Celery's remote control: asks workers of whatever language about themselves and tells them what to do. The
//! worker's side is `worker::mailbox`; what both send is in [`command`] and [`envelope`].

pub(crate) mod clock;
pub(crate) mod command;
pub(crate) mod envelope;

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value, json};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use self::{
    clock::Clock,
    command::{Command, EXCHANGE, REPLY_EXCHANGE},
    envelope::Address,
};
use crate::{
    broker::{Broker, BrokerError},
    bus::ReplyTo,
    log::debug,
    system,
};

/// Replies are looked for after this long, then after ever longer pauses: a blocking read would need a connection of
/// its own for every question.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Asks and commands workers. Cheap to clone.
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
pub struct Control {
    broker: Arc<dyn Broker>,
    clock: Arc<Clock>,
    timeout: Duration,
    limit: usize,
    destination: Option<Vec<String>>,
    pattern: Option<String>,
    matcher: Option<&'static str>,
}

/// What one worker answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The worker, `celery@host`.
    pub node: String,
    /// Its answer; an object with `error` where it could not do what was asked.
    pub content: Value,
}

impl Reply {
    /// What went wrong at the worker, if something did.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.content.get("error").and_then(Value::as_str)
    }
}

impl Control {
    /// Control of all workers of this broker, with a second for their replies.
    #[must_use]
    pub fn new(broker: Arc<dyn Broker>) -> Self {
        Self {
            broker,
            clock: Arc::default(),
            timeout: Duration::from_secs(1),
            limit: usize::MAX,
            destination: None,
            pattern: None,
            matcher: None,
        }
    }

    /// How long replies are waited for. Fewer than that when everyone who listens has answered.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Waits for no more replies than this.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Only these workers.
    #[must_use]
    pub fn destination(mut self, nodes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.destination = Some(nodes.into_iter().map(Into::into).collect());
        self
    }

    /// Only workers whose names fit this pattern of the shell.
    #[must_use]
    pub fn glob(mut self, pattern: impl Into<String>) -> Self {
        self.pattern = Some(pattern.into());
        self.matcher = Some("glob");
        self
    }

    /// The names of the workers that answer.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    pub async fn ping(&self) -> Result<Vec<String>, BrokerError> {
        let replies = self.inspect("ping", Map::new()).await?;
        Ok(replies.into_iter().map(|reply| reply.node).collect())
    }

    /// Calls a method of the workers and waits for their replies.
    ///
    /// # Errors
    /// When the broker cannot be reached. Nobody answering is no error.
    pub async fn inspect(
        &self,
        method: &str,
        arguments: Map<String, Value>,
    ) -> Result<Vec<Reply>, BrokerError> {
        let to = ReplyTo {
            exchange: REPLY_EXCHANGE.to_owned(),
            routing_key: system::random_id().to_string(),
        };
        let ticket = system::random_id().to_string();
        let command = Command {
            ticket: Some(ticket.clone()),
            reply_to: Some(to.clone()),
            ..self.command(method, arguments)
        };
        let (control, (answer, answered)) = (self.clone(), oneshot::channel());
        // In a task of its own: the queue is closed also when the caller does not wait for the end, and not before the
        // last reply, which nobody would ever take.
        tokio::spawn(async move { control.ask(&command, &to, &ticket, answer).await });
        answered.await.unwrap_or_else(|_| {
            Err(BrokerError::Unavailable {
                cause: "the runtime is ending".to_owned(),
            })
        })
    }

    /// Calls a method of the workers and returns how many have heard it; does not wait for what they make of it.
    ///
    /// # Errors
    /// When the broker did not confirm.
    pub async fn cast(&self, method: &str, arguments: Map<String, Value>) -> Result<usize, BrokerError> {
        self.send(&self.command(method, arguments)).await
    }

    /// Tasks with these ids are not to be run; with `terminate`, also ended where they run already.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    pub async fn revoke(&self, ids: &[String], terminate: bool) -> Result<Vec<Reply>, BrokerError> {
        let arguments = object([("task_id", json!(ids)), ("terminate", json!(terminate))]);
        self.inspect("revoke", arguments).await
    }

    /// How many tasks of a type a worker begins: `10/s`, `100/m`, `3/h`; `0` for any number.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    pub async fn rate_limit(&self, task: &str, rate: &str) -> Result<Vec<Reply>, BrokerError> {
        let arguments = object([("task_name", json!(task)), ("rate_limit", json!(rate))]);
        self.inspect("rate_limit", arguments).await
    }

    /// Ends the workers, as a signal would: what runs may finish. They do not reply.
    ///
    /// # Errors
    /// When the broker did not confirm.
    pub async fn shutdown(&self) -> Result<usize, BrokerError> {
        self.cast("shutdown", Map::new()).await
    }

    fn command(&self, method: &str, arguments: Map<String, Value>) -> Command {
        Command {
            method: method.to_owned(),
            arguments,
            destination: self.destination.clone(),
            pattern: self.pattern.clone(),
            matcher: self.matcher.map(str::to_owned),
            ticket: None,
            reply_to: None,
        }
    }

    async fn send(&self, command: &Command) -> Result<usize, BrokerError> {
        let expires = match command.reply_to {
            Some(_) => system::unix_time() + self.timeout.as_secs_f64(),
            None => 0.0,
        };
        let address = Address {
            exchange: EXCHANGE,
            routing_key: "",
            delivery_mode: 2,
        };
        let headers = json!({"clock": self.clock.forward(), "expires": expires});
        let text = envelope::seal(&address, &headers, command);
        self.broker.broadcast(EXCHANGE, "", text).await
    }

    async fn ask(&self, command: &Command, to: &ReplyTo, ticket: &str, answer: Answer) {
        let mut asking = Asking {
            answer: Some(answer),
            replies: Vec::new(),
        };
        if let Err(error) = self.collect(command, to, ticket, &mut asking).await {
            asking.answer(Err(error));
        }
        asking.answer_with(self.limit);
        if let Err(error) = self.broker.close_replies(to).await {
            debug!(%error, "a queue for replies was not closed and will go away by itself");
        }
    }

    async fn collect(
        &self,
        command: &Command,
        to: &ReplyTo,
        ticket: &str,
        asking: &mut Asking,
    ) -> Result<(), BrokerError> {
        self.broker.open_replies(to).await?;
        let deadline = Instant::now() + self.timeout;
        let heard = self.send(command).await?;
        let named = command.destination.as_ref().map_or(usize::MAX, Vec::len);
        let mut pause = FIRST_LOOK;
        while asking.replies.len() < heard.min(named) && Instant::now() < deadline {
            sleep(pause.min(deadline.saturating_duration_since(Instant::now()))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            for raw in self.broker.take_replies(to).await? {
                self.read(&raw, ticket, &mut asking.replies);
            }
            if asking.replies.len() >= self.limit {
                asking.answer_with(self.limit);
            }
        }
        Ok(())
    }

    fn read(&self, raw: &[u8], ticket: &str, replies: &mut Vec<Reply>) {
        let content = match envelope::open(raw, envelope::LONGEST_REPLY) {
            Ok(content) => content,
            Err(reason) => {
                debug!(%reason, "a reply cannot be read");
                return;
            }
        };
        self.clock
            .adjust(content.headers.get("clock").and_then(Value::as_u64).unwrap_or(0));
        let other = content
            .headers
            .get("ticket")
            .is_some_and(|theirs| theirs != ticket);
        if let (false, Value::Object(nodes)) = (other, content.body) {
            replies.extend(nodes.into_iter().map(|(node, content)| Reply { node, content }));
        }
    }
}

type Answer = oneshot::Sender<Result<Vec<Reply>, BrokerError>>;

/// Somebody who waits for replies, until they have an answer.
struct Asking {
    answer: Option<Answer>,
    replies: Vec<Reply>,
}

impl Asking {
    fn answer(&mut self, result: Result<Vec<Reply>, BrokerError>) {
        if let Some(answer) = self.answer.take() {
            // They may have gone away, which is their right.
            let _ = answer.send(result);
        }
    }

    fn answer_with(&mut self, limit: usize) {
        let replies = self.replies.iter().take(limit).cloned().collect();
        self.answer(Ok(replies));
    }
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    fields
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
}
