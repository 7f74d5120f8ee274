//! Settles tasks that have callbacks, errbacks, a next task in a chain, or a chord. Does the same as Celery's
//! `trace` and result backends, but in one step with the settlement: the follow-up tasks are published once
//! if the task is settled here, and not at all if another worker holds it.
//!
//! Unlike in Celery, when a task fails, all tasks that can no longer run because of the failure fail too,
//! including tasks in surrounding chords, and a revoked task revokes the rest of its chain. A client that
//! waits for the last result is therefore always notified.

mod join;

use std::{collections::VecDeque, sync::Arc};

use serde_json::{Map, Value, json};
use uuid::Uuid;

pub(super) use self::join::{Unjoined, nested};
use self::join::{chord_error, join};
use super::{confirm::until_confirmed, shared::Shared};
use crate::{
    back_off::BackOff,
    broker::{BrokerError, ChordPart, ChordState, Delivery, Publication, Settlement, SettlementStatus},
    canvas::{self, CanvasError, Kind, Node, SendContext, Sender, list},
    log::{debug, error, warn},
    message::{Embed, Headers, Message},
    observer::SendSpan,
    result::{ResultMeta, Status},
    result_tree::ResultTree,
    task_id::TaskId,
};

/// Maximum number of attempts at a settlement while other workers take over its chord.
const MAX_ATTEMPTS: usize = 5;

/// Returns whether the task has follow-up tasks or is a part of a chord.
pub(super) fn has_follow_up(embed: &Embed) -> bool {
    [&embed.callbacks, &embed.errbacks, &embed.chain, &embed.chord]
        .into_iter()
        .any(|part| !part.is_null())
}

/// Tasks that follow from the end of a task.
#[derive(Debug, Clone)]
pub(super) enum FollowUps {
    /// Tasks that follow from its result. The result itself is stored only if `keep` is true.
    OfResult {
        meta: Box<ResultMeta>,
        keep: bool,
        /// Reason to keep the message in the dead-letter list.
        dead_letter: Option<String>,
    },
    /// Tasks that replace it.
    Replacement(Publication),
    /// Body of a chord whose header has ended, with the values of the header or their failure.
    ChordBody {
        body: Value,
        values: Result<Value, Unjoined>,
    },
}

/// Settles a delivery, and sends its follow-up tasks with the trace context `trace`.
pub(super) async fn settle(
    shared: &Shared,
    delivery: &Delivery,
    message: &Message,
    follow_ups: &FollowUps,
    trace: &Map<String, Value>,
) {
    let id = &message.headers.id;
    let mut back_off = BackOff::default();
    for _ in 0..MAX_ATTEMPTS {
        let settlement = settlement(shared, delivery, message, follow_ups.clone()).await;
        let Some(mut settlement) = settlement else {
            return;
        };
        let spans = start_send_spans(shared, message, trace, &mut settlement.publication);
        let settled = until_confirmed(id, || shared.broker.settle(delivery, &settlement)).await;
        let refused = BrokerError::Refused {
            cause: "the broker refused to settle the task".to_owned(),
        };
        for span in spans {
            span.finish(settled.as_ref().map(|_| ()).ok_or(&refused));
        }
        match settled {
            Some(SettlementStatus::Applied) | None => return,
            Some(SettlementStatus::NotHeld) => {
                let task_id = id.as_str();
                debug!(
                    messaging.message.id = task_id,
                    "the task is already settled, or another worker holds it"
                );
                return;
            }
            Some(SettlementStatus::ChordTaken) => back_off.wait().await,
        }
    }
    error!(
        messaging.message.id = id.as_str(),
        "gave up settling a part of a chord that other workers keep taking over; the message will be redelivered"
    );
}

/// Returns the publication that replaces the running task of `message` with `node`.
pub(super) fn replacement(
    shared: &Shared,
    message: &Message,
    node: Node,
) -> Result<Publication, CanvasError> {
    let node = canvas::replacement(node, message)?;
    let mut sender = sender(shared, &message.headers);
    sender.apply(node, &[], Map::new())?;
    Ok(sender.publication)
}

/// Returns a sender of tasks that follow from the task with these headers.
fn sender<'a>(shared: &'a Shared, headers: &'a Headers) -> Sender<'a> {
    let root = headers.root_id.as_deref().unwrap_or(&headers.id);
    Sender {
        context: SendContext {
            parent: Some((root, &headers.id)),
            ..shared.client.send_context()
        },
        publication: Publication::default(),
    }
}

/// Returns the task's settlement with its follow-up tasks, or `None` if another worker holds the delivery.
async fn settlement(
    shared: &Shared,
    delivery: &Delivery,
    message: &Message,
    follow_ups: FollowUps,
) -> Option<Settlement> {
    let (headers, embed) = (&message.headers, &message.embed);
    let mut follow_up = FollowUp {
        sender: sender(shared, headers),
        children: Vec::new(),
        errbacks: Vec::new(),
        called_for_bodies: Vec::new(),
        called_before: Vec::new(),
        results: Vec::new(),
        parts: VecDeque::new(),
        chords: Vec::new(),
        failed_chords: Vec::new(),
    };
    let mut dead = None;
    let own = match follow_ups {
        FollowUps::OfResult {
            mut meta,
            keep,
            dead_letter,
        } => {
            dead = dead_letter;
            follow_up.children = list(Some(meta.children.take()));
            match meta.status {
                Status::Success => follow_up.succeeded(embed, &meta.result),
                _ => follow_up.failed(embed, &meta),
            }
            if let Some(group) = headers.group.as_ref().filter(|_| !embed.chord.is_null()) {
                let part = ChordPart::new(
                    group.as_str(),
                    headers.group_index.as_u64(),
                    headers.id.clone(),
                    meta.status.clone(),
                    meta.result.clone(),
                );
                // Recorded before the parts of the tasks that fail because of this task.
                follow_up.parts.push_front((part, embed.chord.clone()));
            }
            Some((*meta, keep))
        }
        FollowUps::Replacement(publication) => {
            follow_up.sender.publication = publication;
            None
        }
        FollowUps::ChordBody { body, values } => {
            follow_up.body(&body, values);
            None
        }
    };
    while let Some((part, body)) = follow_up.parts.pop_front() {
        let recorded = || shared.broker.chord_part(delivery, &part);
        match until_confirmed(&headers.id, recorded).await? {
            ChordState::NotHeld => {
                debug!(
                    messaging.message.id = headers.id.as_str(),
                    "another worker holds the task"
                );
                return None;
            }
            ChordState::Waiting => {}
            ChordState::Complete { parts, group } => {
                let joined = join(shared, &headers.id, &parts, group.as_ref()).await;
                if joined.is_err() {
                    follow_up.failed_chords.push(part.group.clone());
                    follow_up.remember_errbacks(&parts);
                }
                follow_up.chords.push((part.group, part.task_id));
                follow_up.body(&body, joined);
            }
        }
    }
    let own = own.filter(|(_, keep)| *keep).map(|(mut meta, _)| {
        meta.children = Value::Array(follow_up.children);
        meta
    });
    Some(Settlement {
        results: own.into_iter().collect(),
        skipped: follow_up.results,
        publication: follow_up.sender.publication,
        chords: follow_up.chords,
        failed_chords: follow_up.failed_chords,
        dead_letter: dead,
    })
}

/// Builder of the messages and results that follow from one task.
struct FollowUp<'a> {
    sender: Sender<'a>,
    /// Result tuples of the tasks sent, which Celery stores as `children` of the task's own result.
    children: Vec<Value>,
    /// Result tuples of the errbacks sent. Celery stores them as `children` of failed bodies only, because it
    /// stores the result of a failed task before it sends errbacks.
    errbacks: Vec<Value>,
    /// Errbacks that were sent for the body of a chord. A surrounding chord, which fails too, does not send
    /// them again.
    called_for_bodies: Vec<Uuid>,
    /// Errbacks that were sent for bodies before the current one.
    called_before: Vec<Uuid>,
    /// Results of tasks that will never run.
    results: Vec<ResultMeta>,
    /// Chord parts to record, each with the body of its chord.
    parts: VecDeque<(ChordPart, Value)>,
    chords: Vec<(String, TaskId)>,
    failed_chords: Vec<String>,
}

/// Key of a failed chord part for the errbacks that were sent for it. Celery ignores the key.
const CALLED: &str = "celeriac_errbacks";

impl FollowUp<'_> {
    fn succeeded(&mut self, embed: &Embed, value: &Value) {
        let callbacks = readable(&embed.callbacks);
        let (mut groups, mut single): (Vec<_>, Vec<_>) = callbacks
            .into_iter()
            .partition(|callback| matches!(callback.kind, Kind::Group(_)));
        if groups.len() + single.len() > 1 && !single.is_empty() {
            groups.push(Node::group(std::mem::take(&mut single)));
        }
        for callback in groups.into_iter().chain(single) {
            self.send(callback, value, Map::new());
        }
        let mut rest = list(Some(embed.chain.clone()));
        let Some(next) = rest.pop() else { return };
        match Node::decode(&next) {
            Ok(next) => {
                let rest = (!rest.is_empty()).then(|| ("chain".to_owned(), Value::Array(rest)));
                self.send(next, value, rest.into_iter().collect());
            }
            Err(error) => error!(%error, "the next task of a chain is invalid; the chain ends"),
        }
    }

    fn failed(&mut self, embed: &Embed, meta: &ResultMeta) {
        for step in readable(&embed.chain) {
            self.fail(&step, meta, false);
        }
        if meta.status == Status::Failure {
            self.errbacks(readable(&embed.errbacks), &meta.task_id);
        }
    }

    /// Remembers the errbacks that were sent for failed bodies among the parts of a header.
    fn remember_errbacks(&mut self, parts: &[Value]) {
        let called = parts.iter().flat_map(|part| list(part[3].get(CALLED).cloned()));
        let called = called.filter_map(|id| id.as_str()?.parse::<Uuid>().ok());
        self.called_for_bodies.extend(called);
    }

    /// Sends `node` with `value` as its first argument.
    fn send(&mut self, node: Node, value: &Value, options: Map<String, Value>) {
        let task = node.task.clone();
        match self.apply(node, std::slice::from_ref(value), options) {
            Ok(result) => self.children.push(result.trail()),
            Err(error) => error!(celery.task_name = task, %error, "failed to send a follow-up task"),
        }
    }

    /// Adds the messages of `node` to the publication, or none of them if there is an error.
    fn apply(
        &mut self,
        node: Node,
        args: &[Value],
        options: Map<String, Value>,
    ) -> Result<Arc<ResultTree>, CanvasError> {
        let before = self.sender.publication.clone();
        let applied = self.sender.apply(node, args, options);
        if applied.is_err() {
            self.sender.publication = before;
        }
        applied
    }

    /// Sends errbacks with the id of the failed task as their argument, as Celery does for errbacks that the
    /// failing worker does not know.
    fn errbacks(&mut self, errbacks: Vec<Node>, id: &str) {
        if errbacks.is_empty() {
            return;
        }
        let options = Map::from_iter([("parent_id".to_owned(), json!(id))]);
        match self.apply(Node::group(errbacks), &[json!(id)], options) {
            Ok(result) => self.errbacks.push(result.trail()),
            Err(error) => error!(messaging.message.id = id, %error, "failed to send errbacks"),
        }
    }

    /// Sends the errbacks of a body that fails, except those that were sent for a body inside its header.
    fn body_errbacks(&mut self, body: &Node) {
        let Some(linked) = body.options.get("link_error") else {
            return;
        };
        let mut errbacks = readable(linked);
        errbacks.retain(|errback| {
            let text = errback.encode().to_string();
            let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes());
            self.called_for_bodies.push(id);
            !self.called_before.contains(&id)
        });
        self.errbacks(errbacks, body.text("task_id").unwrap_or_default());
    }

    /// Sends the body of a chord whose header is complete.
    fn body(&mut self, body: &Value, joined: Result<Value, Unjoined>) {
        let node = match Node::decode(body) {
            Ok(node) => node,
            Err(error) => {
                error!(%error, "the body of a chord is invalid and will not run");
                return;
            }
        };
        let sent = joined.and_then(|values| {
            self.apply(node.clone(), &[values], Map::new())
                .map_err(|error| chord_error(format!("Callback error: {error}")))
        });
        if let Err(Unjoined { error, cause }) = sent {
            // As in Celery 5.6 and 5.7.
            let cause = cause.filter(|_| matches!(node.kind, Kind::Group(_)));
            let exception = cause.map_or(error, |cause| *cause);
            warn!(
                error.type = exception.type_name,
                "the body of a chord fails because its header failed or the body could not be sent"
            );
            let headers = Headers::new(node.task.clone(), "".into());
            let meta = ResultMeta::failure(&headers, &exception, self.sender.context.now);
            self.called_before.clone_from(&self.called_for_bodies);
            self.fail(&node, &meta, true);
        }
    }

    /// Fails all tasks of `node`, which will never run, with the error of `meta`. `is_body` is true for the
    /// body of a chord, whose errbacks are sent.
    fn fail(&mut self, node: &Node, meta: &ResultMeta, is_body: bool) {
        if is_body {
            self.body_errbacks(node);
        }
        match &node.kind {
            Kind::Chain(steps) | Kind::Group(steps) => {
                steps.iter().for_each(|step| self.fail(step, meta, is_body));
            }
            Kind::Chord(chord) => self.fail(&chord.body, meta, is_body),
            Kind::Task => self.fail_task(node, meta, is_body),
        }
        if let Some(chain) = node.options.get("chain") {
            for step in readable(chain) {
                self.fail(&step, meta, false);
            }
        }
    }

    fn fail_task(&mut self, node: &Node, meta: &ResultMeta, is_body: bool) {
        // Without an id, the task cannot have waiters.
        let Some(id) = node.text("task_id") else { return };
        let text = |option: &str| node.text(option).map(str::to_owned);
        if node.options.get("ignore_result") != Some(&Value::Bool(true)) {
            let children = self.children.iter().chain(&self.errbacks);
            let place = |option: &str| text(option).filter(|_| !is_body);
            self.results.push(ResultMeta {
                task_id: id.into(),
                children: children.filter(|_| is_body).cloned().collect(),
                group_id: place("group_id"),
                parent_id: place("parent_id").map(TaskId::from),
                ..meta.clone()
            });
        }
        if let (Some(group), Some(body)) = (text("group_id"), node.options.get("chord"))
            && !body.is_null()
        {
            let mut result = meta.result.clone();
            if is_body && let Value::Object(result) = &mut result {
                let called = self.called_for_bodies.iter().map(Uuid::to_string);
                result.insert(CALLED.to_owned(), called.collect());
            }
            let part = ChordPart::new(
                group,
                node.options.get("group_index").and_then(Value::as_u64),
                id,
                meta.status.clone(),
                result,
            );
            self.parts.push_back((part, body.clone()));
        }
    }
}

/// Decodes a list of signatures; logs and skips invalid ones.
fn readable(signatures: &Value) -> Vec<Node> {
    let skipped = |error: &_| error!(%error, "skipped an invalid signature in a message");
    list(Some(signatures.clone()))
        .iter()
        .filter_map(|signature| Node::decode(signature).inspect_err(skipped).ok())
        .collect()
}

/// Headers of the trace context, which follow-up messages inherit even without an observer.
const TRACE_HEADERS: [&str; 3] = ["traceparent", "tracestate", "baggage"];

/// Reports the messages to the observer as sent by the run that has ended, and adds trace headers to them.
fn start_send_spans(
    shared: &Shared,
    message: &Message,
    trace: &Map<String, Value>,
    publication: &mut Publication,
) -> Vec<Box<dyn SendSpan>> {
    let observe = |next: &mut Message| {
        let extra = &mut next.headers.extra;
        for name in TRACE_HEADERS {
            if let Some(value) = message.headers.extra.get(name) {
                extra.insert(name.to_owned(), value.clone());
            }
        }
        extra.extend(trace.clone());
        shared.observer.sending(next)
    };
    publication.messages.iter_mut().map(observe).collect()
}
