//! `/completions`: fields, attributes and their values for the query line.

use serde::Serialize;

use super::{error::PageError, explorer::Explorer, parameters::Parameters};
use crate::store::{Completions, Subject};

/// Completions of a query; without a key, `values` is empty, and else the other lists are.
#[derive(Serialize)]
pub(super) struct List {
    fields: Vec<&'static str>,
    keys: Completions,
    values: Completions,
}

pub(super) fn completions(explorer: &Explorer, parameters: &mut Parameters) -> Result<List, PageError> {
    let subject = parameters.parsed("page", "must be `traces` or `logs`", |page| match page {
        "traces" => Some(Subject::Spans),
        "logs" => Some(Subject::Records),
        _ => None,
    })?;
    let subject = subject.unwrap_or(Subject::Spans);
    let key = parameters.text("key")?;
    parameters.finish()?;
    Ok(match key {
        None => List {
            fields: subject.fields().collect(),
            keys: explorer.store.completions(subject, None),
            values: Completions::new(),
        },
        Some(key) => List {
            fields: subject.values(&key),
            keys: Completions::new(),
            values: explorer
                .store
                .completions(subject, Some(Subject::attribute(&key))),
        },
    })
}
