//! Hints: conditions that everything a search finds satisfies, for an index of the archive. They may accept more than the search.

use super::{
    grams,
    ids::TraceId,
    log_search::LogSearch,
    search::{StatusFilter, TraceSearch},
};

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

impl TraceSearch {
    /// Returns the necessary conditions of the search.
    pub(crate) fn hint(&self) -> Hint {
        let mut hint = Hint {
            failed: self.status == Some(StatusFilter::Error),
            min_duration: self.min_duration.unwrap_or(0),
            ..Hint::default()
        };
        let mut add = |gram| hint.grams.push(gram);
        if let Some(service) = &self.service {
            grams::of_whole(service.as_bytes(), &mut add);
        }
        if let Some(name) = &self.name {
            name.grams_of_words(&mut add);
        }
        if let Some(text) = &self.text {
            text.grams(&mut add);
        }
        for attribute in &self.attributes {
            attribute.grams(&mut add);
        }
        if let Some(query) = &self.query {
            query.hint(&mut hint);
            hint.trace = query.trace();
        }
        hint
    }
}

impl LogSearch {
    /// Returns the necessary conditions of the search.
    pub(crate) fn hint(&self) -> Hint {
        let mut hint = Hint {
            trace: self.trace,
            ..Hint::default()
        };
        let mut add = |gram| hint.grams.push(gram);
        if let Some(service) = &self.service {
            grams::of_whole(service.as_bytes(), &mut add);
        }
        if let Some(severity) = self.severity {
            grams::of_severity(severity, &mut add);
        }
        if let Some(text) = &self.text {
            text.grams(&mut add);
        }
        for attribute in &self.attributes {
            attribute.grams(&mut add);
        }
        if let Some(query) = &self.query {
            query.hint(&mut hint);
        }
        hint
    }
}
