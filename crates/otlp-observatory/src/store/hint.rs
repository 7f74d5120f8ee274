//! Hints: conditions that everything a search finds satisfies, for an index of the archive. They may accept more than the
//! search.

use super::ids::TraceId;

/// Necessary conditions of a search.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hint {
    /// Positions of grams that the texts contain.
    pub(crate) grams: Vec<u32>,
    /// Whether a span of the trace failed.
    pub(crate) failed: bool,
    /// Minimum duration of the longest span.
    pub(crate) min_duration: u64,
    /// Trace that is named. For traces, others match only if it is not stored.
    pub(crate) trace: Option<TraceId>,
}
