//! `/compare`: two traces, or requests and tasks before and after a moment.

use serde::Serialize;

use super::{error::PageError, explorer::Explorer, parameters::Parameters};
use crate::store::{TimeComparison, TraceComparison, now};

/// Comparison of traces if `a` and `b` are given, or else of spans of time.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Comparison {
    Traces(Box<TraceComparison>),
    Times(TimeComparison),
}

pub(super) fn compare(explorer: &Explorer, parameters: &mut Parameters) -> Result<Comparison, PageError> {
    let (a, b) = (parameters.id_of_trace("a")?, parameters.id_of_trace("b")?);
    let store = &explorer.store;
    match (a, b) {
        (None, None) => {
            let window = parameters.window()?;
            let at = parameters.timestamp("at")?;
            parameters.finish()?;
            let now = now();
            let at = at.unwrap_or_else(|| now.saturating_sub(window)).min(now);
            Ok(Comparison::Times(store.compare_times(at, window, now)))
        }
        (Some(a), Some(b)) => {
            parameters.finish()?;
            let compared = store.compare_traces(a, b).ok_or(PageError::NotStored("trace"))?;
            Ok(Comparison::Traces(Box::new(compared)))
        }
        (given, _) => {
            let missing = if given.is_some() { "b" } else { "a" };
            Err(PageError::parameter(
                missing,
                "must be the id of the trace to compare with",
            ))
        }
    }
}
