//! Signatures in Celery's wire format: dictionaries decoded from and encoded to JSON. A message may contain
//! anything, so decoding never panics, and its errors do not quote the content.

use serde_json::{Map, Value, json};
use thiserror::Error;

/// Names of the tasks that call another task once for each item.
pub(crate) const MAP: &str = "celery.map";
pub(crate) const STARMAP: &str = "celery.starmap";

/// A signature with its options under Celery's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub task: String,
    pub args: Vec<Value>,
    pub kwargs: Map<String, Value>,
    pub options: Map<String, Value>,
    /// Whether the signature ignores the result of the task before it.
    pub immutable: bool,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Task,
    /// Tasks that run one after another, each with the result of the previous one.
    Chain(Vec<Node>),
    /// Tasks that run concurrently.
    Group(Vec<Node>),
    Chord(Chord),
}

/// Tasks that run concurrently, and a task that receives their results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chord {
    pub header: Vec<Node>,
    /// Options of the header's group, once the group has an id.
    pub header_options: Map<String, Value>,
    pub body: Box<Node>,
}

/// Error for a canvas that cannot be sent, or for an invalid signature in a message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CanvasError {
    /// A chain or group without tasks.
    #[error("{0} has no tasks")]
    Empty(&'static str),
    /// Celery cannot express the canvas, or its workers would not run it as intended.
    #[error("{0}")]
    Unsupported(&'static str),
    /// A signature in a message is invalid.
    #[error("{0} of a signature is missing or has the wrong type")]
    Malformed(&'static str),
}

impl Chord {
    /// Returns the id of the header, if it already has one.
    pub(super) fn id(&self) -> Option<&str> {
        self.header_options.get("task_id").and_then(Value::as_str)
    }
}

impl Node {
    pub(crate) fn new(task: impl Into<String>, kind: Kind) -> Self {
        Self {
            task: task.into(),
            args: Vec::new(),
            kwargs: Map::new(),
            options: Map::new(),
            immutable: false,
            kind,
        }
    }

    /// Returns a call of `task` once for each item of `items` by one of Celery's built-in tasks.
    pub(crate) fn over_items(by: &str, task: Value, items: Vec<Value>) -> Self {
        let mut node = Self::new(by, Kind::Task);
        node.kwargs.insert("task".to_owned(), task);
        node.kwargs.insert("it".to_owned(), Value::Array(items));
        node.immutable = true;
        node
    }

    pub(crate) fn chain(tasks: Vec<Self>) -> Self {
        Self::new("celery.chain", Kind::Chain(tasks))
    }

    pub(crate) fn group(tasks: Vec<Self>) -> Self {
        Self::new("celery.group", Kind::Group(tasks))
    }

    pub(crate) fn chord(header: Vec<Self>, body: Self) -> Self {
        let chord = Chord {
            header,
            header_options: Map::new(),
            body: Box::new(body),
        };
        Self::new("celery.chord", Kind::Chord(chord))
    }

    /// Returns the option with this name, if it is text.
    pub(crate) fn text(&self, option: &str) -> Option<&str> {
        self.options.get(option).and_then(Value::as_str)
    }

    pub(crate) fn set(&mut self, option: &str, value: impl Into<Value>) {
        self.options.insert(option.to_owned(), value.into());
    }

    /// Sets an option of all tasks that do not have it.
    pub(crate) fn set_default(&mut self, option: &str, value: &Value) {
        match &mut self.kind {
            Kind::Task => {
                self.options.entry(option).or_insert_with(|| value.clone());
            }
            Kind::Chain(tasks) | Kind::Group(tasks) => {
                tasks.iter_mut().for_each(|task| task.set_default(option, value));
            }
            Kind::Chord(chord) => {
                chord
                    .header
                    .iter_mut()
                    .for_each(|task| task.set_default(option, value));
                chord.body.set_default(option, value);
            }
        }
    }

    /// Adds arguments before those of the tasks that can run immediately.
    pub(super) fn prepend(&mut self, args: &[Value]) {
        match &mut self.kind {
            Kind::Task => self.args = self.args_after(args),
            Kind::Chain(tasks) => tasks.iter_mut().take(1).for_each(|task| task.prepend(args)),
            Kind::Group(tasks) => tasks.iter_mut().for_each(|task| task.prepend(args)),
            Kind::Chord(chord) => chord.header.iter_mut().for_each(|task| task.prepend(args)),
        }
    }

    /// Adds signatures to the list option `link` or `link_error`, unless they are already in the list.
    pub(crate) fn link(&mut self, option: &str, signatures: &[Value]) {
        if signatures.is_empty() {
            return;
        }
        let mut linked = list(self.options.shift_remove(option));
        for signature in signatures {
            if !linked.contains(signature) {
                linked.push(signature.clone());
            }
        }
        self.set(option, linked);
    }

    /// Adds errbacks: to each member of a group, to the body of a chord, and to a task or chain itself.
    pub(crate) fn link_errors(&mut self, errbacks: &[Value]) {
        match &mut self.kind {
            Kind::Group(tasks) => tasks.iter_mut().for_each(|task| task.link_errors(errbacks)),
            Kind::Chord(chord) => chord.body.link_errors(errbacks),
            Kind::Task | Kind::Chain(_) => self.link("link_error", errbacks),
        }
    }

    /// Stamps all tasks, callbacks and errbacks. Invalid callbacks and errbacks are not changed.
    pub(crate) fn stamp(&mut self, name: &str, value: &Value) {
        for option in ["link", "link_error"] {
            let mut linked = list(self.options.shift_remove(option));
            for signature in &mut linked {
                if let Ok(mut node) = Self::decode(signature) {
                    node.stamp(name, value);
                    *signature = node.encode();
                }
            }
            if !linked.is_empty() {
                self.set(option, linked);
            }
        }
        match &mut self.kind {
            Kind::Task => {
                let mut names = list(self.options.shift_remove("stamped_headers"));
                if !names.iter().any(|known| known == name) {
                    names.push(name.into());
                }
                self.set("stamped_headers", names);
                self.set(name, value.clone());
            }
            Kind::Chain(tasks) | Kind::Group(tasks) => {
                tasks.iter_mut().for_each(|task| task.stamp(name, value));
            }
            Kind::Chord(chord) => {
                chord.header.iter_mut().for_each(|task| task.stamp(name, value));
                chord.body.stamp(name, value);
            }
        }
    }

    /// Returns whether the node ends in a group, whose results only a chord can pass on.
    pub(crate) fn ends_in_group(&self) -> bool {
        match &self.kind {
            Kind::Task => false,
            Kind::Group(_) => true,
            Kind::Chain(tasks) => tasks.last().is_some_and(Self::ends_in_group),
            Kind::Chord(chord) => chord.body.ends_in_group(),
        }
    }

    /// Returns the number of results that a chord waits for when this node is in its header.
    pub(crate) fn result_count(&self) -> u64 {
        match &self.kind {
            Kind::Task => 1,
            Kind::Group(tasks) => tasks.iter().map(Self::result_count).sum(),
            Kind::Chain(tasks) => {
                let mut counts = tasks.iter().rev().map(Self::result_count);
                counts.find(|count| *count > 0).unwrap_or(0)
            }
            Kind::Chord(chord) => chord.body.result_count(),
        }
    }

    /// Returns `args` followed by the signature's own positional arguments; only the latter if the signature
    /// is immutable.
    pub(crate) fn args_after(&self, args: &[Value]) -> Vec<Value> {
        if self.immutable {
            return self.args.clone();
        }
        args.iter().chain(&self.args).cloned().collect()
    }

    /// Decodes a signature.
    pub(crate) fn decode(value: &Value) -> Result<Self, CanvasError> {
        let Value::Object(map) = value else {
            return Err(CanvasError::Malformed("the dictionary"));
        };
        let task = map.get("task").and_then(Value::as_str);
        let mut kwargs = object(map, "kwargs")?;
        let kind = match map.get("subtask_type") {
            None | Some(Value::Null) => Kind::Task,
            Some(kind) => match kind.as_str() {
                Some("chain") => Kind::Chain(nodes(kwargs.shift_remove("tasks"))?),
                Some("group") => Kind::Group(nodes(kwargs.shift_remove("tasks"))?),
                Some("chord") => Kind::Chord(chord(&mut kwargs)?),
                _ => return Err(CanvasError::Malformed("the subtask_type")),
            },
        };
        Ok(Self {
            task: task.ok_or(CanvasError::Malformed("the task"))?.to_owned(),
            args: match map.get("args") {
                None | Some(Value::Null) => Vec::new(),
                Some(Value::Array(args)) => args.clone(),
                Some(_) => return Err(CanvasError::Malformed("args")),
            },
            kwargs,
            options: object(map, "options")?,
            immutable: map.get("immutable") == Some(&Value::Bool(true)),
            kind,
        })
    }

    /// Encodes the signature as Celery's dictionary.
    pub(crate) fn encode(&self) -> Value {
        let encoded = |nodes: &[Self]| Value::Array(nodes.iter().map(Self::encode).collect());
        let mut kwargs = self.kwargs.clone();
        let subtask_type = match &self.kind {
            Kind::Task => None,
            Kind::Chain(tasks) => {
                kwargs.insert("tasks".to_owned(), encoded(tasks));
                Some("chain")
            }
            Kind::Group(tasks) => {
                kwargs.insert("tasks".to_owned(), encoded(tasks));
                Some("group")
            }
            Kind::Chord(chord) => {
                let header = if chord.header_options.is_empty() {
                    encoded(&chord.header)
                } else {
                    let mut group = Self::group(chord.header.clone());
                    group.options = chord.header_options.clone();
                    group.encode()
                };
                kwargs.insert("kwargs".to_owned(), json!({}));
                kwargs.insert("header".to_owned(), header);
                kwargs.insert("body".to_owned(), chord.body.encode());
                Some("chord")
            }
        };
        json!({
            "task": self.task,
            "args": self.args,
            "kwargs": kwargs,
            "options": self.options,
            "subtask_type": subtask_type,
            "immutable": self.immutable,
        })
    }
}

fn chord(kwargs: &mut Map<String, Value>) -> Result<Chord, CanvasError> {
    kwargs.shift_remove("kwargs");
    let (header, header_options) = match kwargs.shift_remove("header") {
        Some(group @ Value::Object(_)) => {
            let node = Node::decode(&group)?;
            match node.kind {
                Kind::Group(tasks) => (tasks, node.options),
                _ => (vec![node], Map::new()),
            }
        }
        list => (nodes(list)?, Map::new()),
    };
    let body = kwargs.shift_remove("body");
    let body = Node::decode(&body.ok_or(CanvasError::Malformed("the body"))?)?;
    Ok(Chord {
        header,
        header_options,
        body: Box::new(body),
    })
}

fn nodes(tasks: Option<Value>) -> Result<Vec<Node>, CanvasError> {
    match tasks {
        Some(Value::Array(tasks)) => tasks.iter().map(Node::decode).collect(),
        _ => Err(CanvasError::Malformed("the list of tasks")),
    }
}

fn object(map: &Map<String, Value>, name: &'static str) -> Result<Map<String, Value>, CanvasError> {
    match map.get(name) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(object)) => Ok(object.clone()),
        Some(_) => Err(CanvasError::Malformed(name)),
    }
}

/// Reads a list option, for which Celery also accepts a single value.
pub(crate) fn list(value: Option<Value>) -> Vec<Value> {
    match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(values)) => values,
        Some(single) => vec![single],
    }
}
