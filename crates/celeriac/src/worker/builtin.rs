//! Celery's built-in tasks, which clients send for parts of canvases: every worker has to know them.

use std::{collections::HashMap, time::Duration};

use serde_json::{Map, Value};

use super::{
    follow::{self, Unjoined},
    registry::{Builtin, Code},
    shared::Shared,
};
use crate::{
    canvas::{Canvas, Node, STARMAP},
    context::TaskContext,
    exception::Exception,
    result_tree::ResultTree,
    retry::Retry,
    task_error::TaskError,
    task_id::TaskId,
};

/// Delay between two checks of `celery.chord_unlock`. Celery's `result_chord_retry_interval`.
const UNLOCK_INTERVAL: Duration = Duration::from_secs(1);

/// Reason that a task's code ended without a return value.
pub(super) enum NoValue {
    Error(TaskError),
    /// The header of a chord has ended: its body runs with these values, or fails.
    ChordBody {
        body: Value,
        values: Result<Value, Unjoined>,
    },
}

impl<E: Into<TaskError>> From<E> for NoValue {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// Runs a built-in task.
pub(super) async fn run(
    shared: &Shared,
    builtin: Builtin,
    context: TaskContext,
    args: Vec<Value>,
    kwargs: Map<String, Value>,
) -> Result<Value, NoValue> {
    let call = Call {
        shared,
        context,
        args,
        kwargs,
    };
    match builtin {
        Builtin::Accumulate => Ok(call.accumulate()?),
        // Redis deletes expired results itself.
        Builtin::BackendCleanup => Ok(Value::Null),
        Builtin::Chain => {
            let error = Exception::new("NotImplementedError", "chain is not a real task");
            Err(TaskError::Failed(error).into())
        }
        Builtin::Chord => Ok(call.chord().await?),
        Builtin::ChordUnlock => call.chord_unlock().await,
        Builtin::Chunks => Ok(call.chunks().await?),
        Builtin::Group => Ok(call.group().await?),
        Builtin::Map => Ok(call.map(|item| vec![item]).await?),
        Builtin::Starmap => Ok(call.map(unpacked).await?),
    }
}

/// Call of a built-in task.
struct Call<'a> {
    shared: &'a Shared,
    context: TaskContext,
    args: Vec<Value>,
    kwargs: Map<String, Value>,
}

impl Call<'_> {
    /// Returns an argument that is passed by position or by name; null if it is missing.
    fn argument(&self, position: usize, name: &str) -> Value {
        let argument = self.args.get(position).or_else(|| self.kwargs.get(name));
        argument.cloned().unwrap_or_default()
    }

    /// Returns the arguments, or the one at `index`.
    fn accumulate(mut self) -> Result<Value, TaskError> {
        let Some(index) = self.kwargs.get("index").filter(|index| !index.is_null()) else {
            return Ok(Value::Array(self.args));
        };
        let position = index.as_u64().and_then(|index| usize::try_from(index).ok());
        let position = position.filter(|position| *position < self.args.len());
        let position = position.ok_or_else(|| Exception::new("IndexError", "tuple index out of range"))?;
        Ok(self.args.swap_remove(position))
    }

    /// Runs a task once for each item, one after another, and returns the list of the return values.
    async fn map(self, arguments: impl Fn(Value) -> Vec<Value>) -> Result<Value, TaskError> {
        let task = Node::decode(&self.argument(0, "task"))?.task;
        let Value::Array(items) = self.argument(1, "it") else {
            return Err(Exception::new("TypeError", "the items are not a list").into());
        };
        let registered = self.shared.registry.get(&task);
        let Some((registered, Code::User(handler))) =
            registered.map(|registered| (registered, &registered.code))
        else {
            let error = Exception::new("NotRegistered", task).module("celery.exceptions");
            return Err(error.into());
        };
        let mut values = Vec::with_capacity(items.len());
        for item in items {
            let context = TaskContext {
                task: task.clone(),
                ..self.context.clone()
            };
            let call = registered.call(handler, context, arguments(item), Map::new());
            values.push(call.map_err(TaskError::Failed)?.await?);
        }
        Ok(Value::Array(values))
    }

    /// Sends a group with one `celery.starmap` for every `n` items.
    async fn chunks(self) -> Result<Value, TaskError> {
        let (task, size) = (self.argument(0, "task"), self.argument(2, "n").as_u64());
        let Value::Array(items) = self.argument(1, "it") else {
            return Err(Exception::new("TypeError", "the items are not a list").into());
        };
        let size = size
            .and_then(|size| usize::try_from(size).ok())
            .unwrap_or(1)
            .max(1);
        let parts = items.chunks(size);
        let parts = parts.map(|part| Node::over_items(STARMAP, task.clone(), part.to_vec()));
        self.send(Node::group(parts.collect())).await
    }

    async fn group(self) -> Result<Value, TaskError> {
        let result = self.argument(1, "result");
        let mut tasks = decoded(&self.argument(0, "tasks"))?;
        let partial = self.argument(3, "partial_args");
        for task in &mut tasks {
            task.args = task.args_after(partial.as_array().map_or(&[], Vec::as_slice));
        }
        let mut group = Node::group(tasks);
        if let Value::String(id) = self.argument(2, "group_id") {
            group.set("task_id", id);
        }
        self.send(group).await?;
        Ok(result)
    }

    async fn chord(self) -> Result<Value, TaskError> {
        let header = decoded(&self.argument(0, "header"))?;
        let body = Node::decode(&self.argument(1, "body"))?;
        let mut chord = Node::chord(header, body);
        if let Value::Array(partial) = self.argument(2, "partial_args") {
            chord.args = partial;
        }
        self.send(chord).await
    }

    async fn send(&self, node: Node) -> Result<Value, TaskError> {
        let sent = self.context.client().apply(Canvas(node)).await?;
        Ok(sent.as_tuple())
    }

    /// Runs the body of a chord once all results of its header are stored.
    async fn chord_unlock(self) -> Result<Value, NoValue> {
        let (group, body) = (self.argument(0, "group_id"), self.argument(1, "callback"));
        let id = group.as_str().unwrap_or_default();
        let results = self.argument(4, "result");
        let parts = results.as_array().into_iter().flatten();
        let parts = parts.map(|part| ResultTree::from_tuple(part).map(Into::into));
        let parts = parts.collect::<Option<Vec<_>>>();
        let parts = parts.ok_or_else(|| Exception::new("ValueError", "the results are not tuples"))?;
        let header = ResultTree::group(id, parts);
        let mut ids: Vec<TaskId> = Vec::new();
        header.tasks(&mut ids);
        let statuses = self.shared.broker.statuses(&ids).await?;
        if !statuses
            .iter()
            .all(|status| status.as_ref().is_some_and(|status| status.is_final()))
        {
            let interval = self.argument(2, "interval").as_f64();
            let interval = interval.and_then(|interval| Duration::try_from_secs_f64(interval).ok());
            let waiting = Exception::new("Retry", "the header of the chord has not ended");
            let retry = Retry::new(waiting).countdown(interval.unwrap_or(UNLOCK_INTERVAL));
            let maximum = self.argument(3, "max_retries").as_u64();
            return Err(retry
                .max_retries(maximum.and_then(|maximum| maximum.try_into().ok()))
                .into());
        }
        let values = follow::nested(self.shared, &self.context.id, &HashMap::new(), &header).await;
        Err(NoValue::ChordBody { body, values })
    }
}

fn decoded(signatures: &Value) -> Result<Vec<Node>, TaskError> {
    let tasks = match signatures {
        Value::Object(group) => group["kwargs"]["tasks"].as_array(),
        other => other.as_array(),
    };
    let tasks = tasks.into_iter().flatten();
    Ok(tasks.map(Node::decode).collect::<Result<_, _>>()?)
}

/// Returns the positional arguments of one call of `celery.starmap`.
fn unpacked(item: Value) -> Vec<Value> {
    match item {
        Value::Array(args) => args,
        single => vec![single],
    }
}
