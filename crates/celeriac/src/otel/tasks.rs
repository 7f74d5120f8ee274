//! The start of task spans: `celery.send_task` in the sender and `celery.run` in the worker.

use telemetry::Context;
use telemetry::instrumentation::{Attributes, SpanStart, Stopwatch};
use telemetry::opentelemetry::trace::SpanKind;

use super::cache::TaskCache;
use super::instruments::instruments;
use super::message::{CELERIAC, SYSTEM, TaskMessage};
use super::names::{attribute, span};
use super::spans::{Processing, Sending};

/// Starts `celery.send_task`, a producer span whose parent is `parent` or the current span.
///
/// Write the headers of the context of the returned guard into the message; finish the guard when the broker
/// has replied.
pub(super) fn send(message: &TaskMessage<'_>, parent: Option<&Context>) -> Sending {
    let start = |parent: &Context| {
        let start = SpanStart::new(span::CELERY_SEND_TASK, SpanKind::Producer);
        CELERIAC.start(parent, start, |into| {
            describe(message, "send_task", "send", into);
            into.text("messaging.message.id", message.id);
        })
    };
    let cx = match parent {
        Some(parent) => start(parent),
        None => Context::map_current(start),
    };
    Sending {
        cx,
        queue: message.queue.to_owned(),
        finished: false,
    }
}

/// Starts `celery.run`, a consumer span whose parent is `parent`, on the worker `hostname`.
///
/// Run the task in the context of the returned guard.
pub(super) fn run<'a>(
    hostname: &str,
    cache: &'a TaskCache,
    message: TaskMessage<'a>,
    retries: u32,
    parent: &Context,
) -> Processing<'a> {
    let stopwatch = Stopwatch::start();
    let cached = cache.get(&message);
    let start = SpanStart::new(span::CELERY_RUN, SpanKind::Consumer).time(stopwatch.time());
    let cx = CELERIAC.start(parent, start, |into| {
        let describe = |into: &mut Attributes| {
            describe(&message, "run", "process", into);
            into.text(attribute::CELERY_HOSTNAME, hostname);
        };
        match cached {
            Some(cached) => cached.attributes.write(into, describe),
            None => describe(into),
        }
        into.text("messaging.message.id", message.id);
        into.number(attribute::CELERY_RETRIES, i64::from(retries));
    });
    if let Some(instruments) = instruments() {
        instruments.consumed(cached, message.queue);
    }
    Processing {
        cx,
        message,
        cached,
        stopwatch,
        finished: false,
    }
}

/// Sets the attributes that both spans have in common.
fn describe(message: &TaskMessage<'_>, operation: &'static str, kind: &'static str, into: &mut Attributes) {
    into.literal("messaging.system", SYSTEM);
    into.literal("messaging.operation.name", operation);
    into.literal("messaging.operation.type", kind);
    into.text("messaging.destination.name", message.queue);
    into.text(attribute::CELERY_TASK_NAME, message.task);
}
