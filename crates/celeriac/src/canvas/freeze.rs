//! Prepares a canvas for sending: brings the steps of a chain into the order of the wire format, turns groups
//! with a successor into chords, and assigns the ids of all results, for which clients wait. Corresponds to
//! `prepare_steps` and `freeze` in Celery 5.7.

use std::sync::Arc;

use serde_json::Value;

use super::node::{CanvasError, Kind, Node, list};
use crate::{result_tree::ResultTree, system};

/// Maximum number of steps in a chain. The results form a linked list, which is processed recursively here
/// and in Python.
const MOST_STEPS: usize = 1000;

/// Values that a signature receives from its position in the canvas.
#[derive(Default, Clone)]
pub(super) struct Inherited {
    pub id: Option<String>,
    pub group: Option<String>,
    pub index: Option<usize>,
    pub chord: Option<Value>,
    pub root: Option<Value>,
}

impl Inherited {
    /// Returns the values for a part whose result is not the result of the whole canvas.
    fn of_part(&self) -> Self {
        Self {
            root: self.root.clone(),
            ..Self::default()
        }
    }
}

/// Returns the steps of a chain, last first, each with its id, and the result of the last step. A group with
/// a successor becomes a chord.
pub(super) fn steps(
    tasks: Vec<Node>,
    args: &[Value],
    link_error: &[Value],
    inherited: &Inherited,
    reply_to: &str,
) -> Result<(Vec<Node>, Arc<ResultTree>), CanvasError> {
    let mut steps: Vec<Node> = Vec::new();
    for task in flattened(tasks).into_iter().rev() {
        match steps.pop() {
            Some(next) if task.ends_in_group() => steps.push(upgraded(task, next)),
            next => steps.extend(next.into_iter().chain([task])),
        }
    }
    steps.reverse();
    let count = steps.len();
    if count > MOST_STEPS {
        return Err(CanvasError::Unsupported("a chain has at most 1,000 steps"));
    }
    let mut result: Option<ResultTree> = None;
    for (position, step) in steps.iter_mut().enumerate() {
        if position == 0 {
            step.args = step.args_after(args);
        }
        step.link_errors(link_error);
        let last = (position + 1 == count).then(|| inherited.clone());
        let own = freeze(step, last.unwrap_or_else(|| inherited.of_part()), reply_to)?;
        result = Some(match result {
            Some(before) => rooted(own, &Arc::new(before)),
            None => own,
        });
    }
    steps.reverse();
    let result = result.ok_or(CanvasError::Empty("a chain"))?;
    Ok((steps, Arc::new(result)))
}

/// Assigns result ids to a signature and to all signatures inside it.
pub(super) fn freeze(
    node: &mut Node,
    inherited: Inherited,
    reply_to: &str,
) -> Result<ResultTree, CanvasError> {
    if let Kind::Chain(tasks) = &mut node.kind {
        let args = std::mem::take(&mut node.args);
        let (mut steps, result) = steps(std::mem::take(tasks), &args, &[], &inherited, reply_to)?;
        steps.reverse();
        *tasks = steps;
        return Ok(Arc::unwrap_or_clone(result));
    }
    if let Some(root) = inherited.root.clone().filter(|root| !root.is_null()) {
        node.set("root_id", root);
    }
    if let Kind::Chord(chord) = &mut node.kind {
        let group = chord.id().map_or_else(new_id, str::to_owned);
        let results = freeze_parts(&mut chord.header, &inherited.of_part(), reply_to)?;
        let id = Value::from(group.as_str());
        chord.header_options.insert("task_id".to_owned(), id);
        let result = freeze(&mut chord.body, inherited, reply_to)?;
        node.set("task_id", group.clone());
        return Ok(rooted(result, &Arc::new(ResultTree::group(group, results))));
    }
    let id = node.text("task_id").map(str::to_owned);
    let id = id.or(inherited.id.clone()).unwrap_or_else(new_id);
    node.set("task_id", id.clone());
    if let Some(group) = &inherited.group {
        node.options
            .entry("group_id")
            .or_insert_with(|| group.as_str().into());
    }
    if let Some(chord) = &inherited.chord {
        node.set("chord", chord.clone());
    }
    if let Some(index) = inherited.index {
        node.set("group_index", index);
    }
    if let Kind::Group(tasks) = &mut node.kind {
        return Ok(ResultTree::group(id, freeze_parts(tasks, &inherited, reply_to)?));
    }
    node.options.entry("reply_to").or_insert_with(|| reply_to.into());
    Ok(ResultTree::task(id))
}

/// Freezes the tasks of a group or of a chord's header.
fn freeze_parts(
    tasks: &mut Vec<Node>,
    inherited: &Inherited,
    reply_to: &str,
) -> Result<Vec<Arc<ResultTree>>, CanvasError> {
    *tasks = ungrouped(std::mem::take(tasks));
    let parts = tasks.iter_mut().enumerate().map(|(index, task)| {
        let inherited = Inherited {
            id: None,
            index: Some(index),
            ..inherited.clone()
        };
        freeze(task, inherited, reply_to).map(Arc::new)
    });
    parts.collect()
}

pub(super) fn new_id() -> String {
    system::random_id().to_string()
}

/// Returns the tasks of a chain, with nested chains flattened; links of a nested chain move to its tasks.
fn flattened(tasks: Vec<Node>) -> Vec<Node> {
    let mut flat = Vec::with_capacity(tasks.len());
    for mut task in tasks {
        if let Kind::Group(members) = &mut task.kind
            && members.len() == 1
        {
            task = members.remove(0);
        }
        match task.kind {
            Kind::Chain(steps) => {
                let mut steps = flattened(steps);
                let errbacks = list(task.options.shift_remove("link_error"));
                steps.iter_mut().for_each(|step| step.link_errors(&errbacks));
                if let Some(last) = steps.last_mut() {
                    last.link("link", &list(task.options.shift_remove("link")));
                }
                if let Some(first) = steps.first_mut() {
                    first.args = first.args_after(&task.args);
                }
                flat.extend(steps);
            }
            _ => flat.push(task),
        }
    }
    flat
}

/// Returns the members of a group, with nested groups flattened.
pub(super) fn ungrouped(tasks: Vec<Node>) -> Vec<Node> {
    let mut flat = Vec::with_capacity(tasks.len());
    for task in tasks {
        match task.kind {
            Kind::Group(members) => flat.extend(ungrouped(members)),
            _ => flat.push(task),
        }
    }
    flat
}

/// Returns a node that ends in a group as a chord with `next` as its body.
fn upgraded(mut node: Node, next: Node) -> Node {
    match node.kind {
        Kind::Group(header) => {
            let mut chord = Node::chord(header, next);
            chord.args = node.args;
            if let Kind::Chord(chord) = &mut chord.kind {
                chord
                    .header_options
                    .extend(node.options.shift_remove_entry("task_id"));
            }
            chord
        }
        Kind::Chord(ref mut chord) => {
            let body = std::mem::replace(&mut *chord.body, Node::chain(Vec::new()));
            *chord.body = Node::chain(vec![body, next]);
            node
        }
        Kind::Task | Kind::Chain(_) => Node::chain(vec![node, next]),
    }
}

/// Returns `result` with `first` as the parent of its first step.
pub(super) fn rooted(mut result: ResultTree, first: &Arc<ResultTree>) -> ResultTree {
    result.parent = Some(match result.parent.take() {
        Some(parent) => Arc::new(rooted(Arc::unwrap_or_clone(parent), first)),
        None => Arc::clone(first),
    });
    result
}
