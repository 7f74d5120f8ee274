//! Tasks with the types of their arguments and return values, which clients and workers share.

use std::{fmt, marker::PhantomData, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    async_result::{AsyncResult, WaitError},
    canvas::{Canvas, CanvasError},
    client::{ApplyError, Client},
    signature::Signature,
};

/// Name of a task with the types of its arguments, usually a tuple, and its return value.
///
/// A worker that registers the task with [`typed_task`](crate::WorkerBuilder::typed_task) and a client that calls it
/// agree on the types when they are compiled.
///
/// ```
/// # use std::{sync::Arc, time::Duration};
/// # use celeriac::{
/// #     Broker, CancellationToken, Client, MemoryBroker, TaskContext, TaskError, TaskOptions, TaskType, Worker,
/// # };
/// const ADD: TaskType<(i64, i64), i64> = TaskType::new("math.add");
///
/// async fn add(_: TaskContext, (a, b): (i64, i64)) -> Result<i64, TaskError> {
///     Ok(a + b)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(100));
/// let worker = Worker::builder(broker.clone()).typed_task(ADD, TaskOptions::new(), add).build();
/// # let shutdown = CancellationToken::new();
/// # let running = tokio::spawn(worker.run(shutdown.clone(), Duration::from_secs(5)));
/// # let client = Client::new(broker);
/// let call = ADD.signature((2, 3))?.with(|signature| signature.priority(3));
/// let sum: i64 = client.call(call).await?.wait(Duration::from_secs(5)).await?;
/// assert_eq!(sum, 5);
/// # shutdown.cancel();
/// # running.await??;
/// # Ok(())
/// # }
/// ```
pub struct TaskType<A, R> {
    name: &'static str,
    types: PhantomData<fn(A) -> R>,
}

/// Call of a [`TaskType`], before it is sent.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a signature runs only when a client sends it"]
pub struct TypedSignature<R> {
    signature: Signature,
    returned: PhantomData<fn() -> R>,
}

/// Handle to the result of a [`TaskType`].
#[derive(Debug, Clone)]
pub struct TypedResult<R> {
    result: AsyncResult,
    returned: PhantomData<fn() -> R>,
}

impl<A, R> TaskType<A, R> {
    /// Creates the type of the task registered under this name.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            types: PhantomData,
        }
    }

    /// Returns the name of the task.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Creates a call with these arguments.
    ///
    /// # Errors
    /// Returns an error if the arguments are not a list in JSON, such as a tuple.
    pub fn signature(&self, args: A) -> Result<TypedSignature<R>, CanvasError>
    where
        A: Serialize,
    {
        let args = match serde_json::to_value(args) {
            Ok(Value::Array(args)) => args,
            Ok(Value::Null) => Vec::new(),
            _ => {
                return Err(CanvasError::Unsupported(
                    "the arguments of a task must be a list in JSON",
                ));
            }
        };
        Ok(TypedSignature {
            signature: Signature::new(self.name).args(args),
            returned: PhantomData,
        })
    }
}

impl<A, R> Clone for TaskType<A, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A, R> Copy for TaskType<A, R> {}

impl<A, R> fmt::Debug for TaskType<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TaskType").field(&self.name).finish()
    }
}

impl<R> TypedSignature<R> {
    /// Sets options of the call, such as its queue.
    pub fn with(mut self, options: impl FnOnce(Signature) -> Signature) -> Self {
        self.signature = options(self.signature);
        self
    }
}

impl<R> From<TypedSignature<R>> for Signature {
    fn from(typed: TypedSignature<R>) -> Self {
        typed.signature
    }
}

impl<R> From<TypedSignature<R>> for Canvas {
    fn from(typed: TypedSignature<R>) -> Self {
        typed.signature.into()
    }
}

impl<R: DeserializeOwned> TypedResult<R> {
    /// Waits for the return value.
    ///
    /// # Errors
    /// See [`WaitError`].
    pub async fn wait(&self, time: Duration) -> Result<R, WaitError> {
        self.result.wait_as(time).await
    }
}

impl<R> TypedResult<R> {
    /// Returns the handle without the type.
    #[must_use]
    pub const fn untyped(&self) -> &AsyncResult {
        &self.result
    }
}

impl Client {
    /// Sends a call of a [`TaskType`], like [`apply`](Self::apply).
    ///
    /// # Errors
    /// Returns an error if the broker does not confirm.
    pub async fn call<R>(&self, call: TypedSignature<R>) -> Result<TypedResult<R>, ApplyError> {
        Ok(TypedResult {
            result: self.apply(call).await?,
            returned: PhantomData,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_become_the_positional_arguments_of_the_signature() {
        let add: TaskType<(i64, Option<&str>), ()> = TaskType::new("add");
        let call = add.signature((2, None)).unwrap().with(|call| call.queue("q"));
        assert_eq!(
            Signature::from(call),
            Signature::new("add").arg(2).arg(json!(null)).queue("q")
        );
        let none: TaskType<(), ()> = TaskType::new("none");
        assert_eq!(
            Signature::from(none.signature(()).unwrap()),
            Signature::new("none")
        );
        let number: TaskType<i64, ()> = TaskType::new("number");
        assert!(number.signature(1).is_err(), "a list is required");
    }
}
