//! Composition of canvases, and the check that Celery's workers will run them as intended.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;

use super::{
    node::{CanvasError, Kind, Node, STARMAP},
    replace::link,
};
use crate::message::seconds;

/// One or more tasks that are not sent yet.
///
/// ```
/// use celeriac::{Signature, group};
/// // Fetches a page, counts its words and its links concurrently, and stores both.
/// let canvas = Signature::new("fetch").arg("https://example.com/")
///     .then(group([Signature::new("words"), Signature::new("links")]))
///     .then(Signature::new("store"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a canvas runs only when a client sends it"]
pub struct Canvas(pub(crate) Node);

/// Creates a chain: tasks that run one after another, each with the previous return value as its first
/// argument. A group that another task follows becomes a chord, and passes on the list of its return values.
pub fn chain<T: Into<Canvas>>(tasks: impl IntoIterator<Item = T>) -> Canvas {
    Canvas(Node::chain(nodes(tasks)))
}

/// Creates a group: tasks that run concurrently.
pub fn group<T: Into<Canvas>>(tasks: impl IntoIterator<Item = T>) -> Canvas {
    Canvas(Node::group(nodes(tasks)))
}

/// Creates a chord: the tasks of the header run concurrently, then the body runs with the list of their
/// return values, in order. If one of them fails, the body fails with `ChordError` and does not run.
pub fn chord<T: Into<Canvas>>(header: impl IntoIterator<Item = T>, body: impl Into<Canvas>) -> Canvas {
    Canvas(Node::chord(nodes(header), body.into().0))
}

/// Creates a group of tasks, each of which calls `task` once for up to `size` items of `items`, whose elements are the
/// lists of positional arguments. Celery's `chunks`; the group returns a list of lists.
///
/// ```
/// use celeriac::chunks;
///
/// // Two messages instead of three: [[2, 4], [6]]
/// let canvas = chunks("math.add", [(1, 1), (2, 2), (3, 3)].map(|(a, b)| vec![a, b]), 2);
/// ```
///
/// # Panics
/// Panics if `size` is 0.
pub fn chunks<I: Into<Value>>(
    task: impl Into<String>,
    items: impl IntoIterator<Item = I>,
    size: usize,
) -> Canvas {
    let task = Node::new(task, Kind::Task).encode();
    let items: Vec<Value> = items.into_iter().map(Into::into).collect();
    let parts = items.chunks(size);
    let parts = parts.map(|part| Node::over_items(STARMAP, task.clone(), part.to_vec()));
    Canvas(Node::group(parts.collect()))
}

fn nodes<T: Into<Canvas>>(tasks: impl IntoIterator<Item = T>) -> Vec<Node> {
    tasks.into_iter().map(|task| task.into().0).collect()
}

/// Serialises as Celery's dictionary, which Python's `signature()` reads.
///
/// ```
/// use celeriac::{Canvas, Signature};
///
/// let canvas = Signature::new("fetch").arg(1).then(Signature::new("store"));
/// let dictionary = serde_json::to_value(&canvas)?;
/// assert_eq!(dictionary["task"], "celery.chain");
/// assert_eq!(serde_json::from_value::<Canvas>(dictionary)?, canvas);
/// # Ok::<(), serde_json::Error>(())
/// ```
impl Serialize for Canvas {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.encode().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Canvas {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let dictionary = Value::deserialize(deserializer)?;
        Node::decode(&dictionary).map(Self).map_err(D::Error::custom)
    }
}

impl Canvas {
    /// Returns a chain of this canvas and `next`, which receives the return value. Celery's `|`.
    pub fn then(self, next: impl Into<Self>) -> Self {
        let next = next.into().0;
        let mut tasks = match self.0.kind {
            Kind::Chain(tasks) if self.0.options.is_empty() => tasks,
            _ => vec![self.0],
        };
        tasks.push(next);
        Self(Node::chain(tasks))
    }

    /// Sets the queue of all its tasks that do not name one. Without a queue, a task goes to the default queue of
    /// the process that sends it, which for later tasks is a worker.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.0.set_default("queue", &Value::String(queue.into()));
        self
    }

    /// Sets the priority of all tasks in the canvas that do not have one; see
    /// [`Signature::priority`](crate::Signature::priority).
    pub fn priority(mut self, priority: u8) -> Self {
        self.0.set_default("priority", &priority.min(9).into());
        self
    }

    /// Sets the minimum delay between sending and running the tasks that can run immediately: the first task of a
    /// chain, all tasks of a group, and the header of a chord, as in Celery.
    pub fn countdown(mut self, countdown: Duration) -> Self {
        self.0.set("countdown", seconds(countdown));
        self
    }

    /// Adds positional arguments of the tasks that can run immediately, before their own, like the `args` of Celery's
    /// `apply_async`: the first task of a chain, all tasks of a group, and the header of a chord. Immutable
    /// signatures ignore them.
    pub fn args(mut self, args: impl IntoIterator<Item = Value>) -> Self {
        self.0.prepend(&args.into_iter().collect::<Vec<_>>());
        self
    }

    /// Adds a task that runs with the return value once the canvas has succeeded, like Celery's `link`: after the
    /// last task of a chain, and after the body of a chord. For a group, it runs after the first task, as in
    /// Celery.
    pub fn on_success(mut self, callback: impl Into<Self>) -> Self {
        link(&mut self.0, &[callback.into().0.encode()]);
        self
    }

    /// Adds a task that runs with the id of a failed task, like Celery's `link_error`. For a chain, it runs
    /// when any task fails; for a chord, when the body fails, as it also does when a part of the header
    /// fails.
    pub fn on_error(mut self, errback: impl Into<Self>) -> Self {
        self.0.link_errors(&[errback.into().0.encode()]);
        self
    }

    /// Adds a stamp to all tasks, callbacks and errbacks in the canvas, like Celery's `stamp`. Workers can revoke
    /// tasks by their stamps. A stamp with the same name is replaced.
    pub fn stamp(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.0.stamp(&name.into(), &value.into());
        self
    }

    /// Returns an error if Celery's workers would not run the canvas as intended.
    pub(crate) fn check(&self) -> Result<(), CanvasError> {
        check(&self.0)
    }
}

fn check(node: &Node) -> Result<(), CanvasError> {
    match &node.kind {
        Kind::Task => Ok(()),
        Kind::Chain(tasks) if tasks.is_empty() => Err(CanvasError::Empty("a chain")),
        Kind::Group(tasks) if tasks.is_empty() => Err(CanvasError::Empty("a group")),
        Kind::Chain(tasks) => {
            for pair in tasks.windows(2) {
                if let Kind::Group(header) = &pair[0].kind {
                    check_header(header)?;
                }
            }
            tasks.iter().try_for_each(check)
        }
        Kind::Group(tasks) => tasks.iter().try_for_each(check),
        Kind::Chord(chord) => {
            check_header(&chord.header)?;
            chord.header.iter().try_for_each(check)?;
            check(&chord.body)
        }
    }
}

/// Rejects headers with a part that ends in a group, because Celery 5.6 miscounts its results.
fn check_header(header: &[Node]) -> Result<(), CanvasError> {
    let ends_in_group = |node: &Node| !matches!(node.kind, Kind::Group(_)) && node.ends_in_group();
    if header.iter().any(ends_in_group) {
        return Err(CanvasError::Unsupported(
            "a part of a chord's header cannot end in a group; let a task follow that group",
        ));
    }
    Ok(())
}
