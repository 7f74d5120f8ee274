//! Recording of spans. A [`RecordedSpan`] implements the API's `Span`, but each attribute is redacted and
//! encoded when it is set: text is borrowed, no structure is built first, and attributes that many spans
//! share are encoded once.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::trace::{
    Event, Link, Span, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId,
    Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{
    IdGenerator, RandomIdGenerator, Sampler, SamplingDecision, SdkTracer, SdkTracerProvider, ShouldSample,
    SpanLimits,
};

use crate::component::in_component;
use crate::encode::{Attributes, Batch, EndedSpan, ScopeId, Scopes, SpanContent, size};
use crate::queue::Queue;
use crate::span_counts::{CountingSampler, SpanCounts};
use crate::text::TextRules;

/// Trace flag of W3C Trace Context, level 2: the trace id is random.
pub const RANDOM_TRACE_ID: TraceFlags = TraceFlags::new(0x02);

/// Maximum number of ended spans whose memory a thread keeps for later spans.
const MAX_SPARE_SPANS: usize = 32;

thread_local! {
    #[expect(clippy::vec_box, reason = "the next span reuses the box itself")]
    static SPARE_SPANS: RefCell<Vec<Box<OpenSpan>>> = const { RefCell::new(Vec::new()) };
}

/// Creates the [`Tracer`]s of a pipeline; cheap to clone.
#[derive(Clone, Debug)]
pub struct Recorder(pub(crate) Arc<Shared>);

#[derive(Clone, Debug)]
pub(crate) struct Shared {
    /// `None` if spans are not exported; they still have ids, for logs and propagation.
    pub(crate) queue: Option<Arc<Queue<Batch>>>,
    pub(crate) rules: TextRules,
    pub(crate) limits: SpanLimits,
    pub(crate) sampler: Sampler,
    pub(crate) scopes: Arc<Scopes>,
    /// SDK provider that creates the spans instead of the recorder.
    pub(crate) provider: Option<SdkTracerProvider>,
    /// Flags of a new trace.
    pub(crate) root_flags: TraceFlags,
    pub(crate) counts: Arc<SpanCounts>,
}

impl Recorder {
    /// Returns the tracer for spans of `scope`.
    #[must_use]
    pub fn tracer(&self, scope: InstrumentationScope) -> Tracer {
        Tracer {
            sdk: self
                .0
                .provider
                .as_ref()
                .map(|provider| provider.tracer_with_scope(scope.clone())),
            scope: self.0.scopes.register(scope),
            shared: Arc::clone(&self.0),
        }
    }

    /// Returns a recorder whose spans are created by `provider`.
    ///
    /// The sampler, the id generator, the limits and the processors of the provider then apply to all spans,
    /// which cost more than twice as much. To export the spans, add [`Pipeline::span_processor`] to the provider.
    ///
    /// [`Pipeline::span_processor`]: crate::Pipeline::span_processor
    #[must_use]
    pub fn with_provider(&self, provider: SdkTracerProvider) -> Self {
        Self(Arc::new(Shared {
            provider: Some(provider),
            ..self.0.as_ref().clone()
        }))
    }

    /// Returns a recorder whose trace ids are not random, because the provider has an id generator of its own.
    #[must_use]
    pub fn without_random_ids(&self) -> Self {
        Self(Arc::new(Shared {
            root_flags: TraceFlags::NOT_SAMPLED,
            ..self.0.as_ref().clone()
        }))
    }

    /// Returns `sampler` as a sampler for the SDK's provider that counts the spans of the provider for
    /// `otel.sdk.span.started`. A span that the recorder starts with that provider is one of them.
    #[must_use]
    pub fn counting(&self, sampler: impl ShouldSample + 'static) -> impl ShouldSample + 'static {
        CountingSampler {
            inner: Box::new(sampler),
            counts: Arc::clone(&self.0.counts),
        }
    }

    /// Whether spans are exported. If not, they only have ids.
    #[must_use]
    pub fn is_exporting(&self) -> bool {
        self.0.queue.is_some()
    }
}

/// Starts the spans of one instrumentation scope; cheap to clone.
#[derive(Clone, Debug)]
pub struct Tracer {
    shared: Arc<Shared>,
    scope: ScopeId,
    sdk: Option<SdkTracer>,
}

/// The properties of a span that are fixed at its start.
///
/// ```
/// use opentelemetry::trace::SpanKind;
/// use otlp_recorder::SpanStart;
///
/// let start = SpanStart::new("cache.lookup", SpanKind::Internal);
/// ```
#[derive(Debug)]
pub struct SpanStart<'a> {
    name: Cow<'static, str>,
    kind: SpanKind,
    links: &'a [Link],
    time: Option<SystemTime>,
}

impl<'a> SpanStart<'a> {
    /// Describes a span that starts now.
    pub fn new(name: impl Into<Cow<'static, str>>, kind: SpanKind) -> Self {
        Self {
            name: name.into(),
            kind,
            links: &[],
            time: None,
        }
    }

    /// Sets the links of the span.
    #[must_use]
    pub fn links(self, links: &'a [Link]) -> Self {
        Self { links, ..self }
    }

    /// Sets the start time; `None` means now.
    #[must_use]
    pub fn time(self, time: Option<SystemTime>) -> Self {
        Self { time, ..self }
    }
}

impl Tracer {
    /// Starts a child of the span in `parent`, or a root span if there is none. `describe` sets the first
    /// attributes and is called only if the span is sampled. If `parent` suppresses telemetry, the span has
    /// no ids.
    pub fn start(
        &self,
        parent: &Context,
        start: SpanStart<'_>,
        describe: impl FnOnce(&mut Attributes),
    ) -> RecordedSpan {
        if parent.is_telemetry_suppressed() {
            return RecordedSpan {
                context: SpanContext::empty_context(),
                open: None,
                sdk: None,
            };
        }
        if let Some(sdk) = &self.sdk {
            return self.start_sdk(sdk, parent, start, describe);
        }
        let ids = RandomIdGenerator::default();
        let parent_span = parent.span();
        let parent_context = parent_span.span_context();
        let (trace_id, parent_id) = if parent_context.is_valid() {
            (parent_context.trace_id(), parent_context.span_id())
        } else {
            (ids.new_trace_id(), SpanId::INVALID)
        };
        let flags = self.flags(parent_context);
        let is_sampled = is_sampled(&self.shared.sampler, parent, trace_id, &start);
        self.shared.counts.start(parent_context, is_sampled);
        let context = SpanContext::new(
            trace_id,
            ids.new_span_id(),
            flags.with_sampled(is_sampled),
            false,
            parent_context.trace_state().clone(),
        );
        let open = (is_sampled && self.shared.queue.is_some()).then(|| {
            let mut open = OpenSpan::spare(&self.shared);
            open.scope = self.scope;
            open.in_component = in_component();
            open.parent = parent_id;
            open.parent_is_remote = parent_context.is_remote();
            open.name = start.name;
            open.kind = start.kind;
            open.start = start.time.unwrap_or_else(SystemTime::now);
            describe(&mut open.content.attributes);
            for link in start.links {
                open.content.add_link(link, &self.shared.limits);
            }
            open
        });
        RecordedSpan {
            context,
            open,
            sdk: None,
        }
    }

    /// Returns the flags of the parent, or those of a new trace.
    fn flags(&self, parent: &SpanContext) -> TraceFlags {
        match parent.is_valid() {
            true => parent.trace_flags(),
            false => self.shared.root_flags,
        }
    }

    /// Starts an SDK span. The SDK's sampler needs the attributes, so they are always set.
    fn start_sdk(
        &self,
        sdk: &SdkTracer,
        parent: &Context,
        start: SpanStart<'_>,
        describe: impl FnOnce(&mut Attributes),
    ) -> RecordedSpan {
        let mut attributes = Attributes::detached(self.shared.rules);
        describe(&mut attributes);
        let mut builder = sdk
            .span_builder(start.name)
            .with_kind(start.kind)
            .with_attributes(attributes.decoded())
            .with_links(start.links.to_vec());
        builder.start_time = start.time;
        let span = builder.start_with_context(sdk, parent);
        let context = span.span_context();
        // The SDK clears the other flags of a span that is not sampled, and does not set them for a root span.
        let flags = self.flags(parent.span().span_context());
        RecordedSpan {
            context: SpanContext::new(
                context.trace_id(),
                context.span_id(),
                flags.with_sampled(context.is_sampled()),
                false,
                context.trace_state().clone(),
            ),
            open: None,
            sdk: Some(Box::new(span)),
        }
    }
}

/// Returns the sampling decision. The SDK's samplers add no attributes and keep the trace state of the
/// parent, so the rest of their result is not needed.
fn is_sampled(sampler: &Sampler, parent: &Context, trace_id: TraceId, start: &SpanStart<'_>) -> bool {
    let parent_span = parent.span();
    let parent_context = parent_span.span_context();
    match sampler {
        // A shortcut for nearly all spans, with the same result as the sampler.
        Sampler::ParentBased(_) if parent_context.is_valid() => parent_context.is_sampled(),
        sampler => {
            let SpanStart {
                name, kind, links, ..
            } = start;
            let result = sampler.should_sample(Some(parent), trace_id, name, kind, &[], links);
            result.decision == SamplingDecision::RecordAndSample
        }
    }
}

/// A span that is exported when it ends or is dropped.
#[derive(Debug)]
pub struct RecordedSpan {
    context: SpanContext,
    /// `None` when the span has ended or is not sampled.
    open: Option<Box<OpenSpan>>,
    /// The span, if it is an SDK span.
    sdk: Option<Box<opentelemetry_sdk::trace::Span>>,
}

/// A span that has not ended. Its memory is reused for a later span.
#[derive(Debug)]
struct OpenSpan {
    shared: Arc<Shared>,
    scope: ScopeId,
    in_component: bool,
    parent: SpanId,
    parent_is_remote: bool,
    name: Cow<'static, str>,
    kind: SpanKind,
    start: SystemTime,
    content: SpanContent,
    status: Status,
}

impl OpenSpan {
    /// Returns an empty span, which reuses memory kept by this thread if there is any.
    fn spare(shared: &Arc<Shared>) -> Box<Self> {
        // The thread-local is not accessible while the thread exits.
        let kept = SPARE_SPANS.try_with(|spare| spare.borrow_mut().pop());
        let kept = kept.ok().flatten();
        kept.filter(|kept| Arc::ptr_eq(&kept.shared, shared))
            .unwrap_or_else(|| {
                Box::new(Self {
                    shared: Arc::clone(shared),
                    scope: ScopeId::default(),
                    in_component: false,
                    parent: SpanId::INVALID,
                    parent_is_remote: false,
                    name: Cow::Borrowed(""),
                    kind: SpanKind::Internal,
                    start: SystemTime::UNIX_EPOCH,
                    content: SpanContent::new(shared.rules, &shared.limits),
                    status: Status::Unset,
                })
            })
    }

    /// Keeps the memory for the next span that this thread starts.
    fn recycle(mut self: Box<Self>) {
        self.name = Cow::Borrowed("");
        self.status = Status::Unset;
        self.content.clear();
        let _ = SPARE_SPANS.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < MAX_SPARE_SPANS {
                spare.push(self);
            }
        });
    }

    fn export(&mut self, context: &SpanContext, end: SystemTime) {
        let Some(queue) = &self.shared.queue else { return };
        let name = self.shared.rules.redacted(&self.name);
        let ended = EndedSpan {
            context,
            parent: self.parent,
            parent_is_remote: self.parent_is_remote,
            name,
            kind: &self.kind,
            start: self.start,
            end,
            content: &mut self.content,
            status: &self.status,
        };
        let encoded = ended.write();
        queue.push(size(&encoded), |batch| {
            batch.add(self.in_component, self.scope, &encoded);
        });
    }
}

impl Span for RecordedSpan {
    fn add_event_with_timestamp<T>(&mut self, name: T, timestamp: SystemTime, attributes: Vec<KeyValue>)
    where
        T: Into<Cow<'static, str>>,
    {
        if let Some(open) = &mut self.open {
            let event = Event::new(name, timestamp, attributes, 0);
            open.content.add_event(&event, &open.shared.limits);
        } else if let Some(sdk) = &mut self.sdk {
            sdk.add_event_with_timestamp(name, timestamp, attributes);
        }
    }

    fn span_context(&self) -> &SpanContext {
        &self.context
    }

    fn is_recording(&self) -> bool {
        self.open.is_some() || self.sdk.as_ref().is_some_and(|sdk| sdk.is_recording())
    }

    fn set_attribute(&mut self, attribute: KeyValue) {
        if let Some(open) = &mut self.open {
            open.content.attributes.set(&attribute);
        } else if let Some(sdk) = &mut self.sdk {
            sdk.set_attribute(attribute);
        }
    }

    /// Sets the status. Ok is final, and Unset does not replace Error.
    fn set_status(&mut self, status: Status) {
        if let Some(open) = &mut self.open {
            if status > open.status {
                open.status = status;
            }
        } else if let Some(sdk) = &mut self.sdk {
            sdk.set_status(status);
        }
    }

    fn update_name<T>(&mut self, name: T)
    where
        T: Into<Cow<'static, str>>,
    {
        if let Some(open) = &mut self.open {
            open.name = name.into();
        } else if let Some(sdk) = &mut self.sdk {
            sdk.update_name(name);
        }
    }

    fn add_link(&mut self, context: SpanContext, attributes: Vec<KeyValue>) {
        if let Some(open) = &mut self.open {
            let link = Link::new(context, attributes, 0);
            open.content.add_link(&link, &open.shared.limits);
        } else if let Some(sdk) = &mut self.sdk {
            sdk.add_link(context, attributes);
        }
    }

    fn end_with_timestamp(&mut self, end: SystemTime) {
        if let Some(mut open) = self.open.take() {
            open.export(&self.context, end);
            open.recycle();
        } else if let Some(sdk) = &mut self.sdk {
            sdk.end_with_timestamp(end);
        }
    }
}

impl Drop for RecordedSpan {
    fn drop(&mut self) {
        // Most spans have ended by now; skipping them saves reading the clock.
        if self.open.is_some() {
            self.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TraceState;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1;
    use opentelemetry_sdk::Resource;
    use prost::Message;

    use super::*;
    use crate::encode::RequestEncoder;

    fn tracer() -> Tracer {
        let shared = Shared {
            queue: Some(Arc::new(Queue::new(1_000, 1_000))),
            rules: TextRules::default(),
            limits: SpanLimits::default(),
            sampler: Sampler::AlwaysOn,
            scopes: Arc::default(),
            provider: None,
            root_flags: RANDOM_TRACE_ID,
            counts: Arc::default(),
        };
        Recorder(Arc::new(shared)).tracer(InstrumentationScope::builder("test").build())
    }

    fn start(tracer: &Tracer, name: &'static str) -> RecordedSpan {
        let start = SpanStart::new(name, SpanKind::Internal);
        tracer.start(&Context::new(), start, |into| into.number("number", 7))
    }

    fn full(tracer: &Tracer) -> RecordedSpan {
        let mut span = start(tracer, "full");
        let noise = || vec![KeyValue::new("noise", "x".repeat(10_000))];
        span.set_attribute(noise().remove(0));
        span.add_event("event", noise());
        span.add_link(span.context.clone(), noise());
        span.update_name("owned".to_owned());
        span.set_status(Status::error("failed"));
        span
    }

    fn received(tracer: &Tracer) -> Vec<v1::Span> {
        let shared = &tracer.shared;
        let queue = shared.queue.as_ref().unwrap();
        let resource = Resource::builder_empty().build();
        let encoder = RequestEncoder::new(&resource, shared.rules, Arc::clone(&shared.scopes));
        let batches = std::iter::from_fn(|| queue.take());
        let spans = batches.flat_map(|batch| {
            let mut request = ExportTraceServiceRequest::decode(encoder.encode(&batch)).unwrap();
            request.resource_spans.remove(0).scope_spans.remove(0).spans
        });
        spans.collect()
    }

    #[test]
    fn a_span_in_reused_memory_has_no_data_of_the_previous_one() {
        let tracer = tracer();
        start(&tracer, "plain").end();
        full(&tracer).end();
        start(&tracer, "plain").end();
        let mut spans = received(&tracer);
        assert_eq!(spans[1].name, "owned");
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
    fn a_thread_keeps_the_memory_of_a_few_spans_of_one_recorder() {
        for tracer in [tracer(), tracer()] {
            for _ in 0..2 {
                let spans: Vec<RecordedSpan> = (0..2 * MAX_SPARE_SPANS).map(|_| full(&tracer)).collect();
                drop(spans);
                assert_eq!(SPARE_SPANS.with_borrow(Vec::len), MAX_SPARE_SPANS);
            }
            assert_eq!(received(&tracer).len(), 4 * MAX_SPARE_SPANS);
        }
    }

    /// Returns a context with a span in trace 7.
    fn parent(flags: TraceFlags, is_remote: bool) -> Context {
        let state = TraceState::from_key_value([("vendor", "x")]).unwrap();
        let span = SpanContext::new(TraceId::from(7), SpanId::from(1), flags, is_remote, state);
        Context::new().with_remote_span_context(span)
    }

    #[test]
    fn the_sampling_decision_equals_the_decision_of_the_sdk() {
        let roots = [
            Sampler::AlwaysOn,
            Sampler::AlwaysOff,
            Sampler::TraceIdRatioBased(1e-9),
        ];
        let parent_based = roots.clone().map(|root| Sampler::ParentBased(Box::new(root)));
        let mut parents = vec![Context::new()];
        for flags in [TraceFlags::SAMPLED, TraceFlags::default()] {
            parents.extend([parent(flags, true), parent(flags, false)]);
        }
        let mut sampled = 0;
        for sampler in roots.into_iter().chain(parent_based) {
            for parent in &parents {
                let id = TraceId::from(u128::MAX);
                let start = SpanStart::new("a", SpanKind::Internal);
                let result = sampler.should_sample(Some(parent), id, "a", &start.kind, &[], &[]);
                let expected = result.decision == SamplingDecision::RecordAndSample;
                assert_eq!(
                    is_sampled(&sampler, parent, id, &start),
                    expected,
                    "{sampler:?} {parent:?}"
                );
                assert_eq!(result.trace_state, *parent.span().span_context().trace_state());
                assert_eq!(result.attributes, []);
                sampled += u32::from(expected);
            }
        }
        // AlwaysOn samples all five contexts. Each parent-based sampler samples the two contexts with a
        // sampled span; with the root sampler AlwaysOn, it also samples the context without a span.
        assert_eq!(sampled, 5 + 3 * 2 + 1);
    }

    #[test]
    fn a_span_has_the_flags_of_its_parent_and_a_root_span_the_random_flag() {
        let sampler = Sampler::ParentBased(Box::new(Sampler::AlwaysOn));
        let mut shared = tracer().shared.as_ref().clone();
        shared.sampler = sampler.clone();
        let own = Recorder(Arc::new(shared));
        let provider = SdkTracerProvider::builder().with_sampler(sampler).build();
        let sdk = own.with_provider(provider);
        for (recorder, root) in [
            (own.clone(), 0x03),
            (sdk.clone(), 0x03),
            (sdk.without_random_ids(), 0x01),
        ] {
            let tracer = recorder.tracer(InstrumentationScope::builder("test").build());
            let flags = |parent: &Context| {
                let span = tracer.start(parent, SpanStart::new("a", SpanKind::Internal), |_| ());
                span.span_context().trace_flags().to_u8()
            };
            assert_eq!(flags(&Context::new()), root);
            for of_parent in 0..4 {
                assert_eq!(flags(&parent(TraceFlags::new(of_parent), true)), of_parent);
            }
        }
    }
}
