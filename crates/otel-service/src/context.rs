//! The current OpenTelemetry context: running work in a context, reading its trace id, and propagating it
//! through headers. A context is attached only during polls ([`within`]), never across an await.

use std::borrow::Cow;
use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};

use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::trace::{Link, TraceContextExt};
use opentelemetry::{Context, KeyValue, global};
use otlp_recorder::CONTEXT_TARGET;

use crate::recorder;
use crate::untraced::{shown_trace_id, untraced_context};

thread_local! {
    /// The context of the request that this thread is serving; gives inner code access to the server span.
    static SERVER: RefCell<Option<Context>> = const { RefCell::new(None) };
}

/// Maximum number of links of a span, the default of the specification.
const MAX_LINKS: usize = 128;

/// Links for the spans of database calls in a context that works on behalf of several spans.
struct OnBehalfOf(Vec<Link>);

/// Runs `work` without recording spans. Metrics and logs are recorded as usual.
///
/// Use it for polling and housekeeping, whose spans would form separate traces.
pub async fn without_spans<T>(work: impl Future<Output = T>) -> T {
    let cx = Context::current();
    let untraced = if recorder::is_installed() {
        untraced_context(&cx)
    } else {
        cx
    };
    within(&untraced, pin!(work)).await
}

/// Returns a link to the span of `cx`, sampled or not, if there is one.
pub fn link_to(cx: &Context) -> Option<Link> {
    let span = cx.span();
    let span_context = span.span_context();
    span_context
        .is_valid()
        .then(|| Link::new(span_context.clone(), Vec::new(), 0))
}

/// Returns a context for work on behalf of all `contexts`, or `None` if none of them is sampled.
///
/// Spans started in the returned context are children of the first sampled span. If there are several spans, the spans
/// of database statements and Redis commands also link to them, sampled or not, up to 128.
pub fn on_behalf_of<'a>(contexts: impl IntoIterator<Item = &'a Context>) -> Option<Context> {
    let contexts = contexts.into_iter();
    let most = contexts.size_hint().1.unwrap_or(MAX_LINKS).min(MAX_LINKS);
    let mut first = None;
    let mut links = Vec::new();
    for cx in contexts {
        if first.is_none() && cx.span().span_context().is_sampled() {
            first = Some(cx);
        } else if links.len() < MAX_LINKS - 1 {
            links.reserve(most - links.len());
            links.extend(link_to(cx));
        }
    }
    let first = first?;
    if links.is_empty() {
        return Some(first.clone());
    }
    links.extend(link_to(first));
    Some(first.with_value(OnBehalfOf(links)))
}

/// Returns the links for the spans of database calls in the context `cx`.
pub(crate) fn links_of_calls(cx: &Context) -> &[Link] {
    cx.get::<OnBehalfOf>().map_or(&[], |OnBehalfOf(links)| links)
}

/// Runs `work` with `cx` as the current context during each poll. Unlike `FutureExt::with_context`, this
/// borrows the context.
pub fn within<T>(cx: &Context, mut work: Pin<&mut impl Future<Output = T>>) -> impl Future<Output = T> {
    poll_fn(move |task| {
        let _attached = cx.clone().attach();
        work.as_mut().poll(task)
    })
}

/// Calls `work` with `cx` as the current context and as the target of [`set_server_attribute`].
pub(crate) fn serving<T>(cx: &Context, work: impl FnOnce() -> T) -> T {
    let _attached = cx.clone().attach();
    let _served = Served(SERVER.replace(Some(cx.clone())));
    work()
}

/// Guard that restores the previous request, even after a panic.
struct Served(Option<Context>);

impl Drop for Served {
    fn drop(&mut self) {
        SERVER.set(self.0.take());
    }
}

/// Returns a `tracing` span that is not recorded, but carries the current context.
///
/// Enter it on threads, or instrument tasks with it, that have no context otherwise. For tasks and blocking threads
/// of tokio, see [`spawn`](crate::spawn()) and [`spawn_blocking`](crate::spawn_blocking).
///
/// ```
/// let context = otel_service::context_span();
/// std::thread::spawn(move || context.in_scope(|| { /* ... */ }));
/// ```
#[must_use]
pub fn context_span() -> tracing::Span {
    // The level that is least likely to be filtered out.
    tracing::error_span!(target: CONTEXT_TARGET, "context")
}

/// Returns the current trace id, sampled or not, as 32 lower-case hexadecimal digits. While telemetry is
/// disabled, a request without a context has its own id, which is not propagated.
pub fn current_trace_id() -> Option<String> {
    Context::map_current(|cx| Some(shown_trace_id(cx)?.to_string()))
}

/// Returns the propagation headers of the current context, such as `traceparent` and `baggage`.
///
/// `OTEL_PROPAGATORS` selects the formats.
pub fn inject_context() -> Vec<(String, String)> {
    Context::map_current(inject_context_of)
}

/// Returns the propagation headers of `cx`.
pub fn inject_context_of(cx: &Context) -> Vec<(String, String)> {
    let mut headers = Headers(Vec::new());
    global::get_text_map_propagator(|propagator| propagator.inject_context(cx, &mut headers));
    headers.0
}

/// Returns a context with the remote parent in `headers`, or an empty context. Header names are
/// case-insensitive; the lines of a list such as `tracestate` and `baggage` are combined.
pub fn extract_context<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Context {
    let carrier = Carrier(headers.into_iter().collect());
    global::get_text_map_propagator(|propagator| propagator.extract_with_context(&Context::new(), &carrier))
}

/// Sets an attribute on the current span.
pub fn set_attribute(attribute: KeyValue) {
    Context::map_current(|cx| cx.span().set_attribute(attribute));
}

/// Changes the name of the current span.
pub fn rename_span(name: impl Into<Cow<'static, str>>) {
    Context::map_current(|cx| cx.span().update_name(name));
}

/// Sets an attribute, such as `user.id`, on the server span of the current request.
///
/// Works anywhere on the task that serves the request. Has no effect on other tasks or outside a request.
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
        // Omits an empty `baggage` or `tracestate`.
        if !value.is_empty() {
            self.0.push((key.to_owned(), value));
        }
    }
}

struct Carrier<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Carrier<'a> {
    fn lines(&self, key: &str) -> impl Iterator<Item = &'a str> {
        let lines = self.0.iter();
        let lines = lines.filter(move |(name, _)| name.eq_ignore_ascii_case(key));
        lines.map(|(_, value)| *value)
    }
}

impl Extractor for Carrier<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.lines(key).next()
    }

    fn get_all(&self, key: &str) -> Option<Vec<&str>> {
        let lines: Vec<_> = self.lines(key).collect();
        (!lines.is_empty()).then_some(lines)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| *name).collect()
    }
}
