//! The spans of this crate. They implement the API's `Span` and are what the SDK's are, but each attribute is masked and
//! written as the bytes that it will be in a request when it is set: text is borrowed, nothing is copied into a structure
//! first, and what is the same in every span of a kind is written once. The SDK's own tracer serves whoever asks the
//! global provider for one; both go through the same queue, sampler and limits.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use opentelemetry::trace::{Event, Link, Span, SpanContext, SpanId, SpanKind, Status, TraceContextExt};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SamplingDecision, ShouldSample, SpanLimits};

use crate::context;
use crate::export::{Attributes, Batch, Ended, Fixed, Queue, Recorded, Tidy};
use crate::sampler::QuietSampler;

/// What makes spans.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// Without one there are still ids, for logs, answers and whoever is called.
    pub(crate) queue: Option<Arc<Queue<Batch>>>,
    pub(crate) tidy: Tidy,
    pub(crate) limits: SpanLimits,
    pub(crate) sampler: QuietSampler,
    pub(crate) scope: InstrumentationScope,
}

/// How a span begins.
#[derive(Debug)]
pub(crate) struct Beginning<'a> {
    pub(crate) name: Cow<'static, str>,
    pub(crate) kind: SpanKind,
    pub(crate) links: &'a [Link],
    /// Now, when there is none.
    pub(crate) since: Option<SystemTime>,
}

impl Beginning<'_> {
    pub(crate) fn new(name: impl Into<Cow<'static, str>>, kind: SpanKind) -> Self {
        Self {
            name: name.into(),
            kind,
            links: &[],
            since: None,
        }
    }
}

impl Recorder {
    /// Starts a span below `parent`, which is no quiet context; `describe` writes its attributes, when it is recorded.
    pub(crate) fn start(
        &'static self,
        parent: &Context,
        beginning: Beginning<'_>,
        describe: impl FnOnce(&mut Attributes),
    ) -> Recording {
        if parent.is_telemetry_suppressed() {
            return Recording {
                context: SpanContext::empty_context(),
                live: None,
            };
        }
        let Beginning {
            name,
            kind,
            links,
            since,
        } = beginning;
        let ids = RandomIdGenerator::default();
        let above = parent.span();
        let above = above.span_context();
        let (trace_id, parent_id) = if above.is_valid() {
            (above.trace_id(), above.span_id())
        } else {
            (ids.new_trace_id(), SpanId::INVALID)
        };
        let sampled = self
            .sampler
            .inner
            .should_sample(Some(parent), trace_id, &name, &kind, &[], links);
        let is_sampled = sampled.decision == SamplingDecision::RecordAndSample;
        let context = SpanContext::new(
            trace_id,
            ids.new_span_id(),
            above.trace_flags().with_sampled(is_sampled),
            false,
            sampled.trace_state,
        );
        let queue = self.queue.as_deref().filter(|_| is_sampled);
        let live = queue.map(|queue| {
            let mut recorded = Recorded::new(self.tidy, &self.limits);
            describe(&mut recorded.attributes);
            sampled
                .attributes
                .iter()
                .for_each(|attribute| recorded.attributes.set(attribute));
            links.iter().for_each(|link| recorded.link(link));
            Live {
                queue,
                scope: &self.scope,
                parent: parent_id,
                parent_is_remote: above.is_remote(),
                name,
                kind,
                start: since.unwrap_or_else(SystemTime::now),
                recorded,
                status: Status::Unset,
            }
        });
        Recording { context, live }
    }

    /// Attributes for many spans, to begin theirs with.
    pub(crate) fn fixed(&'static self, describe: impl FnOnce(&mut Attributes)) -> &'static Fixed {
        let mut recorded = Recorded::new(self.tidy, &self.limits);
        describe(&mut recorded.attributes);
        recorded.attributes.into_fixed()
    }
}

/// What is always said on spans of one kind, written when the first of them starts.
#[derive(Debug, Default)]
pub(crate) struct KnownAttributes(OnceLock<&'static Fixed>);

impl KnownAttributes {
    /// Begins with what `describe` says.
    pub(crate) fn begin(&self, into: &mut Attributes, describe: impl FnOnce(&mut Attributes)) {
        match context::recorder() {
            Some(recorder) => into.begin_with(self.0.get_or_init(|| recorder.fixed(describe))),
            None => describe(into),
        }
    }
}

/// A span, until it ends or is dropped.
#[derive(Debug)]
pub(crate) struct Recording {
    context: SpanContext,
    /// Gone when the span has ended; not there in one that is not recorded.
    live: Option<Live>,
}

#[derive(Debug)]
struct Live {
    queue: &'static Queue<Batch>,
    scope: &'static InstrumentationScope,
    parent: SpanId,
    parent_is_remote: bool,
    name: Cow<'static, str>,
    kind: SpanKind,
    start: SystemTime,
    recorded: Recorded,
    status: Status,
}

impl Span for Recording {
    fn add_event_with_timestamp<T>(&mut self, name: T, timestamp: SystemTime, attributes: Vec<KeyValue>)
    where
        T: Into<Cow<'static, str>>,
    {
        if let Some(live) = &mut self.live {
            live.recorded.event(&Event::new(name, timestamp, attributes, 0));
        }
    }

    fn span_context(&self) -> &SpanContext {
        &self.context
    }

    fn is_recording(&self) -> bool {
        self.live.is_some()
    }

    fn set_attribute(&mut self, attribute: KeyValue) {
        if let Some(live) = &mut self.live {
            live.recorded.attributes.set(&attribute);
        }
    }

    /// Ok goes before Error, and that before Unset.
    fn set_status(&mut self, status: Status) {
        if let Some(live) = &mut self.live
            && status > live.status
        {
            live.status = status;
        }
    }

    fn update_name<T>(&mut self, name: T)
    where
        T: Into<Cow<'static, str>>,
    {
        if let Some(live) = &mut self.live {
            live.name = name.into();
        }
    }

    fn add_link(&mut self, context: SpanContext, attributes: Vec<KeyValue>) {
        if let Some(live) = &mut self.live {
            live.recorded.link(&Link::new(context, attributes, 0));
        }
    }

    fn end_with_timestamp(&mut self, end: SystemTime) {
        // Not taken out: it is large.
        if let Some(live) = &self.live {
            let name = match &live.name {
                // The program's author wrote it.
                Cow::Borrowed(name) => Cow::Borrowed(*name),
                Cow::Owned(name) => live.recorded.masked(name),
            };
            let ended = Ended {
                context: &self.context,
                parent: live.parent,
                parent_is_remote: live.parent_is_remote,
                name,
                kind: &live.kind,
                start: live.start,
                end,
                recorded: &live.recorded,
                status: &live.status,
            };
            ended.push(live.queue, live.scope);
            self.live = None;
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // Nearly every span has ended by then: ending it once more would read the clock for nothing.
        if self.live.is_some() {
            self.end();
        }
    }
}
