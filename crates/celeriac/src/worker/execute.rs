//! Executes one task: decides whether it may run, runs it within its limits, and reports the outcome. A panic
//! in a task's code does not affect other tasks or the worker.

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{self, join},
};
use serde_json::{Map, Value};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    builtin::{self, NoValue},
    events,
    follow::{self, FollowUps},
    inflight::Entry,
    registry::{Code, Registered},
    revoked::Interruption,
    settle::{self, FinishedRun, Next},
    shared::Shared,
};
use crate::{
    broker::Delivery,
    context::{RawMessage, Request, SoftLimit, TaskContext},
    exception::Exception,
    failure_log::FailureLog,
    json,
    log::{debug, error, warn},
    message::{Headers, MAX_RETRIES, Message, TimeLimit, seconds},
    observer::{TaskInfo, observed},
    result::ResultMeta,
    retry::{self, Retry},
    system,
    task::TaskOutcome,
    task_error::TaskError,
};

/// Executes the task of a delivery.
///
/// `slot` is released when the task's code has finished, before the outcome is reported, so the next task can
/// run in the meantime, and the acknowledgements of many tasks are sent together. A task that must not run
/// needs no slot.
pub(super) async fn execute(
    shared: &Arc<Shared>,
    entry: &Arc<Entry>,
    mut message: Box<Message>,
    slot: Option<OwnedSemaphorePermit>,
) {
    let registered = shared.registry.get(&message.headers.task);
    let options = registered.map(|registered| &registered.options);
    let acked_early = options.is_some_and(|options| !options.acks_late);
    // What few tasks need is boxed, here and in `settle`: the future of every task is allocated at its full size.
    if message.redelivered() && Box::pin(settle::skip_finished(shared, entry, &message)).await {
        return;
    }
    if acked_early && !Box::pin(settle::ack_early(shared, entry)).await {
        return;
    }
    let args = std::mem::take(&mut message.args);
    let kwargs = std::mem::take(&mut message.kwargs);
    let headers = &message.headers;
    let attempt = Attempt {
        shared,
        entry,
        message: &message,
        ignore_result: shared.ignore_result
            || headers.ignore_result
            || options.is_some_and(|options| options.ignore_result),
    };
    let work = async {
        let ended = match attempt.decide(registered) {
            Ok(registered) => attempt.run(registered, args, kwargs).await,
            Err(outcome) => Some(outcome.into()),
        };
        // Logged within the run's span, which adds the trace id to the log line.
        let logged = options
            .filter(|options| options.log_arguments)
            .map(|_| &entry.delivery);
        log(headers, logged, ended.as_ref());
        let replaced = ended
            .as_ref()
            .is_some_and(|ended| matches!(ended.next, Next::Follow(_)));
        let follow_up = replaced || follow::has_follow_up(&message.embed);
        let trace = follow_up.then(|| shared.observer.context());
        (ended, shared.observer.current_span(), trace.unwrap_or_default())
    };
    shared.active.fetch_add(1, Ordering::Relaxed);
    let info = TaskInfo {
        task: &headers.task,
        id: &headers.id,
        queue: &entry.delivery.queue,
        retries: headers.retries,
        hostname: &shared.hostname,
        registered: registered.is_some(),
    };
    let run_span = shared.observer.run(&info, &headers.extra);
    // Dropped before the task is settled, whose future then takes its place.
    let (ended, span, trace) = {
        let work = pin!(work);
        observed(work, |poll| run_span.in_scope(poll)).await
    };
    if let Some(ended) = &ended {
        run_span.finish(&ended.outcome);
    }
    shared.active.fetch_sub(1, Ordering::Relaxed);
    shared.processed.fetch_add(1, Ordering::Relaxed);
    drop(slot);
    let Some(ended) = ended else { return };
    let Ended {
        outcome,
        next,
        reason,
        children,
    } = ended;
    if !entry.begin_settling() {
        let (task, task_id) = (&headers.task, headers.id.as_str());
        warn!(
            celery.task_name = task,
            messaging.message.id = task_id,
            "discarded the result of a task that another worker has taken over"
        );
        return;
    }

    let runtime = entry
        .started_at()
        .map_or(0.0, |began| system::unix_time() - began);
    events::ended(shared, &headers.id, &outcome, runtime, entry.orders.signal());
    let run = Box::new(FinishedRun {
        outcome,
        next,
        reason,
        children,
        ignore_result: attempt.ignore_result,
        acked_early,
        trace,
        span,
    });
    settle::settle(shared, &entry.delivery, &message, run).await;
}

/// An attempt that has ended.
struct Ended {
    outcome: TaskOutcome,
    next: Next,
    /// Reason that the task gave for rejecting its message.
    reason: String,
    /// Results of the tasks that the task has sent, in Celery's format.
    children: Vec<Value>,
}

impl From<TaskOutcome> for Ended {
    fn from(outcome: TaskOutcome) -> Self {
        Self {
            outcome,
            next: Next::Nothing,
            reason: String::new(),
            children: Vec::new(),
        }
    }
}

impl RawMessage for Entry {
    fn raw(&self) -> &[u8] {
        &self.delivery.raw
    }
}

/// One attempt at a task.
struct Attempt<'a> {
    shared: &'a Shared,
    entry: &'a Arc<Entry>,
    /// The message, without its arguments.
    message: &'a Message,
    ignore_result: bool,
}

impl Attempt<'_> {
    /// Returns the code to run, or the outcome of a task that must not run.
    fn decide<'r>(&self, registered: Option<&'r Registered>) -> Result<&'r Registered, TaskOutcome> {
        let headers = &self.message.headers;
        if self.shared.revoked.contains(headers) {
            return Err(TaskOutcome::Revoked("revoked"));
        }
        if headers.expires.is_some_and(|expires| expires < system::now()) {
            return Err(TaskOutcome::Revoked("expired"));
        }
        registered.ok_or_else(|| self.not_registered())
    }

    /// Runs the task. Returns `None` if it was cancelled because another worker has taken over its delivery.
    async fn run(
        &self,
        registered: &Registered,
        args: Vec<Value>,
        kwargs: Map<String, Value>,
    ) -> Option<Ended> {
        let headers = &self.message.headers;
        registered.limits.total.fetch_add(1, Ordering::Relaxed);
        events::emit(self.shared, "task-started", &headers.id, []);
        let context = self.context();
        let (soft, request) = (context.soft.clone(), Arc::clone(&context.request));
        let _stopped = context.stopped.clone().drop_guard();
        let defaults = registered.limits.time_limit();
        let limits = TimeLimit {
            hard: headers.timelimit.hard.or(defaults.hard),
            soft: headers.timelimit.soft.or(defaults.soft),
        };
        // Arguments are deserialised inside the future, so a panic in a `Deserialize` implementation is
        // caught too.
        let call = async {
            match &registered.code {
                Code::User(handler) => {
                    let call = registered.call(handler, context, args, kwargs);
                    Ok(call.map_err(TaskError::Failed)?.await?)
                }
                Code::Builtin(builtin) => {
                    Box::pin(builtin::run(self.shared, *builtin, context, args, kwargs)).await
                }
            }
        };
        let call = pin!(AssertUnwindSafe(call).catch_unwind());
        let run = self.within(limits, soft, registered.options.cancel_when_lost, call);
        let ended = if registered.options.track_started && !self.ignore_result {
            join(run, Box::pin(self.store_started())).await.0
        } else {
            run.await
        };
        let mut ended = match ended {
            Err(None) => return None,
            Err(Some(outcome)) => outcome.into(),
            Ok(Ok(value)) => TaskOutcome::Success(value).into(),
            Ok(Err(NoValue::Error(error))) => self.failed(registered, error),
            Ok(Err(NoValue::ChordBody { body, values })) => Ended {
                next: Next::Follow(Box::new(FollowUps::ChordBody { body, values })),
                ..TaskOutcome::Ignored.into()
            },
        };
        ended.children = request.children();
        Some(ended)
    }

    fn failed(&self, registered: &Registered, error: TaskError) -> Ended {
        match error {
            TaskError::Failed(exception) => TaskOutcome::Failure(exception).into(),
            TaskError::Retry(retry) => self.retry(registered, retry),
            TaskError::Ignore => TaskOutcome::Ignored.into(),
            TaskError::Reject { requeue, reason } => Ended {
                reason,
                ..TaskOutcome::Rejected { requeue }.into()
            },
            TaskError::Replace(canvas) => match follow::replacement(self.shared, self.message, canvas.0) {
                Ok(publication) => Ended {
                    next: Next::Follow(Box::new(FollowUps::Replacement(publication))),
                    ..TaskOutcome::Ignored.into()
                },
                Err(error) => {
                    let exception = Exception::new("ImproperlyConfigured", error.to_string());
                    TaskOutcome::Failure(exception.module("celery.exceptions")).into()
                }
            },
        }
    }

    fn retry(&self, registered: &Registered, retry: Box<Retry>) -> Ended {
        let (options, retries) = (&registered.options, self.message.headers.retries);
        let requested = self.message.properties.extra.get(MAX_RETRIES);
        if !retry::is_allowed(retries, options.max_retries, requested, retry.max_retries) {
            return TaskOutcome::Failure(retry.cause).into();
        }
        let countdown = match retry.eta {
            Some(eta) => Duration::try_from(eta.duration_since(system::now())).unwrap_or_default(),
            None => retry
                .countdown
                .unwrap_or_else(|| options.retry_delay.after(retries)),
        };
        let cause = retry.cause.clone();
        Ended {
            next: Next::Retry(retry),
            ..TaskOutcome::Retry { cause, countdown }.into()
        }
    }

    fn context(&self) -> TaskContext {
        let raw: Arc<dyn RawMessage> = Arc::clone(self.entry) as _;
        let (client, data) = (self.shared.client.clone(), Arc::clone(&self.shared.data));
        let request = Request::new(raw, client, self.shared.result_extended, data);
        let queue = &self.entry.delivery.queue;
        TaskContext::new(self.message, &self.shared.hostname, queue, request)
    }

    async fn store_started(&self) {
        let meta = ResultMeta::started(&self.message.headers, system::process_id(), &self.shared.hostname);
        let meta = settle::extended(self.shared, &self.entry.delivery, meta);
        if let Err(error) = self.shared.broker.store_result(&meta).await {
            // Not retried: the final state replaces `STARTED`, and storing the final state is retried.
            FailureLog::new("storing STARTED").failed(&error);
        }
    }

    /// Polls `call` until it ends, a time limit passes, the task is terminated or, if `cancel_when_lost`,
    /// another worker takes over its delivery.
    ///
    /// Returns `Err` if the call panicked or was stopped before it ended, with the outcome unless the
    /// delivery is lost.
    async fn within(
        &self,
        limits: TimeLimit,
        soft: SoftLimit,
        cancel_when_lost: bool,
        mut call: Pin<&mut impl Future<Output = Result<Result<Value, NoValue>, Box<dyn Any + Send>>>>,
    ) -> Result<Result<Value, NoValue>, Option<TaskOutcome>> {
        let mut at_soft = pin!(after(limits.soft));
        let mut at_hard = pin!(after(limits.hard));
        let mut soft_passed = false;
        loop {
            tokio::select! {
                biased;
                ended = &mut call => return ended.map_err(|panic| Some(panicked(panic.as_ref()))),
                interruption = self.entry.orders.while_running(cancel_when_lost) => {
                    let is_lost = interruption == Interruption::Lost;
                    return Err((!is_lost).then_some(TaskOutcome::Revoked("terminated")));
                }
                limit = &mut at_hard => {
                    return Err(Some(limit_exceeded("TimeLimitExceeded", vec![seconds(limit)])));
                }
                _ = &mut at_soft, if !soft_passed => {
                    soft_passed = true;
                    if !soft.pass() {
                        return Err(Some(limit_exceeded("SoftTimeLimitExceeded", Vec::new())));
                    }
                }
            }
        }
    }

    fn not_registered(&self) -> TaskOutcome {
        let headers = &self.message.headers;
        // The arguments are omitted, because they may contain personal data.
        error!(
            celery.task_name = headers.task,
            messaging.message.id = headers.id.as_str(),
            messaging.destination.name = self.entry.delivery.queue,
            celery.retries = headers.retries,
            celery.eta = ?headers.eta,
            celery.expires = ?headers.expires,
            celery.parent_id = headers.parent_id.as_deref(),
            celery.root_id = headers.root_id.as_deref(),
            celery.origin = headers.origin,
            messaging.message.envelope.size = self.entry.delivery.raw.len(),
            "received a task that is not registered"
        );
        let exception = Exception::new("NotRegistered", headers.task.clone()).module("celery.exceptions");
        TaskOutcome::Aborted(exception)
    }
}

/// Logs the end of a run, except a retry, which is logged when it has been sent. The record of a failure contains the
/// arguments of `delivery`.
fn log(headers: &Headers, delivery: Option<&Delivery>, ended: Option<&Ended>) {
    let (task, task_id, retries) = (&headers.task, headers.id.as_str(), headers.retries);
    let Some(ended) = ended else {
        warn!(
            celery.task_name = task,
            messaging.message.id = task_id,
            celery.retries = retries,
            "cancelled a task that another worker has taken over"
        );
        return;
    };
    match &ended.outcome {
        TaskOutcome::Success(_) => debug!(
            celery.task_name = task,
            messaging.message.id = task_id,
            celery.retries = retries,
            "task succeeded"
        ),
        TaskOutcome::Retry { .. } => {}
        TaskOutcome::Failure(exception) | TaskOutcome::Aborted(exception) => {
            let (error, cause) = (&exception.type_name, &exception.message);
            // Decoded again, because the run has consumed the arguments.
            let message = delivery.and_then(|delivery| delivery.message().ok());
            let args = message.as_ref().map(|message| json::to_string(&message.args));
            let kwargs = message.filter(|message| !message.kwargs.is_empty());
            let kwargs = kwargs.map(|message| json::to_string(&message.kwargs));
            error!(
                celery.task_name = task,
                messaging.message.id = task_id,
                celery.task_args = args,
                celery.task_kwargs = kwargs,
                celery.retries = retries,
                error.type = error,
                exception.type = error,
                exception.message = cause,
                "task failed"
            );
        }
        TaskOutcome::Revoked(reason) => warn!(
            celery.task_name = task,
            messaging.message.id = task_id,
            celery.retries = retries,
            reason,
            "task was revoked"
        ),
        TaskOutcome::Ignored => debug!(
            celery.task_name = task,
            messaging.message.id = task_id,
            celery.retries = retries,
            "task ended without a result"
        ),
        TaskOutcome::Rejected { requeue } => {
            let reason = &ended.reason;
            warn!(
                celery.task_name = task,
                messaging.message.id = task_id,
                celery.retries = retries,
                celery.requeue = requeue,
                reason,
                "task rejected its message"
            );
        }
    }
}

/// Resolves when the limit has passed, or never without a limit.
async fn after(limit: Option<Duration>) -> Duration {
    match limit {
        Some(limit) => {
            Box::pin(tokio::time::sleep(limit)).await;
            limit
        }
        None => future::pending().await,
    }
}

fn limit_exceeded(type_name: &str, arguments: Vec<Value>) -> TaskOutcome {
    let exception = Exception::new(type_name, "").module("billiard.exceptions");
    TaskOutcome::Aborted(exception.args(arguments))
}

/// Returns the failure of a task that panicked, with the panic's message if it is a string literal.
///
/// A formatted message may contain any value that the task handles, and more people can read results and logs
/// than the task's data.
fn panicked(panic: &(dyn Any + Send)) -> TaskOutcome {
    let text = panic
        .downcast_ref::<&'static str>()
        .copied()
        .unwrap_or("message withheld because it may contain sensitive values");
    TaskOutcome::Failure(Exception::new("Panic", text).module("celeriac"))
}
