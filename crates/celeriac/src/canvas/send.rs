//! Turns a canvas into the messages that start it. Tasks that can run immediately become messages; later
//! tasks are embedded in those messages, as prepared by [`freeze`]. Follows `apply_async` of Celery 5.7's
//! canvas; Celery 5.6 reads the same messages.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{
    freeze::{Inherited, freeze, new_id, rooted, steps, ungrouped},
    message::SendContext,
    node::{CanvasError, Chord, Kind, Node, list},
    options::{Options, merged, take, take_text},
};
use crate::{broker::Publication, json, result_tree::ResultTree};

/// Maximum total size in bytes of the copies of a chord's body; each part of the header contains a copy.
const MAX_BODY_BYTES: usize = 256 * 1024 * 1024;

/// Results of the tasks that were added, or the reason that they cannot be sent.
type Applied = Result<Arc<ResultTree>, CanvasError>;

/// Collects the messages that start signatures.
pub(crate) struct Sender<'a> {
    pub context: SendContext<'a>,
    /// Everything to publish in one step.
    pub publication: Publication,
}

impl Sender<'_> {
    /// Adds the tasks of a node that can run immediately. `args` precede the signature's own arguments, and
    /// `options` override its own options.
    pub(crate) fn apply(&mut self, node: Node, args: &[Value], options: Options) -> Applied {
        let all_args = node.args_after(args);
        let options = merged(node.options, options);
        match node.kind {
            Kind::Task => {
                let message = self.context.message(node.task, all_args, node.kwargs, options)?;
                let result = Arc::new(ResultTree::task(message.headers.id.clone()));
                self.publication.messages.push(message);
                Ok(result)
            }
            Kind::Chain(tasks) => self.chain(tasks, &all_args, options),
            // The arguments of a group itself are not passed to its members.
            Kind::Group(tasks) => self.group(tasks, args, options),
            Kind::Chord(chord) => self.chord(chord, &all_args, options),
        }
    }

    fn chain(&mut self, tasks: Vec<Node>, args: &[Value], mut options: Options) -> Applied {
        let inherited = Inherited {
            id: take_text(&mut options, "task_id"),
            group: take_text(&mut options, "group_id"),
            index: take(&mut options, "group_index").and_then(|index| index.as_u64()?.try_into().ok()),
            chord: take(&mut options, "chord"),
            root: take(&mut options, "root_id"),
        };
        // A signature without a parent id becomes a child of the running task.
        take(&mut options, "parent_id");
        let link = list(options.shift_remove("link"));
        let link_error = list(options.shift_remove("link_error"));
        let (mut steps, result) = steps(tasks, args, &link_error, &inherited, self.context.reply_to)?;
        if let Some(last) = steps.first_mut() {
            last.link("link", &link);
        }
        let first = steps.pop().ok_or(CanvasError::Empty("a chain"))?;
        let mut rest = list(options.shift_remove("chain"));
        rest.extend(steps.iter().map(Node::encode));
        if !rest.is_empty() {
            options.insert("chain".to_owned(), Value::Array(rest));
        }
        let alone = steps.is_empty();
        let sent = self.apply(first, &[], options)?;
        Ok(if alone { sent } else { result })
    }

    fn group(&mut self, tasks: Vec<Node>, args: &[Value], mut options: Options) -> Applied {
        // A nested group adds its members to the outer group.
        let outer = take_text(&mut options, "group_id");
        let id = take_text(&mut options, "task_id").unwrap_or_else(new_id);
        let link_error = list(options.shift_remove("link_error"));
        options.shift_remove("link");
        options.shift_remove("group_index");
        let chord = take(&mut options, "chord");
        let root = options.get("root_id").cloned();
        let mut size = 0;
        let mut chord_of_members = false;
        let mut results = Vec::new();
        for (index, mut task) in ungrouped(tasks).into_iter().enumerate() {
            task.link_errors(&link_error);
            let inherited = Inherited {
                group: Some(id.clone()),
                index: Some(index),
                root: root.clone(),
                ..Inherited::default()
            };
            let frozen = freeze(&mut task, inherited, self.context.reply_to)?;
            size += task.result_count();
            let mut options = options.clone();
            if let Some(chord) = chord.clone().or_else(|| task.options.get("chord").cloned()) {
                chord_of_members = true;
                options.insert("chord".to_owned(), chord);
            }
            self.apply(task, args, options)?;
            results.push(Arc::new(frozen));
        }
        if chord_of_members && outer.as_deref().is_none_or(|outer| outer == id) {
            self.publication.chord_sizes.push((id.clone(), size));
        }
        Ok(Arc::new(ResultTree::group(id, results)))
    }

    fn chord(&mut self, chord: Chord, args: &[Value], mut options: Options) -> Applied {
        let given = take_text(&mut options, "task_id");
        let header_id = chord.id().map(str::to_owned);
        let header_id = header_id.or(given.clone()).unwrap_or_else(new_id);
        let body_id = given.filter(|given| *given != header_id);
        let delay = ["countdown", "eta"].map(|name| options.shift_remove_entry(name));
        options.shift_remove("parent_id");
        let (header, mut body) = (chord.header, *chord.body);
        body.link("link", &list(options.shift_remove("link")));
        body.link_errors(&list(options.shift_remove("link_error")));
        body.options.extend(options.clone());
        let inherited = Inherited {
            id: Some(body_id.unwrap_or_else(new_id)),
            group: Some(header_id.clone()),
            root: options.get("root_id").cloned(),
            ..Inherited::default()
        };
        let result = freeze(&mut body, inherited, self.context.reply_to)?;
        if header.is_empty() {
            self.apply(body, &[json!([])], Map::new())?;
            return Ok(Arc::new(result));
        }
        for name in ["chain", "chord", "group_id", "group_index"] {
            options.shift_remove(name);
        }
        options.extend(delay.into_iter().flatten());
        let body = body.encode();
        if json::to_string(&body).len().saturating_mul(header.len()) > MAX_BODY_BYTES {
            return Err(CanvasError::Unsupported(
                "the copies of a chord's body, one for each part of its header, exceed 256 MiB",
            ));
        }
        options.insert("chord".to_owned(), body);
        options.insert("task_id".to_owned(), Value::String(header_id.clone()));
        let header = self.group(header, args, merged(Options::new(), options))?;
        let mut parts = header.children.iter().flatten();
        if parts.any(|part| part.children.is_some()) {
            let saved = json!({"result": header.as_tuple()});
            self.publication.groups.push((header_id, saved));
        }
        Ok(Arc::new(rooted(result, &header)))
    }
}
