//! The client, which sends tasks and reads their results. It uses brokers only through [`Broker`], which
//! handles time-outs and reconnection.

use std::{iter, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::{
    async_result::{AsyncResult, WaitError},
    broker::{Broker, BrokerError, Exchange, LogReply, LoggedSendError, Publication, PublicationLog},
    canvas::{Canvas, CanvasError, SendContext, Sender},
    compression::Compression,
    control::clock::Clock,
    event::{self, Event},
    lock::Lock,
    log::debug,
    message::{DeliveryInfo, Message},
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
    settings: Arc<Settings>,
    /// Task on whose behalf this client sends.
    parent: Option<Arc<Parent>>,
}

#[derive(Debug, Clone)]
struct Settings {
    broker: Arc<dyn Broker>,
    observer: Arc<dyn Observer>,
    origin: String,
    reply_to: String,
    default_queue: String,
    routes: Vec<(String, DeliveryInfo)>,
    compression: Option<Compression>,
    /// Clock for events, if they are sent.
    events: Option<Arc<Clock>>,
}

/// Running task on whose behalf other tasks are sent.
#[derive(Debug)]
pub(crate) struct Parent {
    id: TaskId,
    root: TaskId,
    /// Results of the tasks sent, in Celery's format.
    children: Lock<Vec<Value>>,
}

impl Parent {
    pub(crate) fn new(id: TaskId, root: TaskId) -> Self {
        Self {
            id,
            root,
            children: Lock::default(),
        }
    }

    pub(crate) fn children(&self) -> Vec<Value> {
        self.children.lock().clone()
    }
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
        let settings = Settings {
            broker,
            observer: Arc::new(NoopObserver),
            origin: system::origin(),
            reply_to: system::random_id().to_string(),
            default_queue: "celery".to_owned(),
            routes: Vec::new(),
            compression: None,
            events: None,
        };
        Self {
            settings: Arc::new(settings),
            parent: None,
        }
    }

    /// Returns the broker of this client.
    #[must_use]
    pub fn broker(&self) -> Arc<dyn Broker> {
        Arc::clone(&self.settings.broker)
    }

    /// Reports every send to `observer`.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        Arc::make_mut(&mut self.settings).observer = observer;
        self
    }

    /// Sets the queue of signatures that name none; `celery` by default. Equivalent to Celery's
    /// `task_default_queue`.
    pub fn default_queue(mut self, queue: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.settings).default_queue = queue.into();
        self
    }

    /// Sends tasks whose names match `pattern`, in which `*` stands for any text, to `queue`, unless their
    /// signatures name one. The first matching route applies. Equivalent to an entry of Celery's `task_routes`.
    pub fn route(self, pattern: impl Into<String>, queue: impl Into<String>) -> Self {
        self.add_route(pattern.into(), DeliveryInfo::queue(queue))
    }

    /// Sends tasks whose names match `pattern` to the queues that are bound to an exchange, like
    /// [`route`](Self::route); see [`Signature::exchange`].
    pub fn route_to_exchange(
        self,
        pattern: impl Into<String>,
        exchange: &Exchange,
        routing_key: impl Into<String>,
    ) -> Self {
        let destination = DeliveryInfo {
            exchange: exchange.name().to_owned(),
            is_fanout: exchange.is_fanout(),
            ..DeliveryInfo::queue(routing_key)
        };
        self.add_route(pattern.into(), destination)
    }

    fn add_route(mut self, pattern: String, destination: DeliveryInfo) -> Self {
        let settings = Arc::make_mut(&mut self.settings);
        settings.routes.push((pattern, destination));
        self
    }

    /// Sets the compression of messages whose signatures do not set it; none by default. Equivalent to Celery's
    /// `task_compression`.
    pub fn compression(mut self, compression: Compression) -> Self {
        Arc::make_mut(&mut self.settings).compression = Some(compression);
        self
    }

    /// Sets whether a `task-sent` event is broadcast for every task, as with Celery's `task_send_sent_event`;
    /// off by default. The event shows the task's arguments, shortened, to anyone with access to the broker,
    /// and costs a round trip.
    pub fn events(mut self, enabled: bool) -> Self {
        Arc::make_mut(&mut self.settings).events = enabled.then(Arc::default);
        self
    }

    /// Returns a client that sends on behalf of a running task.
    pub(crate) fn on_behalf_of(&self, parent: Arc<Parent>) -> Self {
        Self {
            settings: Arc::clone(&self.settings),
            parent: Some(parent),
        }
    }

    /// Returns the message of a signature, which is not sent.
    pub(crate) fn message(&self, signature: Signature) -> Message {
        signature.into_message(&self.send_context())
    }

    /// Stores the state of a task.
    pub(crate) async fn store(&self, meta: &ResultMeta) -> Result<(), BrokerError> {
        self.settings.broker.store_result(meta).await
    }

    /// Sends a task and returns its id once the broker has taken responsibility (see [`Broker::publish`]).
    ///
    /// # Errors
    /// Returns an error if the broker does not confirm.
    pub async fn send(&self, signature: Signature) -> Result<TaskId, SendError> {
        let (message, sending) = self.prepare(signature);
        let mut publish = self.settings.broker.publish(message);
        let response = observed(publish.as_mut(), |poll| sending.span.in_scope(poll)).await;
        if response.is_ok() {
            self.add_child(|| json!([[sending.id, null], null]));
            self.announce(sending.event.as_slice()).await;
        }
        sending.finish(response)
    }

    /// Sends several tasks in one round trip. Returns one result per task, in order.
    pub async fn send_batch(&self, signatures: Vec<Signature>) -> Vec<Result<TaskId, SendError>> {
        let (messages, batch) = self.prepare_all(signatures);
        let spans = batch.iter().map(|sending| sending.span.handle()).collect();
        let responses = self
            .within(spans, self.settings.broker.publish_batch(messages))
            .await;
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
            .within(spans, self.settings.broker.publish_logged(log, messages))
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
        self.settings.broker.log_lengths(ids).await
    }

    /// Returns the states of several tasks, in order, without their results; `None` if a task has none yet.
    ///
    /// # Errors
    /// Returns an error if the broker cannot be reached.
    pub async fn statuses(&self, ids: &[TaskId]) -> Result<Vec<Option<Status>>, BrokerError> {
        self.settings.broker.statuses(ids).await
    }

    /// Returns the result of a task, or `None` if it has none yet.
    ///
    /// # Errors
    /// Returns an error if the broker cannot be reached.
    pub async fn result(&self, id: impl Into<TaskId>) -> Result<Option<ResultMeta>, BrokerError> {
        self.settings.broker.result(&id.into()).await
    }

    /// Returns a handle to the result of a task sent by any client.
    #[must_use]
    pub fn result_of(&self, id: impl Into<TaskId>) -> AsyncResult {
        AsyncResult::new(self.broker(), ResultTree::task(id))
    }

    /// Returns a handle to the results of a group that was stored with [`AsyncResult::save`] or Celery's
    /// `GroupResult.save`, or `None` if none was stored.
    ///
    /// # Errors
    /// Returns an error if the broker cannot be reached.
    pub async fn saved_result(&self, id: &str) -> Result<Option<AsyncResult>, BrokerError> {
        let saved = self.settings.broker.group(id).await?;
        let tree = saved.and_then(|saved| ResultTree::from_tuple(saved.get("result")?));
        Ok(tree.map(|tree| AsyncResult::new(self.broker(), tree)))
    }

    /// Waits for the return value of a task.
    ///
    /// # Errors
    /// See [`WaitError`].
    pub async fn wait(&self, id: impl Into<TaskId>, timeout: Duration) -> Result<Value, WaitError> {
        self.result_of(id).wait(timeout).await
    }

    /// Waits for the return value of a task and converts it into `T`.
    ///
    /// # Errors
    /// See [`WaitError`].
    pub async fn wait_as<T: DeserializeOwned>(
        &self,
        id: impl Into<TaskId>,
        timeout: Duration,
    ) -> Result<T, WaitError> {
        self.result_of(id).wait_as(timeout).await
    }

    /// Sends a canvas and returns a handle to its results once the broker has taken responsibility for all of
    /// it (see [`Broker::publish_together`]).
    ///
    /// # Errors
    /// Returns an error if the canvas cannot be sent as Celery would send it, or if the broker does not
    /// confirm.
    pub async fn apply(&self, canvas: impl Into<Canvas>) -> Result<AsyncResult, ApplyError> {
        self.apply_with(canvas.into(), Publication::default()).await
    }

    /// Sends a canvas together with `publication`.
    pub(crate) async fn apply_with(
        &self,
        canvas: Canvas,
        publication: Publication,
    ) -> Result<AsyncResult, ApplyError> {
        canvas.check()?;
        let mut sender = Sender {
            context: self.send_context(),
            publication,
        };
        let tree = sender.apply(canvas.0, &[], Map::new())?;
        let mut publication = sender.publication;
        let messages = publication.messages.iter_mut();
        let spans: Vec<_> = messages
            .map(|message| self.settings.observer.sending(message))
            .collect();
        let handles = spans.iter().map(|span| span.handle()).collect();
        let publish = self.settings.broker.publish_together(&publication);
        let response = self.within(handles, publish).await;
        for span in spans {
            span.finish(response.as_ref().copied());
        }
        response?;
        self.add_child(|| tree.trail());
        let messages = publication.messages.iter();
        let events: Vec<Event> = messages.filter_map(|message| self.sent(message)).collect();
        self.announce(&events).await;
        Ok(AsyncResult::new(self.broker(), tree))
    }

    /// Returns the `task-sent` event of a message, if events are sent.
    fn sent(&self, message: &Message) -> Option<Event> {
        let clock = self.settings.events.as_ref()?.tick();
        let info = &message.properties.delivery_info;
        let destination = [
            ("queue", message.queue().into()),
            ("exchange", info.exchange.as_str().into()),
            ("routing_key", info.routing_key.as_str().into()),
        ];
        let id = ("uuid", message.headers.id.as_str().into());
        let details = iter::once(id)
            .chain(event::task_fields(message))
            .chain(destination);
        Some(Event::new("task-sent", &self.settings.origin, clock, details))
    }

    /// Broadcasts events. A failure is only logged, because monitors tolerate missing events.
    async fn announce(&self, events: &[Event]) {
        for batch in events.chunks(MAX_EVENTS) {
            let text = Event::encode_batch(&self.settings.origin, batch);
            let sent = self
                .settings
                .broker
                .broadcast(event::EXCHANGE, event::TASK_BATCH, text);
            if let Err(error) = sent.await {
                debug!(%error, "failed to send task-sent events");
                return;
            }
        }
    }

    /// Awaits `work` on behalf of several spans.
    async fn within<T>(&self, spans: Vec<SpanHandle>, mut work: BoxFuture<'_, T>) -> T {
        let span = self.settings.observer.batch_span(&spans);
        observed(work.as_mut(), |poll| self.settings.observer.in_scope(&span, poll)).await
    }

    fn prepare(&self, signature: Signature) -> (Message, Sending) {
        let mut message = signature.into_message(&self.send_context());
        let sending = Sending {
            span: self.settings.observer.sending(&mut message),
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
        let taken = sent.filter_map(|(sending, _)| {
            self.add_child(|| json!([[sending.id, null], null]));
            sending.event.take()
        });
        let events: Vec<Event> = taken.collect();
        self.announce(&events).await;
        batch
            .into_iter()
            .map(|(sending, response)| sending.finish(response))
            .collect()
    }

    /// Returns the context of tasks sent now.
    pub(crate) fn send_context(&self) -> SendContext<'_> {
        let parent = self.parent.as_ref();
        SendContext {
            now: system::now(),
            origin: &self.settings.origin,
            reply_to: &self.settings.reply_to,
            queue: &self.settings.default_queue,
            routes: &self.settings.routes,
            compression: self.settings.compression,
            parent: parent.map(|parent| (parent.root.as_str(), parent.id.as_str())),
        }
    }

    /// Adds the result of a task that was sent to the children of the running task.
    fn add_child(&self, result: impl FnOnce() -> Value) {
        if let Some(parent) = &self.parent {
            parent.children.lock().push(result());
        }
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
