//! The OpenTelemetry context in force: starting spans in it, reading its trace id, carrying it across a queue.
//! A context is attached during polls only ([`within`]), never across an await.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::OnceLock;

use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::trace::{Link, SpanContext, TraceContextExt, TraceFlags, TraceState};
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

use crate::export::Attributes;
use crate::recording::{Beginning, Recorder};

static RECORDER: OnceLock<Recorder> = OnceLock::new();

thread_local! {
    /// The context of the request whose work this thread does at the moment, so that inner code can reach its server
    /// span, whichever span is in force.
    static SERVER: RefCell<Option<Context>> = const { RefCell::new(None) };
}

/// Links that are kept for one span: the specification's default limit.
const MOST_LINKS: usize = 128;

/// What commands are sent for, when it is more than one thing.
struct OnBehalfOf(Vec<Link>);

/// Marks a context in which no spans are to be made (health endpoints); the sampler looks for it.
pub(crate) struct Quiet;

/// Keeps what every span of this crate is made by. Later calls change nothing.
pub(crate) fn install_recorder(recorder: Recorder) {
    RECORDER.get_or_init(|| recorder);
}

/// Whether spans are recorded, and not only given ids.
pub(crate) fn records() -> bool {
    recorder().is_some_and(|recorder| recorder.queue.is_some())
}

/// What makes spans, when any are made.
pub(crate) fn recorder() -> Option<&'static Recorder> {
    RECORDER.get()
}

/// Starts a span below `parent` and returns the context that carries it; `describe` writes the attributes of one that is
/// recorded. Where no spans are made the context is the parent's.
pub(crate) fn start(
    parent: &Context,
    beginning: Beginning<'_>,
    describe: impl FnOnce(&mut Attributes),
) -> Context {
    match recorder() {
        Some(recorder) if parent.get::<Quiet>().is_none() => {
            parent.with_span(recorder.start(parent, beginning, describe))
        }
        _ => parent.clone(),
    }
}

/// A context with a trace id (the parent's, or a new one) whose spans are not recorded.
pub(crate) fn untraced(parent: &Context) -> Context {
    let ids = RandomIdGenerator::default();
    let above = parent.span().span_context().clone();
    let trace_id = if above.is_valid() {
        above.trace_id()
    } else {
        ids.new_trace_id()
    };
    parent
        .with_remote_span_context(SpanContext::new(
            trace_id,
            ids.new_span_id(),
            TraceFlags::default(),
            false,
            TraceState::default(),
        ))
        .with_value(Quiet)
}

/// Runs `work` without making spans, whatever it does: for polling and housekeeping, whose spans would be traces of
/// their own that tell nothing. Measurements and logs are made as ever.
pub async fn without_spans<T>(work: impl Future<Output = T>) -> T {
    within(&untraced(&Context::current()), pin!(work)).await
}

/// A link to the span of `cx`, if that is sampled.
pub(crate) fn link(cx: &Context) -> Option<Link> {
    let span = cx.span();
    let span_context = span.span_context();
    span_context
        .is_sampled()
        .then(|| Link::new(span_context.clone(), Vec::new(), 0))
}

/// The context for what is done at once for all that `contexts` stand for: below the first that is sampled, and with links
/// to all of them on the commands that are sent in it. `None` when none is sampled.
pub fn on_behalf_of<'a>(contexts: impl IntoIterator<Item = &'a Context>) -> Option<Context> {
    let mut sampled = contexts
        .into_iter()
        .filter(|cx| cx.span().span_context().is_sampled());
    let first = sampled.next()?;
    let Some(second) = sampled.next() else {
        return Some(first.clone());
    };
    let others = [second].into_iter().chain(sampled).filter_map(link);
    let most = others.size_hint().1.unwrap_or(MOST_LINKS).min(MOST_LINKS);
    let mut links = Vec::with_capacity(most + 1);
    links.extend(others.take(MOST_LINKS - 1));
    links.extend(link(first));
    Some(first.with_value(OnBehalfOf(links)))
}

/// The links of commands in the context `cx`.
pub(crate) fn links_of_commands(cx: &Context) -> &[Link] {
    cx.get::<OnBehalfOf>().map_or(&[], |OnBehalfOf(links)| links)
}

/// Does `work` with the span of `cx` in force. `FutureExt::with_context` would want a context of its own, and counting who
/// shares a span is part of what a span costs.
pub(crate) fn within<T>(
    cx: &Context,
    mut work: Pin<&mut impl Future<Output = T>>,
) -> impl Future<Output = T> {
    poll_fn(move |task| {
        let _attached = cx.clone().attach();
        work.as_mut().poll(task)
    })
}

/// Does `work` with the span of `cx` in force, which is also the one that [`set_server_attribute`] writes to.
pub(crate) fn serving<T>(cx: &Context, work: impl FnOnce() -> T) -> T {
    let _attached = cx.clone().attach();
    let _served = Served(SERVER.replace(Some(cx.clone())));
    work()
}

/// Puts back what was served before, also when the work panics.
struct Served(Option<Context>);

impl Drop for Served {
    fn drop(&mut self) {
        SERVER.set(self.0.take());
    }
}

/// The trace id of the context in force, sampled or not, as 32 lower-case hexadecimal digits.
pub fn current_trace_id() -> Option<String> {
    Context::map_current(|cx| {
        let span = cx.span();
        let span_context = span.span_context();
        span_context
            .is_valid()
            .then(|| span_context.trace_id().to_string())
    })
}

/// The propagation headers (`traceparent`, `baggage`, ... as `OTEL_PROPAGATORS` says) of the context in force.
pub fn inject_context() -> Vec<(String, String)> {
    Context::map_current(inject)
}

/// The propagation headers of `cx`.
pub(crate) fn inject(cx: &Context) -> Vec<(String, String)> {
    let mut headers = Headers(Vec::new());
    global::get_text_map_propagator(|propagator| propagator.inject_context(cx, &mut headers));
    headers.0
}

/// The remote parent that `headers` describe; an empty context when they describe none. Header names match in any case.
pub fn extract_context<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Context {
    let carrier = Carrier(headers.into_iter().collect());
    global::get_text_map_propagator(|propagator| propagator.extract_with_context(&Context::new(), &carrier))
}

/// Sets an attribute on the span in force.
pub fn set_attribute(attribute: KeyValue) {
    Context::map_current(|cx| cx.span().set_attribute(attribute));
}

/// Sets an attribute on the server span of the request that is being served, from however deep below it, on its own task;
/// `user.id` once known. On other tasks, and outside a request, nothing happens.
pub fn set_server_attribute(attribute: KeyValue) {
    SERVER.with_borrow(|server| {
        if let Some(server) = server {
            server.span().set_attribute(attribute);
        }
    });
}

struct Headers(Vec<(String, String)>);

impl Injector for Headers {
    fn set(&mut self, key: &str, value: String) {
        // An empty baggage or tracestate says nothing.
        if !value.is_empty() {
            self.0.push((key.to_owned(), value));
        }
    }
}

struct Carrier<'a>(Vec<(&'a str, &'a str)>);

impl Extractor for Carrier<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let mut headers = self.0.iter().rev();
        headers
            .find(|(name, _)| name.eq_ignore_ascii_case(key))
            .map(|(_, value)| *value)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| *name).collect()
    }
}
