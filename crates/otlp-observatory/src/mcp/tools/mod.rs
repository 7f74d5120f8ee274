//! The tools: their names, descriptions and arguments. Each is a query whose fields are its arguments.

mod compare;
mod logs;
mod metrics;
mod problems;
mod query;
mod trace;
mod traces;

use std::sync::Arc;

use rmcp::{
    handler::server::tool::schema_for_input,
    model::{JsonObject, Tool, ToolAnnotations},
};
use serde_json::Value;

use self::{
    compare::Compare, logs::FindLogs, metrics::GetMetrics, problems::FindProblems, query::Query,
    trace::GetTrace, traces::FindTraces,
};
use super::source::{Failure, Source};

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
    let mut schema = Arc::unwrap_or_clone(schema);
    schema.remove("$schema");
    // Formats such as `uint16` and lists of types are unknown to some clients.
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for property in properties
        .into_iter()
        .flat_map(|properties| properties.values_mut())
    {
        if let Some(property) = property.as_object_mut() {
            property.retain(|key, _| !matches!(&**key, "format" | "minimum" | "maximum"));
            if let Some(Value::Array(types)) = property.get_mut("type") {
                let first = types.swap_remove(0);
                property.insert("type".to_owned(), first);
            }
        }
    }
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
