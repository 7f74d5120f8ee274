//! Context of one attempt at a task: its message, its limits, and what the task can do with them while it
//! runs. The worker creates it.

use std::{
    fmt, future,
    panic::resume_unwind,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::Value;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use crate::{
    async_result::AsyncResult,
    broker::{BrokerError, Publication},
    canvas::{Canvas, CanvasError},
    client::{ApplyError, Client, Parent},
    data::Data,
    memory::MemoryBroker,
    message::Message,
    result::{ResultMeta, Status},
    signature::Signature,
    task_id::TaskId,
};

/// Maximum number of tasks that a context for tests sends.
const MAX_SENT_IN_TEST: usize = 10_000;

/// Context of one attempt at a task.
///
/// ```
/// use celeriac::{Signature, TaskContext, TaskError};
/// use serde_json::json;
///
/// async fn import(context: TaskContext, (pages,): (u32,)) -> Result<u32, TaskError> {
///     let tenant = context.message().headers.extra.get("x-tenant").cloned();
///     for page in 0..pages {
///         // The task becomes a child of this one.
///         context.client().send(Signature::new("import.page").arg(page).arg(tenant.clone())).await?;
///         context.update_state("PROGRESS", json!({"page": page})).await?;
///     }
///     Ok(pages)
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TaskContext {
    /// Task id.
    pub id: TaskId,
    /// Registered name.
    pub task: String,
    /// Number of earlier attempts.
    pub retries: u32,
    /// Name of the worker.
    pub hostname: String,
    /// Queue that the message was received from.
    pub queue: String,
    /// Task that sent this one; the task itself from its second attempt on.
    pub parent_id: Option<TaskId>,
    /// First task of the tree that this task belongs to.
    pub root_id: Option<TaskId>,
    /// Whether the message was delivered before to a worker that did not finish the task.
    pub redelivered: bool,
    pub(crate) soft: SoftLimit,
    /// Cancelled when the worker no longer waits for this attempt.
    pub(crate) stopped: CancellationToken,
    pub(crate) request: Arc<Request>,
}

/// Message of an attempt and the connection to its broker, which a task uses on demand.
pub(crate) struct Request {
    raw: Arc<dyn RawMessage>,
    /// Message, decoded on first use.
    message: OnceLock<Box<Message>>,
    client: Client,
    /// Task on whose behalf the client sends, created on first use.
    parent: OnceLock<Arc<Parent>>,
    /// Whether states contain the call of the task.
    extended: bool,
    data: Arc<Data>,
}

/// Owner of a received message.
pub(crate) trait RawMessage: Send + Sync {
    /// Returns the list element.
    fn raw(&self) -> &[u8];
}

impl RawMessage for Vec<u8> {
    fn raw(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").finish_non_exhaustive()
    }
}

impl Request {
    pub(crate) fn new(raw: Arc<dyn RawMessage>, client: Client, extended: bool, data: Arc<Data>) -> Self {
        Self {
            raw,
            message: OnceLock::new(),
            client,
            parent: OnceLock::new(),
            extended,
            data,
        }
    }

    fn message(&self) -> &Message {
        self.message.get_or_init(|| {
            let message = Message::decode(self.raw.raw());
            Box::new(message.expect("the message was decoded before the task started"))
        })
    }

    /// Returns the results of the tasks that this task has sent, in Celery's format.
    pub(crate) fn children(&self) -> Vec<Value> {
        self.parent
            .get()
            .map(|parent| parent.children())
            .unwrap_or_default()
    }
}

impl TaskContext {
    /// Creates the context of a first attempt, for unit tests of a task. The fields can be changed.
    ///
    /// A name or a [`Signature`] describes the message. Tasks that the context sends stay in a broker in
    /// memory, and so does its state.
    ///
    /// ```
    /// use celeriac::{TaskContext, TaskError};
    ///
    /// async fn add(_: TaskContext, (a, b): (i64, i64)) -> Result<i64, TaskError> {
    ///     Ok(a + b)
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let sum = add(TaskContext::for_test("math.add"), (2, 3)).await;
    /// assert_eq!(sum, Ok(5));
    /// # }
    /// ```
    pub fn for_test(task: impl Into<Signature>) -> Self {
        let client = Client::new(Arc::new(MemoryBroker::new(MAX_SENT_IN_TEST).without_waiting()));
        let message = client.message(task.into());
        let raw = message.encode().into_bytes();
        let request = Request::new(Arc::new(raw), client, false, Arc::default());
        Self::new(&message, "celery@test", message.queue(), request)
    }

    pub(crate) fn new(message: &Message, hostname: &str, queue: &str, request: Request) -> Self {
        let headers = &message.headers;
        Self {
            id: headers.id.clone(),
            task: headers.task.clone(),
            retries: headers.retries,
            hostname: hostname.to_owned(),
            queue: queue.to_owned(),
            parent_id: headers.parent_id.clone(),
            root_id: headers.root_id.clone(),
            redelivered: message.redelivered(),
            soft: SoftLimit::default(),
            stopped: CancellationToken::new(),
            request: Arc::new(request),
        }
    }

    /// Returns the task's message: arguments, headers, `eta`, expiry, priority, group, chord and stamps.
    #[must_use]
    pub fn message(&self) -> &Message {
        self.request.message()
    }

    /// Returns the value of type `T` that the tasks of the worker share, such as a connection pool; see
    /// [`WorkerBuilder::data`](crate::WorkerBuilder::data).
    ///
    /// # Panics
    /// Panics if the worker has no such value, which fails the task.
    #[must_use]
    pub fn data<T: Send + Sync + 'static>(&self) -> &T {
        self.request.data.get()
    }

    /// Adds a shared value to the context of a unit test.
    ///
    /// # Panics
    /// Panics if the context was cloned or belongs to a worker.
    #[must_use]
    pub fn with_data<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        let request = Arc::get_mut(&mut self.request).expect("the context of a test is not shared yet");
        Arc::get_mut(&mut request.data)
            .expect("the context belongs to a test")
            .add(value);
        self
    }

    /// Returns a client that sends tasks on behalf of this one: they get its id as `parent_id`, its root, and
    /// become `children` of its result.
    pub fn client(&self) -> Client {
        let parent = self.request.parent.get_or_init(|| {
            let root = self.root_id.clone().unwrap_or_else(|| self.id.clone());
            Arc::new(Parent::new(self.id.clone(), root))
        });
        self.request.client.on_behalf_of(Arc::clone(parent))
    }

    /// Stores a state of the task, such as `PROGRESS`, and notifies its waiters. Celery's `update_state`.
    ///
    /// # Errors
    /// Returns an error if the broker does not confirm.
    pub async fn update_state(
        &self,
        state: impl Into<Status> + Send,
        value: impl Into<Value> + Send,
    ) -> Result<(), BrokerError> {
        let meta = ResultMeta {
            children: Value::Array(self.request.children()),
            ..ResultMeta::state(&self.message().headers, state.into(), value.into())
        };
        let meta = if self.request.extended {
            meta.extended(self.message(), &self.hostname)
        } else {
            meta
        };
        self.request.client.store(&meta).await
    }

    /// Sends a task whose result becomes a part of the chord that this task belongs to: the body waits for it
    /// too. Celery's `add_to_chord`.
    ///
    /// # Errors
    /// Returns an error if this task is not in the header of a chord, or if the broker does not confirm.
    pub async fn add_to_chord(&self, task: impl Into<Canvas> + Send) -> Result<AsyncResult, ApplyError> {
        let message = self.message();
        let (headers, chord) = (&message.headers, &message.embed.chord);
        let Some(group) = headers.group.as_ref().filter(|_| !chord.is_null()) else {
            return Err(CanvasError::Unsupported("the current task is not a member of any chord").into());
        };
        let mut canvas = task.into();
        let node = &mut canvas.0;
        node.set("group_id", group.as_str());
        node.set("group_index", headers.group_index.clone());
        node.set("chord", chord.clone());
        if let Some(root) = &headers.root_id {
            node.set("root_id", root.as_str());
        }
        let publication = Publication {
            chord_additions: vec![(group.clone(), node.result_count())],
            ..Publication::default()
        };
        self.client().apply_with(canvas, publication).await
    }

    /// Runs blocking code on a thread where it delays no other task.
    ///
    /// Blocking code in the task itself, such as a long computation or a synchronous client, occupies a thread of
    /// the runtime: other tasks wait, and time limits and termination take effect only when the code returns.
    ///
    /// If the task is stopped, the code still runs to its end and its value is discarded. Code that takes long
    /// can check [`is_stopped`](Self::is_stopped).
    ///
    /// # Panics
    /// Panics if the code panics, which fails the task.
    ///
    /// ```
    /// use celeriac::{TaskContext, TaskError};
    ///
    /// async fn count_primes(context: TaskContext, (limit,): (u64,)) -> Result<usize, TaskError> {
    ///     let is_prime = |n: u64| (2..).take_while(|d| d * d <= n).all(|d| n % d != 0);
    ///     let count = context.run_blocking(move |context| {
    ///         (2..limit).take_while(|_| !context.is_stopped()).filter(|n| is_prime(*n)).count()
    ///     });
    ///     Ok(count.await)
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let count = count_primes(TaskContext::for_test("math.count_primes"), (20,)).await;
    /// assert_eq!(count, Ok(8));
    /// # }
    /// ```
    pub async fn run_blocking<R: Send + 'static>(self, code: impl FnOnce(Self) -> R + Send + 'static) -> R {
        #[cfg(feature = "telemetry")]
        let trace = telemetry::Context::current();
        let blocking = tokio::task::spawn_blocking(move || {
            #[cfg(feature = "telemetry")]
            let _attached = trace.attach();
            code(self)
        });
        match blocking.await.map_err(JoinError::try_into_panic) {
            Ok(value) => value,
            Err(Ok(panic)) => resume_unwind(panic),
            // The runtime is shutting down, and drops this future too.
            Err(Err(_)) => future::pending().await,
        }
    }

    /// Returns whether the worker no longer waits for this attempt: the task has returned, was stopped by a time
    /// limit or termination, or another worker has taken over its message.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.is_cancelled()
    }

    /// Resolves when the soft time limit has passed. The task can then clean up before the hard limit.
    ///
    /// A task that never calls this method is stopped at the soft limit with `SoftTimeLimitExceeded`. A task
    /// that has called this method continues until it returns or the hard limit stops it.
    pub fn soft_time_limit(&self) -> impl Future<Output = ()> + Send + 'static {
        self.soft.watched.store(true, Ordering::Release);
        self.soft.passed.clone().cancelled_owned()
    }

    /// Makes the soft time limit pass now, for unit tests of a task.
    pub fn pass_soft_time_limit(&self) {
        self.soft.pass();
    }
}

/// Soft time limit of one attempt, which the task watches and the worker signals.
#[derive(Debug, Clone, Default)]
pub(crate) struct SoftLimit {
    watched: Arc<AtomicBool>,
    passed: CancellationToken,
}

impl SoftLimit {
    /// Notifies the task that the limit has passed. Returns whether the task watches the limit.
    pub(crate) fn pass(&self) -> bool {
        self.passed.cancel();
        self.watched.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_context_for_tests_shows_the_message_and_keeps_what_the_task_does() {
        let signature = Signature::new("import")
            .id("parent")
            .arg(1)
            .kwarg("a", 2)
            .priority(4);
        let context = TaskContext::for_test(signature);
        let message = context.message();
        assert_eq!(
            (&message.args, &message.kwargs["a"]),
            (&vec![json!(1)], &json!(2))
        );
        assert_eq!(message.properties.priority, 4);
        context
            .update_state("PROGRESS", json!({"done": 1}))
            .await
            .unwrap();
        let client = context.client();
        let state = client.result("parent").await.unwrap().unwrap();
        assert_eq!(
            (state.status.as_str(), state.result),
            ("PROGRESS", json!({"done": 1}))
        );
        let sent = client.send(Signature::new("page")).await.unwrap();
        assert_eq!(context.request.children(), [json!([[sent, null], null])]);
        let broker = context.client().broker();
        let heads = broker.heads("celery").await.unwrap();
        let headers = Message::decode(&heads[0]).unwrap().headers;
        assert_eq!(headers.parent_id.as_deref(), Some("parent"));
        assert_eq!(headers.root_id.as_deref(), Some("parent"));
    }
}
