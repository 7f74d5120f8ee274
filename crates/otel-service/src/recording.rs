//! The spans of this crate. They implement the API's `Span` and are what the SDK's are, but each attribute is masked and
//! written as the bytes that it will be in a request when it is set: text is borrowed, nothing is copied into a structure
//! first, and what is the same in every span of a kind is written once. The SDK's own tracer serves whoever asks the
//! global provider for one; both go through the same queue, sampler and limits.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use opentelemetry::trace::{Event, Link, Span, SpanContext, SpanId, SpanKind, Status, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SpanLimits};

use crate::context;
use crate::export::{Attributes, Batch, Ended, Fixed, Queue, Recorded, Tidy};
use crate::sampler::QuietSampler;

/// How many spans that have ended a thread keeps the memory of, for the next ones.
const KEPT_SPARE: usize = 32;

thread_local! {
    #[expect(clippy::vec_box, reason = "a box is handed on as it is, and what is in it stays where it is")]
    static SPARE: RefCell<Vec<Box<Live>>> = const { RefCell::new(Vec::new()) };
}

/// What makes spans. A process has one.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// Without one there are still ids, for logs, answers and whoever is called.
    pub(crate) queue: Option<Arc<Queue<Batch>>>,
    pub(crate) tidy: Tidy,
    pub(crate) limits: SpanLimits,
    pub(crate) sampler: QuietSampler,
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
        let is_sampled = self.sampler.samples(parent, trace_id, &name, &kind, links);
        let context = SpanContext::new(
            trace_id,
            ids.new_span_id(),
            above.trace_flags().with_sampled(is_sampled),
            false,
            above.trace_state().clone(),
        );
        let queue = self.queue.as_deref().filter(|_| is_sampled);
        let live = queue.map(|queue| {
            let mut live = Live::spare(self, queue);
            live.parent = parent_id;
            live.parent_is_remote = above.is_remote();
            live.name = name;
            live.kind = kind;
            live.start = since.unwrap_or_else(SystemTime::now);
            describe(&mut live.recorded.attributes);
            links.iter().for_each(|link| live.recorded.link(link));
            live
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
    live: Option<Box<Live>>,
}

/// What is recorded of a span. It stays where it is while the span is handed on, and when the span has ended the next one
/// is recorded there: memory that was just used is in the processor's cache.
#[derive(Debug)]
struct Live {
    queue: &'static Queue<Batch>,
    parent: SpanId,
    parent_is_remote: bool,
    name: Cow<'static, str>,
    kind: SpanKind,
    start: SystemTime,
    recorded: Recorded,
    status: Status,
}

impl Live {
    /// Nothing yet, in memory that this thread has kept, or in new memory.
    fn spare(recorder: &'static Recorder, queue: &'static Queue<Batch>) -> Box<Self> {
        // At the end of a thread there may be none left. What was kept is of the same recorder: a process has one.
        let kept = SPARE.try_with(|spare| spare.borrow_mut().pop());
        kept.ok().flatten().unwrap_or_else(|| {
            Box::new(Self {
                queue,
                parent: SpanId::INVALID,
                parent_is_remote: false,
                name: Cow::Borrowed(""),
                kind: SpanKind::Internal,
                start: SystemTime::UNIX_EPOCH,
                recorded: Recorded::new(recorder.tidy, &recorder.limits),
                status: Status::Unset,
            })
        })
    }

    /// Keeps the memory for the next span that this thread starts.
    fn give_back(mut self: Box<Self>) {
        self.name = Cow::Borrowed("");
        self.status = Status::Unset;
        self.recorded.clear();
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < KEPT_SPARE {
                spare.push(self);
            }
        });
    }
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
        let Some(mut live) = self.live.take() else { return };
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
            recorded: &mut live.recorded,
            status: &live.status,
        };
        ended.push(live.queue, None);
        live.give_back();
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

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1;
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::trace::Sampler;
    use prost::Message;

    use super::*;
    use crate::export::Frame;

    const TIDY: Tidy = Tidy {
        masking: true,
        value_limit: None,
    };

    fn recorder() -> &'static Recorder {
        Box::leak(Box::new(Recorder {
            queue: Some(Arc::new(Queue::new(1_000, 1_000))),
            tidy: TIDY,
            limits: SpanLimits::default(),
            sampler: QuietSampler {
                inner: Sampler::AlwaysOn,
            },
        }))
    }

    fn start(recorder: &'static Recorder, name: &'static str) -> Recording {
        let beginning = Beginning::new(name, SpanKind::Internal);
        recorder.start(&Context::new(), beginning, |into| into.number("number", 7))
    }

    fn full(recorder: &'static Recorder) -> Recording {
        let mut span = start(recorder, "full");
        let noise = || vec![KeyValue::new("noise", "x".repeat(10_000))];
        span.set_attribute(noise().remove(0));
        span.add_event("event", noise());
        span.add_link(span.context.clone(), noise());
        span.update_name("of its own".to_owned());
        span.set_status(Status::error("failed"));
        span
    }

    fn received(recorder: &Recorder) -> Vec<v1::Span> {
        let queue = recorder.queue.as_ref().unwrap();
        let frame = Frame::new(&Resource::builder_empty().build(), TIDY);
        let request = frame.request(queue.take().unwrap(), queue);
        let mut request = ExportTraceServiceRequest::decode(request).unwrap();
        request.resource_spans.remove(0).scope_spans.remove(0).spans
    }

    #[test]
    fn a_span_has_nothing_of_one_that_was_recorded_in_the_same_memory() {
        let recorder = recorder();
        start(recorder, "plain").end();
        full(recorder).end();
        start(recorder, "plain").end();
        let mut spans = received(recorder);
        assert_eq!(spans[1].name, "of its own");
        assert_eq!((spans[1].events.len(), spans[1].links.len()), (1, 1));
        let mut last = spans.remove(2);
        let first = &spans[0];
        assert_ne!(last.span_id, first.span_id);
        for (of_last, of_first) in [
            (&mut last.trace_id, &first.trace_id),
            (&mut last.span_id, &first.span_id),
        ] {
            of_last.clone_from(of_first);
        }
        (last.start_time_unix_nano, last.end_time_unix_nano) =
            (first.start_time_unix_nano, first.end_time_unix_nano);
        assert_eq!(last, *first);
    }

    #[test]
    fn a_thread_keeps_the_memory_of_a_few_spans() {
        let recorder = recorder();
        for _ in 0..2 {
            let spans: Vec<Recording> = (0..2 * KEPT_SPARE).map(|_| full(recorder)).collect();
            drop(spans);
            assert_eq!(SPARE.with_borrow(Vec::len), KEPT_SPARE);
        }
        assert_eq!(received(recorder).len(), 4 * KEPT_SPARE);
    }
}
