//! The client, which sends tasks and reads their results. It uses brokers only through [`Broker`], which
//! handles time-outs and reconnection.

use std::{iter, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::{
    async_result::{AsyncResult, WaitError},
    broker::{Broker, BrokerError, LogReply, LoggedSendError, Publication, PublicationLog},
    canvas::{Canvas, CanvasError, SendContext, Sender},
    control::clock::Clock,
    event::{self, Event},
    log::debug,
    message::Message,
    observer::{NoopObserver, Observer, SendSpan, SpanHandle, observed},
    result::{ResultMeta, Status},
    result_tree::ResultTree,
    signature::Signature,
    system,
    task_id::TaskId,
};

/// Maximum number of events in a broadcast.
const MAX_EVENTS: usize = 1000;

/// Client that sends tasks. Cheap to clone.
#[derive(Debug, Clone)]
#[must_use]
pub struct Client {
    broker: Arc<dyn Broker>,
    observer: Arc<dyn Observer>,
    origin: Arc<str>,
    reply_to: Arc<str>,
    /// Clock for events, if they are sent.
    events: Option<Arc<Clock>>,
}

/// Error of a task whose send failed or was not confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("task {task} was not sent: {source}")]
#[non_exhaustive]
pub struct SendError {
    /// Name of the task.
    pub task: String,
    /// Id of the task.
    pub id: TaskId,
    /// Cause of the failure.
    pub source: BrokerError,
}

/// Error of a canvas whose send failed or was not confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The canvas cannot be sent as Celery would send it.
    #[error(transparent)]
    Canvas(#[from] CanvasError),
    /// The broker did not confirm the messages.
    #[error("the tasks were not sent: {0}")]
    Broker(#[from] BrokerError),
}

impl Client {
    /// Creates a client of a broker.
    pub fn new(broker: Arc<dyn Broker>) -> Self {
        Self {
            broker,
            observer: Arc::new(NoopObserver),
            origin: system::origin().into(),
            reply_to: system::random_id().to_string().into(),
            events: None,
        }
    }

    /// Reports every send to `observer`.
    pub fn observer(self, observer: Arc<dyn Observer>) -> Self {
        Self { observer, ..self }
    }

    /// Sets whether a `task-sent` event is broadcast for every task, as with Celery's `task_send_sent_event`;
    /// off by default. The event shows the task's arguments, shortened, to anyone with access to the broker,
    /// and costs a round trip.
    pub fn events(self, enabled: bool) -> Self {
        let events = enabled.then(Arc::default);
        Self { events, ..self }
    }

    /// Sends a task and returns its id once the broker has taken responsibility (see [`Broker::publish`]).
    ///
    /// # Errors
    /// Returns an error if the broker does not confirm.
    pub async fn send(&self, signature: Signature) -> Result<TaskId, SendError> {
        let (message, sending) = self.prepare(signature);
        let mut publish = self.broker.publish(message);
        let response = observed(publish.as_mut(), |poll| sending.span.in_scope(poll)).await;
        if response.is_ok() {
            self.announce(sending.event.as_slice()).await;
        }
        sending.finish(response)
    }

    /// Sends several tasks in one round trip. Returns one result per task, in order.
    pub async fn send_batch(&self, signatures: Vec<Signature>) -> Vec<Result<TaskId, SendError>> {
        let (messages, batch) = self.prepare_all(signatures);
        let spans = batch.iter().map(|sending| sending.span.handle()).collect();
        let responses = self.within(spans, self.broker.publish_batch(messages)).await;
        self.finish_all(batch.into_iter().zip(responses).collect()).await
    }

    /// Sends several tasks in one round trip, as the next batch of `log`. The number of the batch is the new
    /// length of the log.
    ///
    /// With [`log_lengths`](Self::log_lengths), a publisher that keeps its tasks until they have finished, such
    /// as a transactional outbox, finds out which of them the broker has lost. On the in-process broker, the
    /// call returns when all tasks have finished.
    ///
    /// # Errors
    /// See [`LoggedSendError`].
    pub async fn send_logged(
        &self,
        log: &mut PublicationLog,
        signatures: Vec<Signature>,
    ) -> Result<(), LoggedSendError> {
        let (messages, batch) = self.prepare_all(signatures);
        let spans = batch.iter().map(|sending| sending.span.handle()).collect();
        let reply = self
            .within(spans, self.broker.publish_logged(log, messages))
            .await;
        let response = match &reply {
            Ok(LogReply::Extended(_)) => Ok(()),
            Ok(LogReply::Lost(_)) => Err(BrokerError::unavailable("the broker has lost data")),
            Err(error) => Err(error.clone()),
        };
        let responses = batch.into_iter().map(|sending| (sending, response.clone()));
        self.finish_all(responses.collect()).await;
        match reply? {
            LogReply::Extended(length) => {
                log.extend(length);
                Ok(())
            }
            LogReply::Lost(kept) => Err(LoggedSendError::Lost { kept }),
        }
    }

    /// Returns the length of each [`PublicationLog`] in the broker's data, in order. Batches with higher
    /// numbers are lost; 0 means that the whole log is.
    ///
    /// # Errors
    /// Returns an error if the broker cannot be reached.
    pub async fn log_lengths(&self, ids: &[String]) -> Result<Vec<u64>, BrokerError> {
        self.broker.log_lengths(ids).await
    }

    /// Returns the states of several tasks, in order, without their results; `None` if a task has none yet.
    ///
    /// # Errors
    /// Returns an error if the broker cannot be reached.
    pub async fn statuses(&self, ids: &[TaskId]) -> Result<Vec<Option<Status>>, BrokerError> {
        self.broker.statuses(ids).await
    }

    /// Returns the result of a task, or `None` if it has none yet.
    ///
    /// # Errors
    /// Returns an error if the broker cannot be reached.
    pub async fn result(&self, id: impl Into<TaskId>) -> Result<Option<ResultMeta>, BrokerError> {
        self.broker.result(&id.into()).await
    }

    /// Returns a handle to the result of a task sent by any client.
    #[must_use]
    pub fn result_of(&self, id: impl Into<TaskId>) -> AsyncResult {
        AsyncResult::new(Arc::clone(&self.broker), ResultTree::task(id))
    }

    /// Waits for the return value of a task.
    ///
    /// # Errors
    /// See [`WaitError`].
    pub async fn wait(&self, id: impl Into<TaskId>, timeout: Duration) -> Result<Value, WaitError> {
        self.result_of(id).wait(timeout).await
    }

    /// Sends a canvas and returns a handle to its results once the broker has taken responsibility for all of
    /// it (see [`Broker::publish_together`]).
    ///
    /// # Errors
    /// Returns an error if the canvas cannot be sent as Celery would send it, or if the broker does not
    /// confirm.
    pub async fn apply(&self, canvas: impl Into<Canvas>) -> Result<AsyncResult, ApplyError> {
        let canvas = canvas.into();
        canvas.check()?;
        let mut sender = Sender {
            context: self.send_context(),
            publication: Publication::default(),
        };
        let tree = sender.apply(canvas.0, &[], Map::new())?;
        let mut publication = sender.publication;
        let messages = publication.messages.iter_mut();
        let spans: Vec<_> = messages.map(|message| self.observer.sending(message)).collect();
        let handles = spans.iter().map(|span| span.handle()).collect();
        let publish = self.broker.publish_together(&publication);
        let response = self.within(handles, publish).await;
        for span in spans {
            span.finish(response.as_ref().copied());
        }
        response?;
        let messages = publication.messages.iter();
        let events: Vec<Event> = messages.filter_map(|message| self.sent(message)).collect();
        self.announce(&events).await;
        Ok(AsyncResult::new(Arc::clone(&self.broker), tree))
    }

    /// Returns the `task-sent` event of a message, if events are sent.
    fn sent(&self, message: &Message) -> Option<Event> {
        let clock = self.events.as_ref()?.tick();
        let queue = message.queue();
        let destination = [
            ("queue", queue.into()),
            ("exchange", "".into()),
            ("routing_key", queue.into()),
        ];
        let id = ("uuid", message.headers.id.as_str().into());
        let details = iter::once(id)
            .chain(event::task_fields(message))
            .chain(destination);
        Some(Event::new("task-sent", &self.origin, clock, details))
    }

    /// Broadcasts events. A failure is only logged, because monitors tolerate missing events.
    async fn announce(&self, events: &[Event]) {
        for batch in events.chunks(MAX_EVENTS) {
            let text = Event::encode_batch(&self.origin, batch);
            let sent = self.broker.broadcast(event::EXCHANGE, event::TASK_BATCH, text);
            if let Err(error) = sent.await {
                debug!(%error, "failed to send task-sent events");
                return;
            }
        }
    }

    /// Awaits `work` on behalf of several spans.
    async fn within<T>(&self, spans: Vec<SpanHandle>, mut work: BoxFuture<'_, T>) -> T {
        let span = self.observer.batch_span(&spans);
        observed(work.as_mut(), |poll| self.observer.in_scope(&span, poll)).await
    }

    fn prepare(&self, signature: Signature) -> (Message, Sending) {
        let mut message = signature.into_message(&self.send_context());
        let sending = Sending {
            span: self.observer.sending(&mut message),
            event: self.sent(&message),
            task: message.headers.task.clone(),
            id: message.headers.id.clone(),
        };
        (message, sending)
    }

    fn prepare_all(&self, signatures: Vec<Signature>) -> (Vec<Message>, Vec<Sending>) {
        let prepared = signatures.into_iter().map(|signature| self.prepare(signature));
        prepared.unzip()
    }

    /// Announces the tasks that were sent, and ends all spans.
    async fn finish_all(
        &self,
        mut batch: Vec<(Sending, Result<(), BrokerError>)>,
    ) -> Vec<Result<TaskId, SendError>> {
        let sent = batch.iter_mut().filter(|(_, response)| response.is_ok());
        let events: Vec<Event> = sent.filter_map(|(sending, _)| sending.event.take()).collect();
        self.announce(&events).await;
        batch
            .into_iter()
            .map(|(sending, response)| sending.finish(response))
            .collect()
    }

    fn send_context(&self) -> SendContext<'_> {
        SendContext::new(system::now(), &self.origin, &self.reply_to)
    }
}

/// A task being sent.
struct Sending {
    span: Box<dyn SendSpan>,
    /// `task-sent` event, if events are sent.
    event: Option<Event>,
    task: String,
    id: TaskId,
}

impl Sending {
    fn finish(self, response: Result<(), BrokerError>) -> Result<TaskId, SendError> {
        self.span.finish(response.as_ref().copied());
        let Self { task, id, .. } = self;
        match response {
            Ok(()) => Ok(id),
            Err(source) => Err(SendError { task, id, source }),
        }
    }
}
