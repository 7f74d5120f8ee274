//! Sends tasks and looks up their results. Knows brokers only through [`Broker`]; time-outs and reconnecting are the
//! broker's.

use std::{fmt, sync::Arc};

use thiserror::Error;

use crate::{
    broker::{Broker, BrokerError},
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

impl Client {
    /// A client of this broker.
    #[must_use]
    pub fn new(broker: Arc<dyn Broker>) -> Self {
        Self {
            broker,
            observer: Arc::new(Unobserved),
            origin: format!("gen{}@{}", std::process::id(), system::hostname()).into(),
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

    fn prepare(&self, signature: Signature) -> (Message, Box<dyn SendSpan>) {
        let mut message = signature.into_message(system::now(), &self.origin, &self.reply_to);
        let info = SendInfo {
            task: &message.headers.task,
            id: &message.headers.id,
            queue: &message.properties.delivery_info.routing_key,
        };
        let span = self.observer.send(&info, &mut message.headers.extra);
        (message, span)
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
