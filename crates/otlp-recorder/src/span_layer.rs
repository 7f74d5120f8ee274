//! Spans of `tracing`: [`SpanLayer`] records the spans of a subscriber with the recorder. While a span is
//! entered, its context is the current OpenTelemetry context, so spans of both APIs nest within each other.

mod debug_value;
mod fields;

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;

use opentelemetry::logs::AnyValue;
use opentelemetry::trace::{Status, TraceContextExt};
use opentelemetry::{Context, ContextGuard, InstrumentationScope, KeyValue};
use tracing::span::{Attributes as NewSpan, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer;
use tracing_subscriber::registry::{LookupSpan, SpanRef};

use crate::encode::{Attributes, PrewrittenAttributes};
use crate::export::is_export_thread;
use crate::recorder::{Recorder, Shared, SpanStart, Tracer};
use crate::table::Table;
pub use debug_value::field_value;
pub use fields::{EXCEPTION_MESSAGE, is_error_field, with_sources};
use fields::{EventError, FieldSets, FieldWriter, RecordedFields, SpecialFields, decode};

/// Maximum number of callsites whose properties are kept; a program has a few hundred.
const MAX_CALLSITES: usize = 1_024;

thread_local! {
    /// The contexts of the entered spans of this thread.
    static ENTERED: RefCell<Entered> = const { RefCell::new(Entered(Vec::new())) };
}

/// Target of `tracing` spans that are not recorded, but carry the OpenTelemetry context in which they were created.
/// They carry the trace into threads and tasks that a library starts with `tracing::Span::current()`.
pub const CONTEXT_TARGET: &str = "otel_context";

/// A `tracing` layer that records spans, with their target as the instrumentation scope.
///
/// The parent of a span is its explicit parent, or the current OpenTelemetry context, whose span may come from
/// either API. The fields of a span become attributes, except for the fields `otel.name`, `otel.kind`,
/// `otel.status_code` and `otel.status_message`, which set the respective property as in
/// tracing-opentelemetry. The fields `error` and `err` become `exception.message`. An event with the level ERROR, and an
/// error that is recorded while the span is open, set the status of the span to Error. Events are not recorded:
/// combine the layer with one that exports log records, and use [`SpanLayer::fields`] there.
///
/// ```
/// use otlp_recorder::{Pipeline, SpanLayer};
/// use tracing_subscriber::Layer as _;
/// use tracing_subscriber::filter::LevelFilter;
/// use tracing_subscriber::layer::SubscriberExt as _;
///
/// let pipeline = Pipeline::builder().start();
/// let layer = SpanLayer::new(pipeline.recorder());
/// let subscriber = tracing_subscriber::registry().with(layer.with_filter(LevelFilter::INFO));
/// ```
#[derive(Debug)]
pub struct SpanLayer {
    shared: Arc<Shared>,
    callsites: Table<usize, Callsite>,
    is_skipped: fn(&Context) -> bool,
    keeps_fields: bool,
}

/// Properties that the spans of a callsite share.
#[derive(Debug)]
struct Callsite {
    tracer: Tracer,
    /// The source location; `None` if a field of the span has the same name.
    location: Option<PrewrittenAttributes>,
    fields: FieldSets,
}

/// The state of a span in its extensions.
#[derive(Debug)]
struct SpanState {
    /// Context of the span; `None` if the span is not recorded.
    cx: Option<Context>,
    /// Whether the layer recorded the span; false for [`CONTEXT_TARGET`].
    is_recorded: bool,
    fields: Attributes,
}

impl SpanLayer {
    /// Creates a layer that records spans with `recorder`.
    #[must_use]
    pub fn new(recorder: &Recorder) -> Self {
        Self {
            shared: Arc::clone(&recorder.0),
            callsites: Table::new(MAX_CALLSITES),
            is_skipped: |_| false,
            keeps_fields: false,
        }
    }

    /// Sets a predicate for parent contexts in which no spans are recorded.
    #[must_use]
    pub fn skip_if(mut self, is_skipped: fn(&Context) -> bool) -> Self {
        self.is_skipped = is_skipped;
        self
    }

    /// Keeps the fields of open spans for [`SpanLayer::fields`].
    #[must_use]
    pub fn keep_fields(mut self) -> Self {
        self.keeps_fields = true;
        self
    }

    /// Returns the fields of an open span, redacted; empty without [`SpanLayer::keep_fields`].
    #[must_use]
    pub fn fields<'a, S: LookupSpan<'a>>(span: &SpanRef<'a, S>) -> Vec<(&'static str, AnyValue)> {
        let encoded = {
            let extensions = span.extensions();
            let state = extensions.get::<SpanState>();
            state.map(|state| state.fields.encoded().to_vec())
        };
        decode(&encoded.unwrap_or_default(), span.metadata())
    }

    /// Returns the OpenTelemetry context of an open span, or `None` if the span is not recorded.
    #[must_use]
    pub fn context<'a, S: LookupSpan<'a>>(span: &SpanRef<'a, S>) -> Option<Context> {
        span.extensions().get::<SpanState>()?.cx.clone()
    }

    fn callsite(&self, metadata: &'static Metadata<'static>) -> Callsite {
        let scope = InstrumentationScope::builder(metadata.target()).build();
        let named = |prefix| {
            metadata
                .fields()
                .iter()
                .any(|field| field.name().starts_with(prefix))
        };
        Callsite {
            tracer: Recorder(Arc::clone(&self.shared)).tracer(scope),
            location: (!named("code.")).then(PrewrittenAttributes::new),
            fields: FieldSets::of(metadata),
        }
    }

    fn start(&self, parent: &Context, callsite: &Callsite, new: &NewSpan<'_>) -> SpanState {
        let mut special = SpecialFields::new(callsite.fields);
        if callsite.fields.has_special() {
            new.record(&mut special);
        }
        let mut fields = None;
        let mut cx = None;
        if !(self.is_skipped)(parent) && !is_export_thread() {
            let metadata = new.metadata();
            let name = special.name.map_or(Cow::Borrowed(metadata.name()), Cow::Owned);
            let start = SpanStart::new(name, special.kind);
            let span = callsite.tracer.start(parent, start, |into| {
                if let Some(location) = &callsite.location {
                    location.write(into, |into| write_location(into, metadata));
                }
                let before = into.encoded().len();
                new.record(&mut FieldWriter::new(into, callsite.fields));
                if self.keeps_fields {
                    fields = Some(Attributes::detached_from(
                        self.shared.rules,
                        &into.encoded()[before..],
                    ));
                }
            });
            let recorded = parent.with_span(span);
            if let Some(status) = special.status.status() {
                recorded.span().set_status(status);
            }
            cx = Some(recorded);
        }
        let unrecorded = || {
            let mut attributes = Attributes::detached(self.shared.rules);
            if self.keeps_fields {
                new.record(&mut FieldWriter::new(&mut attributes, callsite.fields));
            }
            attributes
        };
        SpanState {
            is_recorded: cx.is_some(),
            cx,
            fields: fields.unwrap_or_else(unrecorded),
        }
    }
}

impl<S> Layer<S> for SpanLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, new: &NewSpan<'_>, id: &Id, cx: layer::Context<'_, S>) {
        let Some(span) = cx.span(id) else { return };
        let explicit = new.parent().and_then(|parent| Self::context(&cx.span(parent)?));
        let parent = if new.is_root() {
            Context::new()
        } else {
            explicit.unwrap_or_else(Context::current)
        };
        let metadata = new.metadata();
        if metadata.target() == CONTEXT_TARGET {
            span.extensions_mut().insert(SpanState {
                cx: Some(parent),
                is_recorded: false,
                fields: Attributes::detached(self.shared.rules),
            });
            return;
        }
        let key = std::ptr::from_ref(metadata) as usize;
        let state = match self.callsites.get(&key, || self.callsite(metadata)) {
            Some(callsite) => self.start(&parent, callsite, new),
            None => self.start(&parent, &self.callsite(metadata), new),
        };
        span.extensions_mut().insert(state);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, cx: layer::Context<'_, S>) {
        let Some(span) = cx.span(id) else { return };
        // Formatted before the extensions are locked, because a `Debug` implementation may log in this span.
        let mut recorded = RecordedFields::default();
        values.record(&mut recorded);
        let mut extensions = span.extensions_mut();
        let Some(state) = extensions.get_mut::<SpanState>() else {
            return;
        };
        if self.keeps_fields {
            let fields = &mut state.fields;
            recorded
                .attributes
                .iter()
                .for_each(|attribute| fields.value(attribute.key.as_str(), &attribute.value));
        }
        if let Some(cx) = &state.cx {
            recorded.apply(&cx.span());
        }
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, cx: layer::Context<'_, S>) {
        let of = |id| Self::context(&cx.span(id)?);
        if let (Some(span), Some(followed)) = (of(id), of(follows)) {
            let followed = followed.span().span_context().clone();
            span.span().add_link(followed, Vec::new());
        }
    }

    fn on_event(&self, event: &Event<'_>, cx: layer::Context<'_, S>) {
        if *event.metadata().level() != Level::ERROR {
            return;
        }
        let span = cx.event_span(event);
        let Some(span) = span.filter(|span| span.metadata().target() != CONTEXT_TARGET) else {
            return;
        };
        let Some(span) = Self::context(&span) else { return };
        let is_current = |current: &Context| {
            let current = current.span();
            current.span_context().span_id() == span.span().span_context().span_id()
        };
        // An event within an inner span of the OpenTelemetry API does not concern this span.
        if event.parent().is_some() || Context::map_current(is_current) {
            let error = EventError::of(event);
            let span = span.span();
            if let Some(error_type) = error.error_type {
                span.set_attribute(KeyValue::new("error.type", error_type));
            }
            span.set_status(Status::error(error.message));
        }
    }

    fn on_enter(&self, id: &Id, cx: layer::Context<'_, S>) {
        if let Some(span) = cx.span(id).and_then(|span| Self::context(&span)) {
            let guard = span.attach();
            let _ = ENTERED.try_with(|entered| entered.borrow_mut().0.push((id.into_u64(), guard)));
        }
    }

    fn on_exit(&self, id: &Id, _: layer::Context<'_, S>) {
        let id = id.into_u64();
        let guard = ENTERED.try_with(|entered| {
            let entered = &mut entered.borrow_mut().0;
            let index = entered.iter().rposition(|(other, _)| *other == id)?;
            Some(entered.remove(index))
        });
        // Dropped here, because the end of a span may call code that enters other spans.
        drop(guard);
    }

    fn on_close(&self, id: Id, cx: layer::Context<'_, S>) {
        let state = cx
            .span(&id)
            .and_then(|span| span.extensions_mut().remove::<SpanState>());
        // Ended explicitly, because clones of the context may outlive the span.
        if let Some(SpanState {
            cx: Some(cx),
            is_recorded: true,
            ..
        }) = state
        {
            cx.span().end();
        }
    }
}

fn write_location(into: &mut Attributes, metadata: &'static Metadata<'static>) {
    if let Some(file) = metadata.file() {
        into.literal("code.file.path", within_crates(file));
    }
    if let Some(line) = metadata.line() {
        into.number("code.line.number", line.into());
    }
}

/// Strips the registry folder of the machine that built the program from the path of a source file.
#[must_use]
pub fn within_crates(file: &str) -> &str {
    let Some((_, in_registry)) = file.split_once("/registry/src/") else {
        return file;
    };
    in_registry.split_once('/').map_or(in_registry, |(_, path)| path)
}

#[derive(Debug)]
struct Entered(Vec<(u64, ContextGuard)>);

impl Drop for Entered {
    fn drop(&mut self) {
        // A thread that exits within a span may have dropped its current context already.
        self.0.drain(..).for_each(std::mem::forget);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_folder_is_stripped() {
        let path = "/home/x/.cargo/registry/src/index-123/redis-1.0.0/src/lib.rs";
        assert_eq!(within_crates(path), "redis-1.0.0/src/lib.rs");
        assert_eq!(within_crates("crates/app/src/lib.rs"), "crates/app/src/lib.rs");
    }
}
