//! Replaces a running task with other tasks, which inherit its id, its callbacks and its place in chains and
//! chords. Corresponds to `Task.replace` in Celery.

use serde_json::Value;

use super::node::{CanvasError, Kind, Node, list};
use crate::message::Message;

/// Name of the task that turns the results of a group into the result of the task that it replaces.
pub(crate) const ACCUMULATE: &str = "celery.accumulate";

/// Returns `node` as the replacement of the task of `message`.
pub(crate) fn replacement(mut node: Node, message: &Message) -> Result<Node, CanvasError> {
    let (headers, embed) = (&message.headers, &message.embed);
    if node.options.get("chord").is_some_and(|chord| !chord.is_null()) {
        return Err(CanvasError::Unsupported(
            "a signature that replaces a task must not be part of a chord",
        ));
    }
    if matches!(&node.kind, Kind::Chain(steps) if steps.is_empty()) {
        return Err(CanvasError::Unsupported("Cannot replace with an empty chain"));
    }
    if let Kind::Group(members) = node.kind {
        let mut accumulate = Node::new(ACCUMULATE, Kind::Task);
        accumulate.kwargs.insert("index".to_owned(), Value::from(0));
        let errbacks = list(node.options.shift_remove("link_error"));
        node = Node::chord(members, accumulate);
        node.link_errors(&errbacks);
    }
    link(&mut node, &list(Some(embed.callbacks.clone())));
    node.link_errors(&list(Some(embed.errbacks.clone())));
    assign_id(&mut node, &headers.id);
    let nesting = headers.replaced_task_nesting.as_u64().unwrap_or_default() + 1;
    let inherited = [
        ("chord", embed.chord.clone()),
        ("group_id", Value::from(headers.group.clone())),
        ("group_index", headers.group_index.clone()),
        ("root_id", Value::from(headers.root_id.as_deref())),
    ];
    for (name, value) in inherited {
        if !value.is_null() {
            node.set(name, value);
        }
    }
    node.set("replaced_task_nesting", nesting);
    if let Kind::Chain(steps) = &mut node.kind {
        steps
            .iter_mut()
            .for_each(|step| step.set("replaced_task_nesting", nesting));
    }
    let rest = list(Some(embed.chain.clone()));
    if rest.is_empty() {
        return Ok(node);
    }
    let mut steps = vec![node];
    for step in rest.iter().rev() {
        let mut step = Node::decode(step)?;
        step.set("replaced_task_nesting", nesting);
        steps.push(step);
    }
    Ok(Node::chain(steps))
}

/// Adds callbacks to the task whose result is the result of the node.
pub(super) fn link(node: &mut Node, callbacks: &[Value]) {
    match &mut node.kind {
        Kind::Task => node.link("link", callbacks),
        Kind::Chain(steps) => {
            if let Some(last) = steps.last_mut() {
                link(last, callbacks);
            }
        }
        // As in Celery: a group has no task that runs when all its members have ended.
        Kind::Group(members) => {
            if let Some(first) = members.first_mut() {
                link(first, callbacks);
            }
        }
        Kind::Chord(chord) => link(&mut chord.body, callbacks),
    }
}

/// Makes `id` the id of the node's result.
fn assign_id(node: &mut Node, id: &str) {
    match &mut node.kind {
        Kind::Task | Kind::Group(_) => node.set("task_id", id),
        Kind::Chain(steps) => {
            if let Some(last) = steps.last_mut() {
                assign_id(last, id);
            }
        }
        Kind::Chord(chord) => assign_id(&mut chord.body, id),
    }
}
