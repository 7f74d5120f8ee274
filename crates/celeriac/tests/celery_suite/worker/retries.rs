//! Tasks that are retried, or whose messages are delivered again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use celeriac::{Exception, Retry, RetryDelay, Status, TaskContext, TaskError, Timestamp, WorkerBuilder};
use serde_json::{Map, Value};

use crate::{Returned, exception_of_module, name, options, values::is_true};

pub(crate) fn register(worker: WorkerBuilder) -> WorkerBuilder {
    let second = RetryDelay::Fixed(Duration::from_secs(1));
    let once = || options().extra_kwargs(true).max_retries(1);
    let attempt = Arc::new(AtomicU32::new(0));
    worker
        .task(
            name("retry"),
            options().parameters(&["return_value"]).retry_delay(second),
            move |_: TaskContext, (return_value,): (Value,)| retry(Arc::clone(&attempt), return_value),
        )
        .task(
            name("retry_unpickleable"),
            options()
                .parameters(&["foo", "bar", "retry_kwargs"])
                .retry_delay(second),
            retry_unpickleable,
        )
        .task(name("retry_once"), once(), retry_once)
        .task(name("retry_once_priority"), once(), retry_once_priority)
        .task(name("retry_once_headers"), once(), retry_once_headers)
        .task(
            "auto_retry_class_task",
            options().max_retries(1).retry_delay(RetryDelay::BACKOFF),
            auto_retry_class_task,
        )
        .task(
            name("store_success_then_reject"),
            options().acks_late(true),
            store_success_then_reject,
        )
        .task(
            name("reject_then_succeed"),
            options().acks_late(true),
            reject_then_succeed,
        )
}

/// Retries, or returns `return_value` at the fourth attempt. As in the suite, all calls share one count of attempts.
async fn retry(attempts: Arc<AtomicU32>, return_value: Value) -> Returned {
    if is_true(&return_value) {
        if attempts.load(Ordering::Relaxed) >= 3 {
            attempts.store(0, Ordering::Relaxed);
            return Ok(return_value);
        }
        attempts.fetch_add(1, Ordering::Relaxed);
    }
    let cause = exception_of_module("ExpectedException", Vec::new());
    Err(Retry::new(cause).countdown(Duration::from_secs(5)))?
}

async fn retry_unpickleable(
    _: TaskContext,
    (message, _, retry_kwargs): (Value, Value, Map<String, Value>),
) -> Returned {
    let cause = exception_of_module("UnpickleableException", vec![message]);
    Err(with_options(Retry::new(cause), &retry_kwargs))?
}

/// Sets the options of `Task.retry` that are among the keyword arguments.
fn with_options(mut retry: Retry, kwargs: &Map<String, Value>) -> Retry {
    if let Some(countdown) = kwargs.get("countdown").and_then(Value::as_f64) {
        retry = retry.countdown(Duration::from_secs_f64(countdown));
    }
    let expires = kwargs
        .get("expires")
        .and_then(Value::as_f64)
        .map(Duration::from_secs_f64);
    if let Some(Ok(expires)) = expires.map(|expires| Timestamp::try_from(SystemTime::now() + expires)) {
        retry = retry.expires(expires);
    }
    if let Some(maximum) = kwargs.get("max_retries") {
        retry = retry.max_retries(maximum.as_u64().and_then(|maximum| maximum.try_into().ok()));
    }
    retry
}

/// Returns a retry after 0.1 seconds, unless the keyword arguments of the task set other options.
fn soon(context: &TaskContext) -> TaskError {
    let cause = Exception::new("Retry", "").module("celery.exceptions");
    let retry = Retry::new(cause)
        .countdown(Duration::from_millis(100))
        .max_retries(1);
    with_options(retry, &context.message().kwargs).into()
}

async fn retry_once(context: TaskContext, _: Vec<Value>) -> Returned<u32> {
    match context.retries {
        0 => Err(soon(&context)),
        retries => Ok(retries),
    }
}

async fn retry_once_priority(context: TaskContext, _: Vec<Value>) -> Returned<u8> {
    match context.retries {
        0 => Err(soon(&context)),
        _ => Ok(context.message().properties.priority),
    }
}

async fn retry_once_headers(context: TaskContext, _: Vec<Value>) -> Returned<Map<String, Value>> {
    match context.retries {
        0 => Err(soon(&context)),
        _ => Ok(context.message().headers.extra.clone()),
    }
}

async fn auto_retry_class_task(context: TaskContext, (): ()) -> Returned<u32> {
    match context.retries {
        0 => Err(TaskError::retry(Exception::new("ValueError", "").args([]))),
        retries => Ok(retries),
    }
}

async fn store_success_then_reject(context: TaskContext, (): ()) -> Returned<&'static str> {
    if context.redelivered {
        return Ok("dedup-pass");
    }
    context.update_state(Status::Success, "first-pass").await?;
    Err(rejected())
}

async fn reject_then_succeed(context: TaskContext, (): ()) -> Returned<&'static str> {
    if context.redelivered {
        return Ok("second-pass");
    }
    Err(rejected())
}

fn rejected() -> TaskError {
    TaskError::Reject {
        requeue: true,
        reason: String::new(),
    }
}
