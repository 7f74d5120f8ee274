//! Samplers for [`TelemetryBuilder::sampler`](crate::TelemetryBuilder::sampler) beyond those of `OTEL_TRACES_SAMPLER`:
//! variants of the parent-based sampler, [`AlwaysRecord`], and samplers that are composed and record their threshold in
//! the trace state (<https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/>).

use std::fmt;
use std::sync::Arc;

use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample};

/// Decides by the parent span, with a separate sampler for each kind of parent.
///
/// ```
/// use otel_service::sampling::ParentBased;
/// # use opentelemetry_sdk::trace::Sampler;
///
/// // Callers cannot make this service sample everything.
/// let sampler = ParentBased::new(Sampler::AlwaysOn).remote_sampled(Sampler::TraceIdRatioBased(0.1));
/// ```
#[derive(Clone, Debug)]
pub struct ParentBased {
    root: Box<dyn ShouldSample>,
    /// Samplers for parents, by whether the parent is remote and then by whether it is sampled; `None` follows the
    /// parent.
    of_parents: [[Option<Box<dyn ShouldSample>>; 2]; 2],
}

impl ParentBased {
    /// Creates a sampler that asks `root` about root spans and follows the decision of all parents.
    pub fn new(root: impl ShouldSample + 'static) -> Self {
        Self::boxed(Box::new(root))
    }

    pub(crate) fn boxed(root: Box<dyn ShouldSample>) -> Self {
        Self {
            root,
            of_parents: Default::default(),
        }
    }

    /// Sets the sampler for spans whose parent is remote and sampled.
    #[must_use]
    pub fn remote_sampled(self, sampler: impl ShouldSample + 'static) -> Self {
        self.with(true, true, Box::new(sampler))
    }

    /// Sets the sampler for spans whose parent is remote and not sampled.
    #[must_use]
    pub fn remote_not_sampled(self, sampler: impl ShouldSample + 'static) -> Self {
        self.with(true, false, Box::new(sampler))
    }

    /// Sets the sampler for spans whose parent is local and sampled.
    #[must_use]
    pub fn local_sampled(self, sampler: impl ShouldSample + 'static) -> Self {
        self.with(false, true, Box::new(sampler))
    }

    /// Sets the sampler for spans whose parent is local and not sampled.
    #[must_use]
    pub fn local_not_sampled(self, sampler: impl ShouldSample + 'static) -> Self {
        self.with(false, false, Box::new(sampler))
    }

    /// Sets the sampler for spans with this kind of parent.
    pub(crate) fn with(mut self, is_remote: bool, is_sampled: bool, sampler: Box<dyn ShouldSample>) -> Self {
        self.of_parents[usize::from(is_remote)][usize::from(is_sampled)] = Some(sampler);
        self
    }
}

impl ShouldSample for ParentBased {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let sampler = match parent.filter(|cx| cx.span().span_context().is_valid()) {
            None => &self.root,
            Some(cx) => {
                let span = cx.span();
                let span = span.span_context();
                match &self.of_parents[usize::from(span.is_remote())][usize::from(span.is_sampled())] {
                    Some(sampler) => sampler,
                    None => return result(span.is_sampled(), Vec::new(), span.trace_state().clone()),
                }
            }
        };
        sampler.should_sample(parent, trace_id, name, kind, attributes, links)
    }
}

/// Records every span for the span processors, and exports those that another sampler samples.
#[derive(Clone, Debug)]
pub struct AlwaysRecord<S>(pub S);

impl<S: ShouldSample + Clone + 'static> ShouldSample for AlwaysRecord<S> {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let inner = &self.0;
        let mut result = inner.should_sample(parent, trace_id, name, kind, attributes, links);
        if result.decision == SamplingDecision::Drop {
            result.decision = SamplingDecision::RecordOnly;
        }
        result
    }
}

/// The span that a [`ComposableSampler`] decides about.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct NewSpan<'a> {
    /// Context of the parent.
    pub parent: Option<&'a Context>,
    /// Name of the span.
    pub name: &'a str,
    /// Kind of the span.
    pub kind: &'a SpanKind,
    /// Attributes at the start of the span.
    pub attributes: &'a [KeyValue],
    /// Links of the span.
    pub links: &'a [Link],
}

impl NewSpan<'_> {
    /// Returns the trace state and the sampling decision of the parent, unless the span is a root.
    fn parent_state(&self) -> Option<(TraceState, bool)> {
        let span = self.parent?.span();
        let span = span.span_context();
        span.is_valid()
            .then(|| (span.trace_state().clone(), span.is_sampled()))
    }
}

/// The intent of a [`ComposableSampler`].
#[derive(Clone, Debug)]
pub struct SamplingIntent {
    /// Share of the traces that are dropped, of 2^56; a trace whose random value is at least this is sampled. `None`
    /// drops all.
    pub threshold: Option<u64>,
    /// Whether the threshold tells how many traces the span stands for.
    pub is_reliable: bool,
    /// Attributes of the span if it is sampled.
    pub attributes: Vec<KeyValue>,
}

/// A sampler that composes with others, and decides by comparing one threshold with the randomness of the trace.
pub trait ComposableSampler: fmt::Debug + Send + Sync {
    /// Returns the intent for a new span.
    fn intent(&self, span: &NewSpan<'_>) -> SamplingIntent;
}

/// Samples a share of the traces, from 0 to 1.
#[derive(Clone, Copy, Debug)]
pub struct Probability(pub f64);

/// Number of random values.
const RANDOM_VALUES: u64 = 1 << 56;

impl ComposableSampler for Probability {
    fn intent(&self, _: &NewSpan<'_>) -> SamplingIntent {
        let dropped = (1.0 - self.0.clamp(0.0, 1.0)) * RANDOM_VALUES as f64;
        let threshold = (dropped.round() as u64).min(RANDOM_VALUES);
        SamplingIntent {
            threshold: (threshold < RANDOM_VALUES).then_some(threshold),
            is_reliable: true,
            attributes: Vec::new(),
        }
    }
}

/// Uses the threshold of the parent, and another sampler for root spans.
#[derive(Debug)]
pub struct ParentThreshold<S>(pub S);

impl<S: ComposableSampler> ComposableSampler for ParentThreshold<S> {
    fn intent(&self, span: &NewSpan<'_>) -> SamplingIntent {
        let Some((state, is_sampled)) = span.parent_state() else {
            return self.0.intent(span);
        };
        let threshold = member(&state, "th").as_deref().and_then(parsed_threshold);
        SamplingIntent {
            threshold: threshold.or(is_sampled.then_some(0)),
            is_reliable: threshold.is_some(),
            attributes: Vec::new(),
        }
    }
}

/// Uses the sampler of the first rule that matches the span, and drops spans that no rule matches.
#[derive(Debug, Default)]
pub struct RuleBased(Vec<Rule>);

type Rule = (fn(&NewSpan<'_>) -> bool, Box<dyn ComposableSampler>);

impl RuleBased {
    /// Creates a sampler without rules.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a rule after the others.
    #[must_use]
    pub fn rule(
        mut self,
        matches: fn(&NewSpan<'_>) -> bool,
        sampler: impl ComposableSampler + 'static,
    ) -> Self {
        self.0.push((matches, Box::new(sampler)));
        self
    }
}

impl ComposableSampler for RuleBased {
    fn intent(&self, span: &NewSpan<'_>) -> SamplingIntent {
        let matching = self.0.iter().find(|(matches, _)| matches(span));
        match matching {
            Some((_, sampler)) => sampler.intent(span),
            None => Probability(0.0).intent(span),
        }
    }
}

/// Adds attributes to the spans that another sampler samples.
#[derive(Debug)]
pub struct Annotating<S>(pub S, pub Vec<KeyValue>);

impl<S: ComposableSampler> ComposableSampler for Annotating<S> {
    fn intent(&self, span: &NewSpan<'_>) -> SamplingIntent {
        let mut intent = self.0.intent(span);
        intent.attributes.extend(self.1.iter().cloned());
        intent
    }
}

/// Makes a composed sampler one of the SDK.
///
/// ```
/// use otel_service::sampling::{CompositeSampler, ParentThreshold, Probability, RuleBased};
///
/// let rules = RuleBased::new()
///     .rule(|span| span.name == "POST /login", Probability(1.0))
///     .rule(|_| true, Probability(0.1));
/// let sampler = CompositeSampler::new(ParentThreshold(rules));
/// ```
#[derive(Clone, Debug)]
pub struct CompositeSampler(Arc<dyn ComposableSampler>);

impl CompositeSampler {
    /// Wraps `sampler`.
    pub fn new(sampler: impl ComposableSampler + 'static) -> Self {
        Self(Arc::new(sampler))
    }
}

impl ShouldSample for CompositeSampler {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let span = NewSpan {
            parent,
            name,
            kind,
            attributes,
            links,
        };
        let intent = self.0.intent(&span);
        let state = span.parent_state().map(|(state, _)| state).unwrap_or_default();
        let explicit = member(&state, "rv").filter(|value| value.len() == 14);
        let explicit = explicit.and_then(|value| u64::from_str_radix(&value, 16).ok());
        let low = u128::from_be_bytes(trace_id.to_bytes()) as u64 & (RANDOM_VALUES - 1);
        let is_sampled = intent
            .threshold
            .is_some_and(|threshold| threshold <= explicit.unwrap_or(low));
        let threshold = intent
            .threshold
            .filter(|_| is_sampled && intent.is_reliable)
            .map(shown_threshold);
        let attributes = if is_sampled { intent.attributes } else { Vec::new() };
        result(is_sampled, attributes, with_threshold(&state, threshold))
    }
}

fn result(is_sampled: bool, attributes: Vec<KeyValue>, trace_state: TraceState) -> SamplingResult {
    let decision = match is_sampled {
        true => SamplingDecision::RecordAndSample,
        false => SamplingDecision::Drop,
    };
    SamplingResult {
        decision,
        attributes,
        trace_state,
    }
}

/// Returns a member of the entry `ot` of the trace state.
fn member(state: &TraceState, key: &str) -> Option<String> {
    let members = state.get("ot")?.split(';');
    let mut pairs = members.filter_map(|member| member.split_once(':'));
    pairs
        .find(|(name, _)| *name == key)
        .map(|(_, value)| value.to_owned())
}

/// Reads 1 to 14 hexadecimal digits, without trailing zeros.
fn parsed_threshold(text: &str) -> Option<u64> {
    let is_hexadecimal = text.bytes().all(|digit| digit.is_ascii_hexdigit());
    (is_hexadecimal && (1..=14).contains(&text.len()))
        .then(|| u64::from_str_radix(&format!("{text:0<14}"), 16).ok())?
}

fn shown_threshold(threshold: u64) -> String {
    let digits = format!("{threshold:014x}");
    let shown = digits.trim_end_matches('0');
    if shown.is_empty() { "0" } else { shown }.to_owned()
}

/// Replaces the member `th` of the entry `ot`.
fn with_threshold(state: &TraceState, threshold: Option<String>) -> TraceState {
    let old = state.get("ot").unwrap_or_default();
    let others = old
        .split(';')
        .filter(|member| !member.is_empty() && !member.starts_with("th:"));
    let threshold = threshold.map(|threshold| format!("th:{threshold}"));
    let members: Vec<String> = threshold.into_iter().chain(others.map(str::to_owned)).collect();
    if members.is_empty() {
        return state.delete("ot").unwrap_or_else(|_| state.clone());
    }
    state
        .insert("ot", members.join(";"))
        .unwrap_or_else(|_| state.clone())
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags};
    use opentelemetry_sdk::trace::Sampler;

    use super::*;

    fn parent(state: &str, is_sampled: bool, is_remote: bool) -> Context {
        let flags = TraceFlags::default().with_sampled(is_sampled);
        let state = state.parse().unwrap();
        let span = SpanContext::new(TraceId::from(1), SpanId::from(1), flags, is_remote, state);
        Context::new().with_remote_span_context(span)
    }

    /// Returns the decision about a span of the trace `id`, and the trace state.
    fn sampled(sampler: &dyn ShouldSample, parent: Option<&Context>, id: u128) -> (SamplingDecision, String) {
        let id = TraceId::from(id);
        let result = sampler.should_sample(parent, id, "login", &SpanKind::Server, &[], &[]);
        (result.decision, result.trace_state.header())
    }

    use SamplingDecision::{Drop, RecordAndSample, RecordOnly};

    #[test]
    fn each_kind_of_parent_may_have_a_sampler() {
        let follows = ParentBased::new(Sampler::AlwaysOff);
        let inverted = follows
            .clone()
            .remote_sampled(Sampler::AlwaysOff)
            .remote_not_sampled(Sampler::AlwaysOn)
            .local_sampled(Sampler::AlwaysOff)
            .local_not_sampled(Sampler::AlwaysOn);
        for is_remote in [true, false] {
            for is_sampled in [true, false] {
                let cx = parent("a=1", is_sampled, is_remote);
                let (followed, state) = sampled(&follows, Some(&cx), 1);
                assert_eq!(followed == RecordAndSample, is_sampled);
                assert_eq!(state, "a=1");
                assert_eq!(sampled(&inverted, Some(&cx), 1).0 == RecordAndSample, !is_sampled);
            }
        }
        let remote = ParentBased::new(Sampler::AlwaysOn).remote_sampled(Sampler::AlwaysOff);
        assert_eq!(sampled(&remote, Some(&parent("", true, true)), 1).0, Drop);
        assert_eq!(
            sampled(&remote, Some(&parent("", true, false)), 1).0,
            RecordAndSample
        );
        assert_eq!(sampled(&remote, Some(&Context::new()), 1).0, RecordAndSample);
        assert_eq!(sampled(&follows, None, 1).0, Drop);
    }

    #[test]
    fn a_dropped_span_is_recorded_but_not_sampled() {
        assert_eq!(sampled(&AlwaysRecord(Sampler::AlwaysOff), None, 1).0, RecordOnly);
        assert_eq!(
            sampled(&AlwaysRecord(Sampler::AlwaysOn), None, 1).0,
            RecordAndSample
        );
    }

    #[test]
    fn a_probability_is_compared_with_the_randomness_of_the_trace() {
        let quarter = CompositeSampler::new(Probability(0.25));
        // The threshold of a quarter is 0xc0000000000000; the first byte of the id does not matter.
        for (id, expected) in [
            (0xffbf_ffff_ffff_ffff, (Drop, "")),
            (0x00c0_0000_0000_0000, (RecordAndSample, "ot=th:c")),
        ] {
            let (decision, state) = sampled(&quarter, None, id);
            assert_eq!((decision, &*state), expected, "{id:x}");
        }
        let explicit = parent("ot=rv:c0000000000000;x:1,a=1", false, true);
        let (decision, state) = sampled(&quarter, Some(&explicit), 0);
        assert_eq!(decision, RecordAndSample);
        assert_eq!(state, "ot=th:c;rv:c0000000000000;x:1,a=1");
        for (share, id, expected) in [
            (1.0, 0, (RecordAndSample, "ot=th:0")),
            (0.0, u128::MAX, (Drop, "")),
            (7.0, 0, (RecordAndSample, "ot=th:0")),
        ] {
            let (decision, state) = sampled(&CompositeSampler::new(Probability(share)), None, id);
            assert_eq!((decision, &*state), expected, "{share}");
        }
    }

    #[test]
    fn the_threshold_of_the_parent_is_used() {
        let sampler = CompositeSampler::new(ParentThreshold(Probability(0.0)));
        for (state, is_sampled, id, expected) in [
            ("ot=th:8", true, 0x80_0000_0000_0000, (RecordAndSample, "ot=th:8")),
            ("ot=th:8", true, 0x7f_ffff_ffff_ffff, (Drop, "")),
            // Without a valid threshold, the decision of the parent is used, but tells no share.
            ("a=1", true, 0, (RecordAndSample, "a=1")),
            ("ot=th:xyz", true, 0, (RecordAndSample, "")),
            ("a=1", false, u128::MAX, (Drop, "a=1")),
        ] {
            let cx = parent(state, is_sampled, true);
            let (decision, state) = sampled(&sampler, Some(&cx), id);
            assert_eq!((decision, &*state), expected, "{state}");
        }
        assert_eq!(sampled(&sampler, None, u128::MAX).0, Drop);
    }

    #[test]
    fn the_first_matching_rule_decides_and_attributes_are_added() {
        let rule = |name: &'static str| KeyValue::new("rule", name);
        let annotated = Annotating(Probability(1.0), vec![rule("server")]);
        let rules = RuleBased::new()
            .rule(|span| span.name == "other", Probability(0.0))
            .rule(|span| *span.kind == SpanKind::Server, annotated);
        let sampler = CompositeSampler::new(rules);
        let sample = |name, kind| sampler.should_sample(None, TraceId::from(1), name, &kind, &[], &[]);
        let login = sample("login", SpanKind::Server);
        assert_eq!(login.decision, RecordAndSample);
        assert_eq!(login.attributes, [rule("server")]);
        assert_eq!(sample("other", SpanKind::Server).decision, Drop);
        assert_eq!(sample("login", SpanKind::Client).decision, Drop);
    }
}
