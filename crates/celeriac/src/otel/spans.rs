//! Spans of tasks: `celery.send_task` in the sender and `celery.run` in the worker. A send that is dropped
//! before it is finished is recorded as cancelled; a run that is dropped ends its span without metrics.

use std::borrow::Cow;
use std::sync::Arc;

use telemetry::instrumentation::{
    Attributes, Operation, SpanStart, Stopwatch, link_to, record_exception, record_failure, record_unfinished,
};
use telemetry::opentelemetry::trace::{SpanKind, TraceContextExt as _};
use telemetry::{Context, Failure, KeyValue};

use super::instruments::{CELERIAC, CachedTask, Node, SYSTEM, instruments};
use super::names::{attribute, span};
use crate::{
    broker::BrokerError,
    observer::{RunSpan, SendInfo, SendSpan, SpanHandle, TaskInfo},
    task::TaskOutcome,
};

/// A message being sent to the broker.
pub(super) struct Sending {
    /// Context of the span. The message carries its headers, and broker commands become children of it.
    pub(super) cx: Context,
    queue: String,
    node: Arc<Node>,
    stopwatch: Stopwatch,
    finished: bool,
}

impl Sending {
    /// Starts a producer span. Its parent is `carried`, or the current span if `carried` has no span.
    pub(super) fn start(send: &SendInfo<'_>, node: &Arc<Node>, carried: &Context) -> Self {
        let stopwatch = Stopwatch::start();
        let start = |parent: &Context| {
            let start = SpanStart::new(span::CELERY_SEND_TASK, SpanKind::Producer).time(stopwatch.time());
            CELERIAC.start(parent, start, |into| {
                describe(send.task, send.queue, ("send_task", "send"), node, into);
                into.text("messaging.message.id", send.id);
            })
        };
        let cx = if carried.span().span_context().is_valid() {
            start(carried)
        } else {
            Context::map_current(start)
        };
        Self {
            cx,
            queue: send.queue.to_owned(),
            node: Arc::clone(node),
            stopwatch,
            finished: false,
        }
    }

    fn end(&mut self, error_type: Option<Cow<'static, str>>) {
        self.finished = true;
        let elapsed = self.stopwatch.elapsed();
        self.stopwatch.end(&self.cx, elapsed);
        if let Some(instruments) = instruments() {
            let span = self.cx.span();
            let seconds = elapsed.as_secs_f64();
            instruments.sent(&self.node, &self.queue, error_type, seconds, span.span_context());
        }
    }
}

impl SendSpan for Sending {
    fn in_scope(&self, work: &mut dyn FnMut()) {
        within(&self.cx, work);
    }

    fn handle(&self) -> SpanHandle {
        handle(&self.cx)
    }

    fn finish(mut self: Box<Self>, result: Result<(), &BrokerError>) {
        let error_type = result
            .err()
            .and_then(|failure| record_failure(&self.cx, Operation::MessagingSend, failure));
        self.end(error_type);
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if !self.finished {
            let error_type = record_unfinished(&self.cx);
            self.end(Some(error_type));
        }
    }
}

/// A task being run.
pub(super) struct Processing<'a> {
    cx: Context,
    task: TaskInfo<'a>,
    node: &'a Node,
    cached: Option<&'a CachedTask>,
    stopwatch: Stopwatch,
    finished: bool,
}

impl<'a> Processing<'a> {
    /// Starts a consumer span whose parent is `parent`, the creation context of the message. The messaging conventions
    /// also require a link to it.
    pub(super) fn start(task: TaskInfo<'a>, node: &'a Node, parent: &Context) -> Self {
        let stopwatch = Stopwatch::start();
        let cached = node.cache.get(&task);
        let creation = link_to(parent);
        let start = SpanStart::new(span::CELERY_RUN, SpanKind::Consumer)
            .links(creation.as_slice())
            .time(stopwatch.time());
        let cx = CELERIAC.start(parent, start, |into| {
            let describe = |into: &mut Attributes| {
                describe(task.task, task.queue, ("run", "process"), node, into);
                into.text(attribute::CELERY_HOSTNAME, &node.hostname);
            };
            match cached {
                Some(cached) => cached.attributes.write(into, describe),
                None => describe(into),
            }
            into.text("messaging.message.id", task.id);
            into.number(attribute::CELERY_RETRIES, i64::from(task.retries));
        });
        if let Some(instruments) = instruments() {
            instruments.consumed(node, cached, task.queue);
        }
        Self {
            cx,
            task,
            node,
            cached,
            stopwatch,
            finished: false,
        }
    }
}

impl RunSpan for Processing<'_> {
    fn in_scope(&self, work: &mut dyn FnMut()) {
        within(&self.cx, work);
    }

    fn finish(mut self: Box<Self>, outcome: &TaskOutcome) {
        self.finished = true;
        let span = self.cx.span();
        span.set_attribute(KeyValue::new(attribute::CELERY_STATE, outcome.state()));
        if let Some(exception) = outcome.exception() {
            let type_name = exception.type_name.clone().into();
            let message = exception.message.clone();
            record_exception(&self.cx, Operation::MessagingProcess, type_name, message);
        }
        let elapsed = self.stopwatch.elapsed();
        self.stopwatch.end(&self.cx, elapsed);
        if let Some(instruments) = instruments() {
            let seconds = elapsed.as_secs_f64();
            instruments.processed(
                self.node,
                self.cached,
                &self.task,
                outcome,
                seconds,
                span.span_context(),
            );
        }
    }
}

impl Drop for Processing<'_> {
    fn drop(&mut self) {
        if !self.finished {
            // Ended explicitly, because other holders of the context would keep the span open.
            self.cx.span().end();
        }
    }
}

impl Failure for BrokerError {
    fn error_type(&self) -> Option<Cow<'static, str>> {
        Some(Cow::Borrowed(self.kind()))
    }

    fn message(&self) -> String {
        self.to_string()
    }
}

/// Sets the attributes that both spans have in common; `operation` is the operation's name and type.
fn describe(
    task: &str,
    queue: &str,
    operation: (&'static str, &'static str),
    node: &Node,
    into: &mut Attributes,
) {
    into.literal("messaging.system", SYSTEM);
    into.literal("messaging.operation.name", operation.0);
    into.literal("messaging.operation.type", operation.1);
    into.text("messaging.destination.name", queue);
    into.text(attribute::CELERY_TASK_NAME, task);
    node.server.iter().for_each(|attribute| into.set(attribute));
}

/// Runs `work` with `context` as the current context.
pub(super) fn within(context: &Context, work: &mut dyn FnMut()) {
    let _attached = context.clone().attach();
    work();
}

/// Returns a handle to the span of `context`, or an empty handle if there is none.
pub(super) fn handle(context: &Context) -> SpanHandle {
    if context.span().span_context().is_valid() {
        SpanHandle::of_context(context.clone())
    } else {
        SpanHandle::default()
    }
}
