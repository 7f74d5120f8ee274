//! Sends tasks and looks up their results. Knows brokers only through [`Broker`]; time-outs and reconnecting are the
//! broker's.

use std::{fmt, sync::Arc, time::Duration};

use serde_json::{Map, Value};
use thiserror::Error;

use crate::{
    async_result::{AsyncResult, ResultTree, WaitError},
    broker::{Broker, BrokerError},
    canvas::{Canvas, CanvasError, Sender},
    message::Message,
    observer::{Observer, SendInfo, SendSpan, Unobserved},
    result::ResultMeta,
    signature::Signature,
    system,
};

/// Sends tasks. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    broker: Arc<dyn Broker>,
    observer: Arc<dyn Observer>,
    origin: Arc<str>,
    reply_to: Arc<str>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("broker", &self.broker)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// A task that was not sent, or not confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("task {task} was not sent: {source}")]
pub struct SendError {
    /// The task's name.
    pub task: String,
    /// The id it would have had.
    pub id: String,
    /// Why.
    pub source: BrokerError,
}

/// Tasks that were not sent, or not confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ApplyError {
    /// They cannot be sent as Celery would.
    #[error(transparent)]
    Canvas(#[from] CanvasError),
    /// The broker did not confirm.
    #[error("the tasks were not sent: {0}")]
    Broker(#[from] BrokerError),
}

impl Client {
    /// A client of this broker.
    #[must_use]
    pub fn new(broker: Arc<dyn Broker>) -> Self {
        Self {
            broker,
            observer: Arc::new(Unobserved),
            origin: system::origin().into(),
            reply_to: system::random_id().to_string().into(),
        }
    }

    /// Reports every send to this observer.
    #[must_use]
    pub fn with_observer(self, observer: Arc<dyn Observer>) -> Self {
        Self { observer, ..self }
    }

    /// Sends one task and returns its id, when the broker has taken responsibility (see [`Broker::publish`]).
    ///
    /// # Errors
    /// When the broker did not confirm.
    pub async fn send(&self, signature: Signature) -> Result<String, SendError> {
        let (message, span) = self.prepare(signature);
        let (task, id) = (message.headers.task.clone(), message.headers.id.clone());
        let answer = span.during(self.broker.publish(message)).await;
        finish(answer, span, task, id)
    }

    /// Sends several tasks in one round trip; one answer each, in order.
    pub async fn send_batch(&self, signatures: Vec<Signature>) -> Vec<Result<String, SendError>> {
        let mut messages = Vec::with_capacity(signatures.len());
        let mut pending = Vec::with_capacity(signatures.len());
        for signature in signatures {
            let (message, span) = self.prepare(signature);
            pending.push((span, message.headers.task.clone(), message.headers.id.clone()));
            messages.push(message);
        }
        let answers = self.broker.publish_batch(messages).await;
        pending
            .into_iter()
            .zip(answers)
            .map(|((span, task, id), answer)| finish(answer, span, task, id))
            .collect()
    }

    /// The result of a task; `None` while it has none.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    pub async fn result(&self, id: &str) -> Result<Option<ResultMeta>, BrokerError> {
        self.broker.result(id).await
    }

    /// A handle on the result of a task that was sent by anyone.
    #[must_use]
    pub fn result_of(&self, id: impl Into<String>) -> AsyncResult {
        AsyncResult::new(Arc::clone(&self.broker), ResultTree::task(id))
    }

    /// Waits for the return value of a task.
    ///
    /// # Errors
    /// See [`WaitError`].
    pub async fn wait(&self, id: &str, timeout: Duration) -> Result<Value, WaitError> {
        self.result_of(id).wait(timeout).await
    }

    /// Sends one or several tasks and gives back a handle on their results, when the broker has taken responsibility
    /// for all of them (see [`Broker::publish_together`]).
    ///
    /// # Errors
    /// When it cannot be sent as Celery would, or the broker did not confirm.
    pub async fn apply(&self, canvas: impl Into<Canvas>) -> Result<AsyncResult, ApplyError> {
        let canvas = canvas.into();
        canvas.check()?;
        let mut sender = self.sender();
        let tree = sender.apply(canvas.0, &[], Map::new())?;
        let mut publication = sender.publication;
        let messages = publication.messages.iter_mut();
        let spans: Vec<_> = messages.map(|message| self.observe(message)).collect();
        let work = self.broker.publish_together(&publication);
        let answer = match spans.first() {
            Some(span) => span.during(work).await,
            None => work.await,
        };
        for span in spans {
            span.finish(answer.as_ref().copied());
        }
        answer?;
        Ok(AsyncResult::new(Arc::clone(&self.broker), tree))
    }

    fn prepare(&self, signature: Signature) -> (Message, Box<dyn SendSpan>) {
        let mut message = self.sender().single(signature);
        let span = self.observe(&mut message);
        (message, span)
    }

    fn sender(&self) -> Sender<'_> {
        Sender::new(system::now(), &self.origin, &self.reply_to)
    }

    fn observe(&self, message: &mut Message) -> Box<dyn SendSpan> {
        let info = SendInfo {
            task: &message.headers.task,
            id: &message.headers.id,
            queue: &message.properties.delivery_info.routing_key,
        };
        self.observer.send(&info, &mut message.headers.extra)
    }
}

fn finish(
    answer: Result<(), BrokerError>,
    span: Box<dyn SendSpan>,
    task: String,
    id: String,
) -> Result<String, SendError> {
    span.finish(answer.as_ref().copied());
    match answer {
        Ok(()) => Ok(id),
        Err(source) => Err(SendError { task, id, source }),
    }
}
