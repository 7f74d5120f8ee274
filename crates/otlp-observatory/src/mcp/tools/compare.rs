//! `compare`: two traces, or the time before and after a change.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::query::{Query, parameters};
use crate::mcp::{
    answer::Answer,
    source::{Failure, Source},
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Compare {
    /// Trace id to compare with b
    a: Option<String>,
    /// Trace id
    b: Option<String>,
    /// Moment of a change: an age such as 10m, or an RFC 3339 time
    at: Option<String>,
    /// Length of the time before and after "at" (default 15m)
    window: Option<String>,
    /// Maximum size of the answer in bytes, 1024 to 65536 (default 4096)
    max_bytes: Option<usize>,
}

impl Query for Compare {
    const NAME: &'static str = "compare";
    const TITLE: &'static str = "Compare";
    const DESCRIPTION: &'static str = "\
Compares two traces (a, b), or the requests of each route before and after a moment (at), such as a restart or a change: \
counts, errors and durations, the largest differences first.";

    async fn answer(self, source: &Source) -> Result<String, Failure> {
        let given = parameters([
            ("a", self.a),
            ("b", self.b),
            ("at", self.at),
            ("window", self.window),
        ]);
        let found: Value = source.get(&["compare"], &given).await?;
        let mut answer = Answer::new(self.max_bytes, "Comparison");
        answer.line(&found.to_string());
        Ok(answer.finish(""))
    }
}
