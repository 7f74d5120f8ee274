//! From a signature to the messages that begin it. What can run at once becomes a message; what comes later travels
//! inside those messages, with its ids chosen already, so that results can be asked for before their tasks exist.
//! Follows `apply_async`, `freeze` and `prepare_steps` of Celery 5.7's canvas; where its 5.6 differs it reads the same
//! messages.

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
    message::{DeliveryInfo, Embed, Headers, Message, Properties},
    repr,
    signature::Signature,
    system,
};

mod options;

pub(crate) use self::options::MAX_RETRIES;

/// Options that stay as they are once they are set: another value would leave whoever counts on them waiting.
const FIXED: [&str; 2] = ["group_id", "stamped_headers"];

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

/// What a signature gets from where it stands.
#[derive(Default, Clone)]
struct Place {
    id: Option<String>,
    group: Option<String>,
    index: Option<usize>,
    chord: Option<Value>,
    root: Option<Value>,
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

    /// The steps of a chain, last first, each with its id, and the result of the last. A group that something follows
    /// becomes a chord.
    fn steps(
        &self,
        tasks: Vec<Node>,
        args: &[Value],
        link_error: &[Value],
        place: &Place,
    ) -> Result<(Vec<Node>, Arc<ResultTree>), CanvasError> {
        let mut steps: Vec<Node> = Vec::new();
        for task in flattened(tasks).into_iter().rev() {
            match steps.pop() {
                Some(next) if ends_in_group(&task) => steps.push(upgraded(task, next)),
                next => steps.extend(next.into_iter().chain([task])),
            }
        }
        steps.reverse();
        let count = steps.len();
        let mut result: Option<ResultTree> = None;
        for (position, step) in steps.iter_mut().enumerate() {
            if position == 0 {
                step.args = partial(step, args);
            }
            if !link_error.is_empty() {
                link_errors(step, link_error);
            }
            let place = if position + 1 == count {
                place.clone()
            } else {
                Place {
                    root: place.root.clone(),
                    ..Place::default()
                }
            };
            let own = self.freeze(step, place)?;
            result = Some(after(own, result));
        }
        steps.reverse();
        let result = result.ok_or(CanvasError::Empty("a chain"))?;
        Ok((steps, Arc::new(result)))
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

    /// Gives a signature, and everything that follows it, the ids of its results.
    fn freeze(&self, node: &mut Node, place: Place) -> Result<ResultTree, CanvasError> {
        if let Kind::Chain(tasks) = &mut node.kind {
            let args = std::mem::take(&mut node.args);
            let (mut steps, result) = self.steps(std::mem::take(tasks), &args, &[], &place)?;
            steps.reverse();
            *tasks = steps;
            return Ok(Arc::unwrap_or_clone(result));
        }
        let id = match node.text("task_id") {
            Some(id) => id.to_owned(),
            None => place.id.clone().unwrap_or_else(new_id),
        };
        if let Some(root) = place.root.clone().filter(|root| !root.is_null()) {
            node.set("root_id", root);
        }
        if let Kind::Chord {
            header,
            header_options,
            body,
        } = &mut node.kind
        {
            let group = match header_options.get("task_id").and_then(Value::as_str) {
                Some(id) => id.to_owned(),
                None => new_id(),
            };
            let mut results = Vec::with_capacity(header.len());
            *header = ungrouped(std::mem::take(header));
            for (index, task) in header.iter_mut().enumerate() {
                let place = Place {
                    index: Some(index),
                    root: place.root.clone(),
                    ..Place::default()
                };
                results.push(Arc::new(self.freeze(task, place)?));
            }
            header_options.insert("task_id".to_owned(), Value::String(group.clone()));
            let result = self.freeze(body, place)?;
            node.set("task_id", group.clone());
            let header = Arc::new(ResultTree {
                id: group,
                parent: None,
                children: Some(results),
            });
            return Ok(rooted(result, &header));
        }
        node.set("task_id", id.clone());
        if let Some(group) = &place.group
            && !node.options.contains_key("group_id")
        {
            node.set("group_id", group.clone());
        }
        if let Some(chord) = &place.chord {
            node.set("chord", chord.clone());
        }
        if let Some(index) = place.index {
            node.set("group_index", index);
        }
        let Kind::Group(tasks) = &mut node.kind else {
            if !node.options.contains_key("reply_to") {
                node.set("reply_to", self.reply_to);
            }
            return Ok(ResultTree::task(id));
        };
        *tasks = ungrouped(std::mem::take(tasks));
        let mut results = Vec::with_capacity(tasks.len());
        for (index, task) in tasks.iter_mut().enumerate() {
            let place = Place {
                id: None,
                index: Some(index),
                ..place.clone()
            };
            results.push(Arc::new(self.freeze(task, place)?));
        }
        Ok(ResultTree {
            id,
            parent: None,
            children: Some(results),
        })
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

/// The tasks of a chain with those of the chains inside it; the links of such a chain go to its tasks.
fn flattened(tasks: Vec<Node>) -> Vec<Node> {
    let mut flat = Vec::with_capacity(tasks.len());
    for mut task in tasks {
        if let Kind::Group(members) = &mut task.kind
            && members.len() == 1
            && let Some(only) = members.pop()
        {
            task = only;
        }
        match task.kind {
            Kind::Chain(steps) => {
                let mut steps = flattened(steps);
                let errbacks = list(task.options.shift_remove("link_error"));
                if !errbacks.is_empty() {
                    steps.iter_mut().for_each(|step| link_errors(step, &errbacks));
                }
                let callbacks = list(task.options.shift_remove("link"));
                if let (Some(last), false) = (steps.last_mut(), callbacks.is_empty()) {
                    last.link("link", &callbacks);
                }
                if let (Some(first), false) = (steps.first_mut(), task.args.is_empty()) {
                    first.args = partial(first, &task.args);
                }
                flat.extend(steps);
            }
            _ => flat.push(task),
        }
    }
    flat
}

/// The members of a group with those of the groups inside it.
fn ungrouped(tasks: Vec<Node>) -> Vec<Node> {
    let mut flat = Vec::with_capacity(tasks.len());
    for task in tasks {
        match task.kind {
            Kind::Group(members) => flat.extend(ungrouped(members)),
            _ => flat.push(task),
        }
    }
    flat
}

/// Whether it ends with several results, which only a chord can hand on.
pub(super) fn ends_in_group(node: &Node) -> bool {
    match &node.kind {
        Kind::Task => false,
        Kind::Group(_) => true,
        Kind::Chain(tasks) => tasks.last().is_some_and(ends_in_group),
        Kind::Chord { body, .. } => ends_in_group(body),
    }
}

/// What ends in a group, with what follows it as the body of a chord.
fn upgraded(mut node: Node, next: Node) -> Node {
    match node.kind {
        Kind::Group(header) => {
            let mut chord = Node::chord(header, next);
            chord.args = node.args;
            if let (Kind::Chord { header_options, .. }, Some(id)) =
                (&mut chord.kind, node.options.shift_remove("task_id"))
            {
                header_options.insert("task_id".to_owned(), id);
            }
            chord
        }
        Kind::Chord { ref mut body, .. } => {
            let group = std::mem::replace(body.as_mut(), Node::chain(Vec::new()));
            **body = Node::chain(vec![group, next]);
            node
        }
        Kind::Task | Kind::Chain(_) => Node::chain(vec![node, next]),
    }
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

/// `result` with `before` as the parent of its first step.
fn after(result: ResultTree, before: Option<ResultTree>) -> ResultTree {
    match before {
        Some(before) => rooted(result, &Arc::new(before)),
        None => result,
    }
}

fn rooted(mut result: ResultTree, first: &Arc<ResultTree>) -> ResultTree {
    result.parent = Some(match result.parent.take() {
        Some(parent) => Arc::new(rooted(Arc::unwrap_or_clone(parent), first)),
        None => Arc::clone(first),
    });
    result
}
