//! Joins the results of a chord's header for its body.

use std::collections::HashMap;

use serde_json::Value;

use crate::worker::{confirm::until_confirmed, shared::Shared};
use crate::{exception::Exception, repr, result_tree::ResultTree, task_id::TaskId};

/// Reason that a chord's body cannot run.
#[derive(Debug, Clone)]
pub(in crate::worker) struct Unjoined {
    /// `ChordError` with which the body fails.
    pub error: Exception,
    /// Exception of the part that failed. If the body is a group, its members fail with this exception.
    pub cause: Option<Box<Exception>>,
}

/// Returns the list of the header's results, or the `ChordError` of the first part that failed.
pub(super) async fn join(
    shared: &Shared,
    id: &TaskId,
    parts: &[Value],
    group: Option<&Value>,
) -> Result<Value, Unjoined> {
    let structure = group.and_then(|group| ResultTree::from_tuple(&group["result"]));
    if let Some(structure) = structure.filter(|structure| structure.children.is_some()) {
        // A member that has not settled yet has recorded its part but not stored its result.
        let known = parts.iter();
        let known = known.filter_map(|part| Some((part[1].as_str()?, (part[2].as_str()?, &part[3]))));
        return nested(shared, id, &known.collect(), &structure).await;
    }
    let value = |part: &Value| {
        let status = part[2].as_str().unwrap_or_default();
        value(part[1].as_str().unwrap_or_default(), status, &part[3])
    };
    parts
        .iter()
        .map(value)
        .collect::<Result<_, _>>()
        .map(Value::Array)
}

/// States and results of tasks, by id.
type Known<'a> = HashMap<&'a str, (&'a str, &'a Value)>;

/// Returns the value of a part, which may itself be a group, on behalf of the task `id`. Results that are not
/// `known` are read one by one.
pub(in crate::worker) async fn nested(
    shared: &Shared,
    id: &TaskId,
    known: &Known<'_>,
    tree: &ResultTree,
) -> Result<Value, Unjoined> {
    if let Some(children) = &tree.children {
        let mut values = Vec::with_capacity(children.len());
        for child in children {
            values.push(Box::pin(nested(shared, id, known, child)).await?);
        }
        return Ok(Value::Array(values));
    }
    if let Some((status, result)) = known.get(&*tree.id) {
        return value(&tree.id, status, result);
    }
    let stored = until_confirmed(id, || shared.broker.result(&tree.id)).await;
    match stored.flatten() {
        Some(meta) => value(&tree.id, meta.status.as_str(), &meta.result),
        None => Err(chord_error(
            "Join error: a result of the header is not stored".to_owned(),
        )),
    }
}

fn value(id: &str, status: &str, result: &Value) -> Result<Value, Unjoined> {
    match status {
        "FAILURE" | "REVOKED" => {
            let text = represented(result);
            Err(Unjoined {
                cause: Some(Box::new(Exception::from_result(result))),
                ..chord_error(format!("Dependency {id} raised {text}"))
            })
        }
        _ => Ok(result.clone()),
    }
}

/// Formats an exception as Python does: `ValueError('no')`.
fn represented(exception: &Value) -> String {
    let name = exception["exc_type"].as_str().unwrap_or("Exception");
    let arguments = match &exception["exc_message"] {
        Value::Null => String::new(),
        Value::Array(arguments) => arguments.iter().map(repr::value).collect::<Vec<_>>().join(", "),
        single => repr::value(single),
    };
    format!("{}({arguments})", name.rsplit('.').next().unwrap_or(name))
}

pub(super) fn chord_error(message: String) -> Unjoined {
    Unjoined {
        error: Exception::new("ChordError", message).module("celery.exceptions"),
        cause: None,
    }
}
