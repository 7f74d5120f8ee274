//! From a signature to the messages that begin it. What can run at once becomes a message; what comes later travels
//! inside those messages, as [`freeze`] has prepared it. Follows `apply_async` of Celery 5.7's canvas; where its 5.6
//! differs it reads the same messages.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    Canvas,
    node::{CanvasError, Kind, Node, list},
};
use crate::{
    async_result::ResultTree,
    broker::Publication,
    json,
    message::{DeliveryInfo, Embed, Headers, Message, Properties},
    repr,
    signature::Signature,
    system,
};

mod freeze;
mod options;

pub(super) use self::freeze::ends_in_group;
use self::freeze::{Place, rooted, ungrouped};
pub(crate) use self::options::MAX_RETRIES;

/// Options that stay as they are once they are set: another value would leave whoever counts on them waiting.
const FIXED: [&str; 2] = ["group_id", "stamped_headers"];

/// What the copies of a chord's body may take together: each part of the header carries one.
const MOST_BYTES: usize = 256 * 1024 * 1024;

/// Who sends, when, and on behalf of which task.
pub(crate) struct Sender<'a> {
    pub now: Timestamp,
    pub origin: &'a str,
    pub reply_to: &'a str,
    /// The queue of a signature that names none.
    pub queue: &'a str,
    /// The root and the id of the running task.
    pub parent: Option<(&'a str, &'a str)>,
    /// What is to be sent in one step.
    pub publication: Publication,
}

type Options = Map<String, Value>;

impl<'a> Sender<'a> {
    /// A sender outside of any task, whose default queue is `celery`.
    pub fn new(now: Timestamp, origin: &'a str, reply_to: &'a str) -> Self {
        Self {
            now,
            origin,
            reply_to,
            queue: "celery",
            parent: None,
            publication: Publication::default(),
        }
    }
}

impl Sender<'_> {
    /// Sends what can run at once, with `args` before the signature's own; `options` take precedence over its own.
    pub fn apply(
        &mut self,
        node: Node,
        args: &[Value],
        options: Options,
    ) -> Result<Arc<ResultTree>, CanvasError> {
        match node.kind {
            Kind::Task => self.task(node, args, options),
            Kind::Chain(_) => self.chain(node, args, options),
            Kind::Group(_) => self.group(node, args, options),
            Kind::Chord { .. } => self.chord(node, args, options),
        }
    }

    /// The message of one task, not sent.
    pub fn single(&self, signature: Signature) -> Message {
        let node = Canvas::from(signature).0;
        self.message(node.task, node.args, node.kwargs, node.options)
            .expect("a signature's setters give every option its type")
    }

    fn task(&mut self, node: Node, args: &[Value], options: Options) -> Result<Arc<ResultTree>, CanvasError> {
        let args = partial(&node, args);
        let message = self.message(node.task, args, node.kwargs, merged(node.options, options))?;
        let result = Arc::new(ResultTree::task(message.headers.id.clone()));
        self.publication.messages.push(message);
        Ok(result)
    }

    fn chain(
        &mut self,
        node: Node,
        args: &[Value],
        options: Options,
    ) -> Result<Arc<ResultTree>, CanvasError> {
        let args = partial(&node, args);
        let mut options = merged(node.options, options);
        let place = Place {
            id: take_text(&mut options, "task_id"),
            group: take_text(&mut options, "group_id"),
            index: take_index(&mut options),
            chord: take(&mut options, "chord"),
            root: take(&mut options, "root_id"),
        };
        // The task that runs now is its parent, which is what every signature without one gets.
        take(&mut options, "parent_id");
        let link = list(options.shift_remove("link"));
        let link_error = list(options.shift_remove("link_error"));
        let Kind::Chain(tasks) = node.kind else {
            return Err(CanvasError::Malformed("the chain"));
        };
        let (mut steps, result) = self.steps(tasks, &args, &link_error, &place)?;
        if let (Some(last), false) = (steps.first_mut(), link.is_empty()) {
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

    fn group(
        &mut self,
        node: Node,
        args: &[Value],
        options: Options,
    ) -> Result<Arc<ResultTree>, CanvasError> {
        let mut options = merged(node.options, options);
        // Part of a group around it, whose members it adds to.
        let outer = take_text(&mut options, "group_id");
        let id = take_text(&mut options, "task_id").unwrap_or_else(new_id);
        let link_error = list(options.shift_remove("link_error"));
        options.shift_remove("link");
        options.shift_remove("group_index");
        let chord = take(&mut options, "chord");
        let root = options.get("root_id").cloned();
        let Kind::Group(tasks) = node.kind else {
            return Err(CanvasError::Malformed("the group"));
        };
        let mut size = 0;
        let mut chord_of_members = false;
        let mut results = Vec::new();
        for (index, mut task) in ungrouped(tasks).into_iter().enumerate() {
            if !link_error.is_empty() {
                link_errors(&mut task, &link_error);
            }
            let place = Place {
                group: Some(id.clone()),
                index: Some(index),
                root: root.clone(),
                ..Place::default()
            };
            let frozen = self.freeze(&mut task, place)?;
            size += parts(&task);
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
        Ok(Arc::new(ResultTree {
            id,
            parent: None,
            children: Some(results),
        }))
    }

    fn chord(
        &mut self,
        node: Node,
        args: &[Value],
        options: Options,
    ) -> Result<Arc<ResultTree>, CanvasError> {
        let args = partial(&node, args);
        let mut options = merged(node.options, options);
        let Kind::Chord {
            header,
            header_options,
            mut body,
        } = node.kind
        else {
            return Err(CanvasError::Malformed("the chord"));
        };
        let given = take_text(&mut options, "task_id");
        // A chord's own id is its header's, once it has been given one.
        let header_id = header_options
            .get("task_id")
            .and_then(Value::as_str)
            .map(str::to_owned);
        let header_id = header_id.or(given.clone()).unwrap_or_else(new_id);
        let body_id = given.filter(|given| *given != header_id);
        let delay = ["countdown", "eta"].map(|name| (name, take(&mut options, name)));
        options.shift_remove("parent_id");
        for name in ["link", "link_error"] {
            let links = list(options.shift_remove(name));
            match (name, links.is_empty()) {
                (_, true) => {}
                ("link_error", false) => link_errors(&mut body, &links),
                (_, false) => body.link(name, &links),
            }
        }
        body.options.extend(options.clone());
        let root = options.get("root_id").cloned();
        let place = Place {
            id: Some(body_id.unwrap_or_else(new_id)),
            group: Some(header_id.clone()),
            root: root.clone(),
            ..Place::default()
        };
        let mut result = self.freeze(&mut body, place)?;
        if header.is_empty() {
            self.apply(*body, &[json!([])], Map::new())?;
            return Ok(Arc::new(result));
        }
        for name in ["chain", "chord", "group_id", "group_index"] {
            options.shift_remove(name);
        }
        for (name, value) in delay {
            if let Some(value) = value {
                options.insert(name.to_owned(), value);
            }
        }
        let body = body.encode();
        if json::to_string(&body).len().saturating_mul(header.len()) > MOST_BYTES {
            return Err(CanvasError::Unsupported(
                "a chord whose body is sent with every part takes at most 256 MiB",
            ));
        }
        options.insert("chord".to_owned(), body);
        options.insert("task_id".to_owned(), Value::String(header_id.clone()));
        let header = self.group(Node::group(header), &args, options)?;
        if header
            .children
            .iter()
            .flatten()
            .any(|part| part.children.is_some())
        {
            let saved = json!({"result": header.as_tuple()});
            self.publication.groups.push((header_id, saved));
        }
        result = rooted(result, &header);
        Ok(Arc::new(result))
    }
}

fn new_id() -> String {
    system::random_id().to_string()
}

/// The positional arguments with those of the caller in front.
fn partial(node: &Node, args: &[Value]) -> Vec<Value> {
    if node.immutable {
        return node.args.clone();
    }
    args.iter().chain(&node.args).cloned().collect()
}

/// The signature's options, overridden by those of the call.
fn merged(mut own: Options, call: Options) -> Options {
    let stamps = list(own.get("stamped_headers").cloned());
    for (name, value) in call {
        let fixed =
            FIXED.contains(&name.as_str()) || stamps.iter().any(|stamp| stamp.as_str() == Some(&name));
        if !(value.is_null() || fixed && own.contains_key(&name)) {
            own.insert(name, value);
        }
    }
    own
}

fn take(options: &mut Options, name: &str) -> Option<Value> {
    options.shift_remove(name).filter(|value| !value.is_null())
}

fn take_text(options: &mut Options, name: &str) -> Option<String> {
    match take(options, name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

fn take_index(options: &mut Options) -> Option<usize> {
    take(options, "group_index")?.as_u64()?.try_into().ok()
}

/// Errbacks go to every member of a group, and to the body of a chord.
pub(super) fn link_errors(node: &mut Node, errbacks: &[Value]) {
    match &mut node.kind {
        Kind::Group(tasks) => tasks.iter_mut().for_each(|task| link_errors(task, errbacks)),
        Kind::Chord { body, .. } => link_errors(body, errbacks),
        Kind::Task | Kind::Chain(_) => node.link("link_error", errbacks),
    }
}

/// How many results of this member a chord waits for.
fn parts(node: &Node) -> u64 {
    match &node.kind {
        Kind::Task => 1,
        Kind::Group(tasks) => tasks.iter().map(parts).sum(),
        Kind::Chain(tasks) => tasks
            .iter()
            .rev()
            .map(parts)
            .find(|parts| *parts > 0)
            .unwrap_or(0),
        Kind::Chord { body, .. } => parts(body),
    }
}
