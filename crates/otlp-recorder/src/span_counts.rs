//! Numbers of started spans, for the metrics `otel.sdk.span.*`. Started spans are counted with one atomic addition each;
//! ended spans are those that the queue has received.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use opentelemetry::trace::{Link, SpanContext, SpanKind, TraceContextExt, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample};

/// Values of `otel.span.parent.origin`.
pub(crate) const ORIGINS: [&str; 3] = ["none", "local", "remote"];

/// Values of `otel.span.sampling_result`.
pub(crate) const RESULTS: [&str; 3] = ["DROP", "RECORD_ONLY", "RECORD_AND_SAMPLE"];

/// Numbers of the spans of a pipeline.
#[derive(Debug, Default)]
pub(crate) struct SpanCounts {
    /// Spans of the recorder.
    recorded: Started,
    /// Spans about which a [`CountingSampler`] decided.
    sampled: Started,
    /// Exported spans of the SDK.
    sdk_exported: AtomicU64,
    /// Open spans of the SDK that are not exported.
    sdk_record_only: AtomicI64,
}

/// Numbers of started spans by [`ORIGINS`] and [`RESULTS`].
#[derive(Debug, Default)]
struct Started([[AtomicU64; 3]; 3]);

impl Started {
    fn add(&self, parent: &SpanContext, decision: &SamplingDecision) {
        let origin = match (parent.is_valid(), parent.is_remote()) {
            (false, _) => 0,
            (true, false) => 1,
            (true, true) => 2,
        };
        self.0[origin][result(decision)].fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self, origin: usize, result: usize) -> u64 {
        self.0[origin][result].load(Ordering::Relaxed)
    }
}

/// Returns the index in [`RESULTS`].
fn result(decision: &SamplingDecision) -> usize {
    match decision {
        SamplingDecision::Drop => 0,
        SamplingDecision::RecordOnly => 1,
        SamplingDecision::RecordAndSample => 2,
    }
}

impl SpanCounts {
    /// Counts a span that the recorder starts.
    pub(crate) fn start(&self, parent: &SpanContext, is_sampled: bool) {
        let decision = match is_sampled {
            true => SamplingDecision::RecordAndSample,
            false => SamplingDecision::Drop,
        };
        self.recorded.add(parent, &decision);
    }

    /// Counts the start of a recording span of the SDK.
    pub(crate) fn start_sdk(&self, is_sampled: bool) {
        if is_sampled {
            self.sdk_exported.fetch_add(1, Ordering::Relaxed);
        } else {
            self.sdk_record_only.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts the end of a span of the SDK that is not exported.
    pub(crate) fn end_record_only(&self) {
        self.sdk_record_only.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns the numbers of started spans, with their indices in [`ORIGINS`] and [`RESULTS`].
    pub(crate) fn started(&self) -> impl Iterator<Item = (usize, usize, u64)> {
        let indices =
            (0..ORIGINS.len()).flat_map(|origin| (0..RESULTS.len()).map(move |result| (origin, result)));
        indices.map(|(origin, result)| {
            let count = self.recorded.get(origin, result) + self.sampled.get(origin, result);
            (origin, result, count)
        })
    }

    /// Returns the numbers of recording spans that have not ended, with their index in [`RESULTS`]. `ended` is the number
    /// of spans that the queue has received, read before.
    pub(crate) fn live(&self, ended: u64) -> [(usize, i64); 2] {
        let sampled = result(&SamplingDecision::RecordAndSample);
        let recorded: u64 = (0..ORIGINS.len())
            .map(|origin| self.recorded.get(origin, sampled))
            .sum();
        let started = recorded + self.sdk_exported.load(Ordering::Relaxed);
        [
            (sampled, started.cast_signed() - ended.cast_signed()),
            (
                result(&SamplingDecision::RecordOnly),
                self.sdk_record_only.load(Ordering::Relaxed),
            ),
        ]
    }
}

/// A sampler that counts the spans about which another one decides.
#[derive(Clone, Debug)]
pub(crate) struct CountingSampler {
    pub(crate) inner: Box<dyn ShouldSample>,
    pub(crate) counts: Arc<SpanCounts>,
}

impl ShouldSample for CountingSampler {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let result = self
            .inner
            .should_sample(parent, trace_id, name, kind, attributes, links);
        match parent {
            Some(parent) => self
                .counts
                .sampled
                .add(parent.span().span_context(), &result.decision),
            None => self.counts.sampled.add(&SpanContext::NONE, &result.decision),
        }
        result
    }
}
