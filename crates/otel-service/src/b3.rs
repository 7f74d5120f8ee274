//! The B3 propagator of Zipkin, in its single-header and multiple-header forms
//! (<https://github.com/openzipkin/b3-propagation>). Both forms are read; the configured form is written.

use opentelemetry::Context;
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};

const SINGLE: &str = "b3";
const TRACE_ID: &str = "x-b3-traceid";
const SPAN_ID: &str = "x-b3-spanid";
const SAMPLED: &str = "x-b3-sampled";
const FLAGS: &str = "x-b3-flags";

/// Marks a context with the debug flag, which is passed on with every outgoing call, as the OpenTelemetry
/// specification of propagators requires.
struct Debug;

/// Form of the headers that are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Encoding {
    Single,
    Multiple,
}

/// The B3 propagator, with the encoding it writes.
#[derive(Debug)]
pub(crate) struct B3Propagator {
    encoding: Encoding,
    fields: Vec<String>,
}

impl B3Propagator {
    pub(crate) fn new(encoding: Encoding) -> Self {
        let fields = [SINGLE, TRACE_ID, SPAN_ID, SAMPLED, FLAGS];
        Self {
            encoding,
            fields: fields.map(str::to_owned).to_vec(),
        }
    }
}

impl TextMapPropagator for B3Propagator {
    fn inject_context(&self, cx: &Context, injector: &mut dyn Injector) {
        let span = cx.span();
        let span_context = span.span_context();
        if !span_context.is_valid() {
            return;
        }
        let (trace_id, span_id) = (span_context.trace_id(), span_context.span_id());
        let debug = cx.get::<Debug>().is_some();
        let sampled = match (debug, span_context.is_sampled()) {
            (true, _) => "d",
            (false, true) => "1",
            (false, false) => "0",
        };
        match self.encoding {
            Encoding::Single => injector.set(SINGLE, format!("{trace_id}-{span_id}-{sampled}")),
            Encoding::Multiple => {
                injector.set(TRACE_ID, trace_id.to_string());
                injector.set(SPAN_ID, span_id.to_string());
                // The debug flag implies the sampling decision.
                if debug {
                    injector.set(FLAGS, "1".to_owned());
                } else {
                    injector.set(SAMPLED, sampled.to_owned());
                }
            }
        }
    }

    fn extract_with_context(&self, cx: &Context, extractor: &dyn Extractor) -> Context {
        match single(extractor).or_else(|| multiple(extractor)) {
            Some((span_context, debug)) => {
                let cx = cx.with_remote_span_context(span_context);
                if debug { cx.with_value(Debug) } else { cx }
            }
            None => cx.clone(),
        }
    }

    /// Returns the names of all headers that are read, whichever form is written.
    fn fields(&self) -> FieldIter<'_> {
        FieldIter::new(&self.fields)
    }
}

/// Reads `{trace id}-{span id}[-{sampled}[-{parent}]]`; the boolean is the debug flag.
fn single(extractor: &dyn Extractor) -> Option<(SpanContext, bool)> {
    let mut parts = extractor.get(SINGLE)?.trim().split('-');
    let (trace_id, span_id, decision) = (parts.next()?, parts.next()?, parts.next());
    let span_context = remote(trace_id, span_id, sampled(decision)?)?;
    Some((span_context, decision == Some("d")))
}

fn multiple(extractor: &dyn Extractor) -> Option<(SpanContext, bool)> {
    let debug = extractor.get(FLAGS) == Some("1");
    let decision = if debug {
        TraceFlags::SAMPLED
    } else {
        sampled(extractor.get(SAMPLED))?
    };
    let span_context = remote(extractor.get(TRACE_ID)?, extractor.get(SPAN_ID)?, decision)?;
    Some((span_context, debug))
}

/// Parses the sampling decision, or returns `None` if it is malformed. A deferred decision counts as sampled.
fn sampled(text: Option<&str>) -> Option<TraceFlags> {
    match text {
        None | Some("1" | "d" | "true") => Some(TraceFlags::SAMPLED),
        Some("0" | "false") => Some(TraceFlags::default()),
        Some(_) => None,
    }
}

fn remote(trace_id: &str, span_id: &str, flags: TraceFlags) -> Option<SpanContext> {
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !matches!(trace_id.len(), 16 | 32) || span_id.len() != 16 {
        return None;
    }
    if !is_hex(trace_id) || !is_hex(span_id) {
        return None;
    }
    let span_context = SpanContext::new(
        TraceId::from_hex(trace_id).ok()?,
        SpanId::from_hex(span_id).ok()?,
        flags,
        true,
        TraceState::default(),
    );
    span_context.is_valid().then_some(span_context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn extract(headers: &[(&str, &str)]) -> Option<(String, String, bool)> {
        let carrier: HashMap<String, String> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let cx = B3Propagator::new(Encoding::Single).extract_with_context(&Context::new(), &carrier);
        let span = cx.span();
        let found = span.span_context();
        found.is_valid().then(|| {
            assert!(found.is_remote());
            (
                found.trace_id().to_string(),
                found.span_id().to_string(),
                found.is_sampled(),
            )
        })
    }

    #[test]
    fn both_forms_are_read() {
        let expected = |sampled| Some((TRACE.to_owned(), SPAN.to_owned(), sampled));
        let single = format!("{TRACE}-{SPAN}-1");
        assert_eq!(extract(&[(SINGLE, &single)]), expected(true));
        let parented = format!("{TRACE}-{SPAN}-0-05e3ac9a4f6e3b90");
        assert_eq!(extract(&[(SINGLE, &parented)]), expected(false));
        let undecided = format!("{TRACE}-{SPAN}");
        assert_eq!(extract(&[(SINGLE, &undecided)]), expected(true));
        assert_eq!(
            extract(&[(TRACE_ID, TRACE), (SPAN_ID, SPAN), (SAMPLED, "0")]),
            expected(false)
        );
        assert_eq!(
            extract(&[(TRACE_ID, TRACE), (SPAN_ID, SPAN), (FLAGS, "1")]),
            expected(true)
        );
        assert_eq!(
            extract(&[(SINGLE, "8448eb211c80319c-b7ad6b7169203331-1")]),
            Some((
                format!("{:032x}", 0x8448_eb21_1c80_319c_u64),
                SPAN.to_owned(),
                true
            ))
        );
    }

    #[test]
    fn malformed_headers_are_ignored() {
        for value in [
            "",
            "0",
            "x-y-1",
            "+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
        ] {
            assert_eq!(extract(&[(SINGLE, value)]), None, "{value}");
        }
        assert_eq!(extract(&[(TRACE_ID, TRACE)]), None);
    }

    #[test]
    fn the_configured_form_is_written() {
        let cx = Context::new().with_remote_span_context(remote(TRACE, SPAN, TraceFlags::SAMPLED).unwrap());
        let written = |encoding| {
            let mut carrier = HashMap::new();
            B3Propagator::new(encoding).inject_context(&cx, &mut carrier);
            let mut headers: Vec<_> = carrier.into_iter().collect();
            headers.sort();
            headers
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            written(Encoding::Single),
            [pair(SINGLE, &format!("{TRACE}-{SPAN}-1"))]
        );
        assert_eq!(
            written(Encoding::Multiple),
            [pair(SAMPLED, "1"), pair(SPAN_ID, SPAN), pair(TRACE_ID, TRACE)]
        );
    }

    #[test]
    fn the_debug_flag_is_passed_on_in_both_forms() {
        for headers in [
            &[(SINGLE, format!("{TRACE}-{SPAN}-d"))][..],
            &[
                (TRACE_ID, TRACE.to_owned()),
                (SPAN_ID, SPAN.to_owned()),
                (FLAGS, "1".to_owned()),
            ],
        ] {
            let carrier: HashMap<String, String> = headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect();
            for (encoding, expected) in [
                (Encoding::Single, &[(SINGLE, format!("{TRACE}-{SPAN}-d"))][..]),
                (
                    Encoding::Multiple,
                    &[
                        (FLAGS, "1".to_owned()),
                        (SPAN_ID, SPAN.to_owned()),
                        (TRACE_ID, TRACE.to_owned()),
                    ],
                ),
            ] {
                let propagator = B3Propagator::new(encoding);
                let cx = propagator.extract_with_context(&Context::new(), &carrier);
                assert!(cx.span().span_context().is_sampled());
                let mut written = HashMap::new();
                propagator.inject_context(&cx, &mut written);
                let expected = expected
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), value.clone()));
                assert_eq!(written, expected.collect());
            }
        }
    }
}
