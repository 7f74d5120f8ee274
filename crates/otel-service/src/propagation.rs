//! Propagation of the trace context and of baggage in HTTP headers, across trust boundaries.

use std::sync::OnceLock;

use http::{HeaderMap, HeaderName};
use opentelemetry::baggage::{BaggageExt, BaggageMetadata, KeyValueMetadata};
use opentelemetry::propagation::{Injector, TextMapPropagator};
use opentelemetry::{Context, Key, StringValue, global};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};

use crate::context;

/// Set by [`crate::init`].
static HEADERS: OnceLock<Vec<HeaderName>> = OnceLock::new();

/// Stores the header names of `propagator`.
pub(crate) fn install(propagator: &dyn TextMapPropagator) {
    HEADERS.get_or_init(|| propagator.fields().filter_map(|name| name.parse().ok()).collect());
}

/// Returns whether `headers` may carry a context.
fn may_carry_context(headers: &HeaderMap) -> bool {
    let names = HEADERS.get();
    names.is_none_or(|names| names.iter().any(|name| headers.contains_key(name)))
}

/// The parts of a context that are accepted from callers or sent to servers.
///
/// The default is the trace context without baggage, because baggage from outside can contain anything, and the
/// service's own baggage can contain confidential values. `OTEL_PROPAGATORS` selects the formats.
///
/// ```
/// use otel_service::Propagation;
///
/// // For a third party that should learn nothing.
/// let nothing = Propagation::NOTHING;
/// // Between services of the same operator.
/// let inside = Propagation::ALL;
/// // At a public edge.
/// let edge = Propagation::TRACE_CONTEXT.baggage_keys(&["tenant"]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Propagation {
    trace_context: bool,
    baggage: BaggageKeys,
}

#[derive(Clone, Copy, Debug)]
enum BaggageKeys {
    All,
    Only(&'static [&'static str]),
}

impl Propagation {
    /// Neither the trace context nor baggage.
    pub const NOTHING: Self = Self {
        trace_context: false,
        baggage: BaggageKeys::Only(&[]),
    };

    /// The trace context, without baggage.
    pub const TRACE_CONTEXT: Self = Self {
        trace_context: true,
        ..Self::NOTHING
    };

    /// The trace context and all baggage.
    pub const ALL: Self = Self {
        trace_context: true,
        baggage: BaggageKeys::All,
    };

    /// Sets the keys of the baggage entries that are propagated.
    #[must_use]
    pub const fn baggage_keys(mut self, keys: &'static [&'static str]) -> Self {
        self.baggage = BaggageKeys::Only(keys);
        self
    }

    /// Returns the context in which a request with `headers` is served.
    ///
    /// If the trace context of the caller is not accepted, the span of the request starts a new trace.
    pub(crate) fn extract(self, headers: &HeaderMap) -> Context {
        let current = Context::current();
        // Most requests carry no context; checking for its headers is cheaper than extracting an empty
        // context.
        if !may_carry_context(headers) {
            return current;
        }
        let extracted = global::get_text_map_propagator(|propagator| {
            propagator.extract_with_context(&current, &HeaderExtractor(headers))
        });
        if self.trace_context {
            return self.with_allowed_baggage(extracted);
        }
        let allowed = self.with_allowed_baggage(extracted);
        match allowed.baggage().is_empty() {
            true => current,
            false => current.with_baggage(entries(&allowed)),
        }
    }

    /// Adds the context `cx` to the headers of a request.
    pub(crate) fn inject(self, cx: &Context, headers: &mut HeaderMap) {
        let mut cx = self.with_allowed_baggage(cx.clone());
        if !self.trace_context {
            if cx.baggage().is_empty() {
                return;
            }
            cx = Context::new().with_baggage(entries(&cx));
        }
        for (name, value) in context::inject_context_of(&cx) {
            HeaderInjector(headers).set(&name, value);
        }
    }

    fn with_allowed_baggage(self, cx: Context) -> Context {
        let BaggageKeys::Only(keys) = self.baggage else {
            return cx;
        };
        if cx.baggage().is_empty() {
            return cx;
        }
        let allowed = cx
            .baggage()
            .iter()
            .filter(|(key, _)| keys.contains(&key.as_str()));
        let allowed: Vec<_> = allowed.map(entry).collect();
        cx.with_baggage(allowed)
    }
}

impl Default for Propagation {
    fn default() -> Self {
        Self::TRACE_CONTEXT
    }
}

fn entries(cx: &Context) -> Vec<KeyValueMetadata> {
    cx.baggage().iter().map(entry).collect()
}

fn entry((key, (value, metadata)): (&Key, &(StringValue, BaggageMetadata))) -> KeyValueMetadata {
    KeyValueMetadata::new(key.clone(), value.clone(), metadata.clone())
}
