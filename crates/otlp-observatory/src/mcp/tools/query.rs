//! What the tools have in common.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::mcp::source::{Failure, Parameters, Source};

/// A tool that only reads.
pub(super) trait Query: DeserializeOwned + JsonSchema + 'static {
    const NAME: &'static str;
    const TITLE: &'static str;
    /// Guide for a model: purpose, and when to prefer another tool.
    const DESCRIPTION: &'static str;

    /// Returns the text of the answer.
    fn answer(self, source: &Source) -> impl Future<Output = Result<String, Failure>> + Send;
}

/// Returns the query parameters that have a value.
pub(super) fn parameters<const N: usize>(given: [(&'static str, Option<String>); N]) -> Parameters {
    given
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}
