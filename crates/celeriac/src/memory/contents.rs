//! Contents of the in-process broker: waiting messages, reservations, results and dead letters. All changes
//! happen under one lock.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::{sync::oneshot, time::Instant};

use super::chords::Chords;
use crate::{
    broker::{Binding, BrokerError, Delivery, DeliveryTag, Publication, queues},
    message::{Message, mark_redelivered},
    result::{ResultMeta, Status},
    system,
    task_id::TaskId,
};

#[derive(Default)]
pub(super) struct Contents {
    /// Maximum number of unfinished tasks, of results and of dead letters.
    pub capacity: usize,
    /// Waiting messages by queue, one list for each of kombu's four priority steps; the next message is at
    /// the front.
    pub queues: HashMap<String, [VecDeque<QueuedMessage>; 4]>,
    pub reserved: HashMap<DeliveryTag, Reserved>,
    /// Postponed messages by due time and number.
    pub later: BTreeMap<(Timestamp, u64), (TaskId, QueuedMessage)>,
    /// Deliveries acknowledged before their tasks started.
    pub acked_early: HashMap<DeliveryTag, Reserved>,
    /// Number of deliveries so far, from which tags are made.
    pub deliveries: u64,
    pub results: HashMap<TaskId, ResultMeta>,
    /// Ids of the tasks in `results`, oldest first.
    pub result_order: VecDeque<TaskId>,
    /// Encoded dead letters, oldest first.
    pub dead: VecDeque<Vec<u8>>,
    /// Last tick of each periodic task.
    pub ticks: HashMap<String, Vec<u8>>,
    pub chords: Chords,
    /// Bindings of each exchange.
    pub bindings: HashMap<String, Vec<Binding>>,
    /// Lengths of the publication logs.
    pub logs: HashMap<String, u64>,
}

pub(super) struct QueuedMessage {
    pub queue: String,
    pub raw: Vec<u8>,
    pub priority_step: usize,
    /// Notifies the publisher; shared with the messages that this message causes.
    pub finished: Arc<oneshot::Sender<()>>,
}

pub(super) struct Reserved {
    pub message: QueuedMessage,
    pub renewed: Instant,
}

impl QueuedMessage {
    /// Completes the message. The publisher is notified once the last message that shares `finished`
    /// completes.
    pub(super) fn complete(self) {
        if let Some(finished) = Arc::into_inner(self.finished) {
            // The publisher may have stopped waiting.
            let _ = finished.send(());
        }
    }
}

impl Contents {
    /// Returns an error unless there is room for `count` more messages.
    pub(super) fn ensure_room(&self, count: usize) -> Result<(), BrokerError> {
        let capacity = self.capacity;
        if self.waiting() + self.reserved.len() + self.later.len() + count > capacity {
            return Err(BrokerError::Full { capacity });
        }
        Ok(())
    }

    /// Returns the queues of a message; none if its exchange is a fan-out exchange.
    pub(super) fn queues_of(&self, message: &Message) -> Result<Vec<String>, BrokerError> {
        let info = &message.properties.delivery_info;
        if info.is_fanout {
            return Ok(Vec::new());
        }
        if info.exchange.is_empty() {
            return Ok(vec![message.queue().to_owned()]);
        }
        let bindings = self.bindings.get(&info.exchange).map_or(&[][..], Vec::as_slice);
        Ok(queues(bindings, info)?.into_iter().map(str::to_owned).collect())
    }

    /// Returns the number of waiting messages in all queues.
    pub(super) fn waiting(&self) -> usize {
        self.queues.values().flatten().map(VecDeque::len).sum()
    }

    /// Adds a message to a queue and returns the receiver that notifies its publisher.
    pub(super) fn publish(&mut self, queue: &str, priority: u8, raw: Vec<u8>) -> oneshot::Receiver<()> {
        let (finished, completion) = oneshot::channel();
        self.append(queue, priority, raw, Arc::new(finished));
        completion
    }

    /// Adds a message caused by another message, whose publisher is notified only when both complete.
    pub(super) fn follow(&mut self, queue: &str, message: &Message, finished: Arc<oneshot::Sender<()>>) {
        let raw = message.encode().into_bytes();
        self.append(queue, message.properties.priority, raw, finished);
    }

    fn append(&mut self, queue: &str, priority: u8, raw: Vec<u8>, finished: Arc<oneshot::Sender<()>>) {
        // The steps are 0-2, 3-5, 6-8 and 9.
        let priority_step = usize::from(priority.min(9) / 3);
        let message = QueuedMessage {
            queue: queue.to_owned(),
            raw,
            priority_step,
            finished,
        };
        self.queues.entry(queue.to_owned()).or_default()[priority_step].push_back(message);
    }

    /// Postpones a delivery. Returns false if it is not reserved.
    pub(super) fn postpone(&mut self, delivery: &Delivery, message: &Message) -> bool {
        let Some(Reserved { message: held, .. }) = self.reserved.remove(&delivery.tag) else {
            return false;
        };
        self.deliveries += 1;
        let due = (message.headers.eta.unwrap_or_default(), self.deliveries);
        self.later.insert(due, (message.headers.id.clone(), held));
        true
    }

    /// Returns the postponed messages that satisfy `wanted` to the heads of their queues. Returns their number.
    pub(super) fn recall(&mut self, wanted: impl Fn(Timestamp, &TaskId) -> bool) -> usize {
        let recalled = self.later.extract_if(.., |(due, _), (id, _)| wanted(*due, id));
        let recalled: Vec<_> = recalled.map(|(_, (_, message))| message).collect();
        let count = recalled.len();
        // The first one must end up at the head.
        for message in recalled.into_iter().rev() {
            let lists = self.queues.entry(message.queue.clone()).or_default();
            lists[message.priority_step].push_front(message);
        }
        count
    }

    pub(super) fn take(&mut self, queues: &[String], max: usize) -> Vec<Delivery> {
        let now = system::now();
        if self
            .later
            .first_key_value()
            .is_some_and(|((due, _), _)| *due <= now)
        {
            self.recall(|due, _| due <= now);
        }
        let mut taken = Vec::new();
        for step in 0..4 {
            for queue in queues {
                let Some(lists) = self.queues.get_mut(queue) else {
                    continue;
                };
                while taken.len() < max
                    && let Some(message) = lists[step].pop_front()
                {
                    self.deliveries += 1;
                    let tag = DeliveryTag(self.deliveries.to_string());
                    taken.push(Delivery {
                        tag: tag.clone(),
                        queue: queue.clone(),
                        raw: message.raw.clone(),
                    });
                    let renewed = Instant::now();
                    self.reserved.insert(tag, Reserved { message, renewed });
                }
            }
        }
        taken
    }

    /// Returns the task's final result, if one is stored.
    pub(super) fn final_result(&self, id: &str) -> Option<&ResultMeta> {
        self.results.get(id).filter(|meta| meta.status.is_final())
    }

    /// Stores results, except those that would replace `SUCCESS`, or that are not final and would replace a
    /// final one.
    pub(super) fn store<'a>(&mut self, results: impl IntoIterator<Item = &'a ResultMeta>) {
        for meta in results {
            let stored = self.final_result(&meta.task_id).map(|stored| &stored.status);
            if stored.is_some_and(|stored| *stored == Status::Success || !meta.status.is_final()) {
                continue;
            }
            if self.results.insert(meta.task_id.clone(), meta.clone()).is_none() {
                self.result_order.push_back(meta.task_id.clone());
            }
        }
        while self.results.len() > self.capacity.max(1)
            && let Some(oldest) = self.result_order.pop_front()
        {
            self.results.remove(&oldest);
        }
    }

    /// Stores results of tasks that have no final result yet.
    pub(super) fn store_unless_ended<'a>(&mut self, results: impl IntoIterator<Item = &'a ResultMeta>) {
        for meta in results {
            if self.final_result(&meta.task_id).is_none() {
                self.store([meta]);
            }
        }
    }

    pub(super) fn begin_chords(&mut self, publication: &Publication) {
        self.chords.begin(publication, self.capacity);
    }

    /// Removes a delivery, whether or not it was acknowledged early.
    pub(super) fn remove(&mut self, tag: &DeliveryTag) -> Option<Reserved> {
        self.reserved.remove(tag).or_else(|| self.acked_early.remove(tag))
    }

    /// Acknowledges a delivery before its task starts. Returns false if the delivery is not reserved.
    pub(super) fn ack_early(&mut self, tag: &DeliveryTag) -> bool {
        if let Some(reserved) = self.reserved.remove(tag) {
            self.acked_early.insert(tag.clone(), reserved);
        }
        self.acked_early.contains_key(tag)
    }

    pub(super) fn holds(&self, tag: &DeliveryTag) -> bool {
        self.reserved.contains_key(tag) || self.acked_early.contains_key(tag)
    }

    /// Returns a message to the head of its queue, marked as redelivered. Returns false if the delivery is
    /// not reserved.
    pub(super) fn restore(&mut self, tag: &DeliveryTag) -> bool {
        let Some(Reserved { mut message, .. }) = self.reserved.remove(tag) else {
            return false;
        };
        if let Some(marked) = mark_redelivered(&message.raw) {
            message.raw = marked.into_bytes();
        }
        let lists = self.queues.entry(message.queue.clone()).or_default();
        lists[message.priority_step].push_front(message);
        true
    }

    /// Returns the deliveries that were not renewed within `visibility_timeout`, the most recently renewed
    /// first.
    pub(super) fn expired(&self, visibility_timeout: Duration) -> Vec<DeliveryTag> {
        let mut expired: Vec<_> = self
            .reserved
            .iter()
            .filter(|(_, held)| held.renewed.elapsed() >= visibility_timeout)
            .collect();
        expired.sort_by_key(|(_, held)| std::cmp::Reverse(held.renewed));
        expired.into_iter().map(|(tag, _)| tag.clone()).collect()
    }
}
