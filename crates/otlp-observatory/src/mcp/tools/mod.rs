//! The tools: their names, descriptions and arguments. Each is a query whose fields are its arguments.

mod compare;
mod logs;
mod metrics;
mod problems;
mod trace;
mod traces;

use rmcp::{
    handler::server::tool::schema_for_input,
    model::{JsonObject, Tool, ToolAnnotations},
};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::{
    compare::Compare, logs::FindLogs, metrics::GetMetrics, problems::FindProblems, trace::GetTrace,
    traces::FindTraces,
};
use super::source::{Failure, Parameters, Source};

/// A tool that only reads.
trait Query: DeserializeOwned + JsonSchema + 'static {
    const NAME: &'static str;
    const TITLE: &'static str;
    /// Guide for a model: purpose, and when to prefer another tool.
    const DESCRIPTION: &'static str;

    /// Returns the text of the answer.
    fn answer(self, source: &Source) -> impl Future<Output = Result<String, Failure>> + Send;
}

/// Returns the descriptions of all tools.
pub(super) fn all() -> Vec<Tool> {
    vec![
        describe::<FindProblems>(),
        describe::<FindTraces>(),
        describe::<GetTrace>(),
        describe::<FindLogs>(),
        describe::<GetMetrics>(),
        describe::<Compare>(),
    ]
}

fn describe<T: Query>() -> Tool {
    let schema = schema_for_input::<T>().expect("the arguments of a tool are an object");
    let annotations = ToolAnnotations::with_title(T::TITLE)
        .read_only(true)
        .idempotent(true)
        .open_world(false);
    Tool::new(T::NAME, T::DESCRIPTION, schema).with_annotations(annotations)
}

/// Calls a tool. Returns `None` if there is no tool with this name.
pub(super) async fn call(
    source: &Source,
    name: &str,
    arguments: JsonObject,
) -> Option<Result<String, Failure>> {
    let answer = match name {
        FindProblems::NAME => run::<FindProblems>(source, arguments).await,
        FindTraces::NAME => run::<FindTraces>(source, arguments).await,
        GetTrace::NAME => run::<GetTrace>(source, arguments).await,
        FindLogs::NAME => run::<FindLogs>(source, arguments).await,
        GetMetrics::NAME => run::<GetMetrics>(source, arguments).await,
        Compare::NAME => run::<Compare>(source, arguments).await,
        _ => return None,
    };
    Some(answer)
}

async fn run<T: Query>(source: &Source, mut arguments: JsonObject) -> Result<String, Failure> {
    // Models pass null for arguments that they leave out.
    arguments.retain(|_, value| !value.is_null());
    let query: T =
        serde_json::from_value(Value::Object(arguments)).map_err(|error| format!("arguments: {error}"))?;
    query.answer(source).await
}

/// Returns the query parameters that have a value.
fn parameters<const N: usize>(given: [(&'static str, Option<String>); N]) -> Parameters {
    given
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}
