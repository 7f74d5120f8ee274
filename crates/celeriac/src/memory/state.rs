//! What the broker inside the process holds: waiting messages, reservations, results, dead letters. Every change
//! is made under one lock and is complete when it is released.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use super::chords::Chords;
use crate::{
    broker::{Delivery, DeliveryTag},
    message::mark_redelivered,
    result::ResultMeta,
};

#[derive(Default)]
pub(super) struct State {
    /// Per queue one list for each of kombu's four priority steps, the next message at the front.
    pub queues: HashMap<String, [VecDeque<Kept>; 4]>,
    pub reserved: HashMap<DeliveryTag, Reserved>,
    /// Deliveries that were acknowledged before their tasks began.
    pub early: HashMap<DeliveryTag, Reserved>,
    pub deliveries: u64,
    pub waiting: usize,
    pub results: HashMap<String, ResultMeta>,
    /// Ids with a result, oldest first.
    pub result_order: VecDeque<String>,
    /// Entries of the dead-letter list, oldest first.
    pub dead: VecDeque<Vec<u8>>,
    /// Last ticks of periodic tasks.
    pub ticks: HashMap<String, Vec<u8>>,
    pub chords: Chords,
}

pub(super) struct Kept {
    pub raw: Vec<u8>,
    pub step: usize,
    /// Told when the task, and all that followed from it, has ended for good.
    pub ended: Arc<oneshot::Sender<()>>,
}

pub(super) struct Reserved {
    pub kept: Kept,
    pub queue: String,
    pub renewed: Instant,
}

impl Kept {
    /// The task has ended for good. Whoever published it is told when nothing that followed is left; it may have gone
    /// away, which is its right.
    pub fn end(self) {
        if let Some(ended) = Arc::into_inner(self.ended) {
            let _ = ended.send(());
        }
    }
}

impl State {
    pub fn append(&mut self, queue: &str, kept: Kept) {
        let step = kept.step;
        self.queues.entry(queue.to_owned()).or_default()[step].push_back(kept);
        self.waiting += 1;
    }

    pub fn take(&mut self, queues: &[String], max: usize) -> Vec<Delivery> {
        let mut taken = Vec::new();
        for step in 0..4 {
            for queue in queues {
                while taken.len() < max {
                    let Some(kept) = self
                        .queues
                        .get_mut(queue)
                        .and_then(|lists| lists[step].pop_front())
                    else {
                        break;
                    };
                    self.waiting -= 1;
                    self.deliveries += 1;
                    let tag = DeliveryTag(self.deliveries.to_string());
                    taken.push(Delivery {
                        tag: tag.clone(),
                        queue: queue.clone(),
                        raw: kept.raw.clone(),
                    });
                    self.reserved.insert(
                        tag,
                        Reserved {
                            kept,
                            queue: queue.clone(),
                            renewed: Instant::now(),
                        },
                    );
                }
            }
        }
        taken
    }

    /// Keeps a result, except one that would take the place of a final one without being final.
    pub fn has_ended(&self, id: &str) -> bool {
        self.results.get(id).is_some_and(|kept| kept.status.is_final())
    }

    pub fn store(&mut self, meta: &ResultMeta, capacity: usize) {
        if self.has_ended(&meta.task_id) && !meta.status.is_final() {
            return;
        }
        if self.results.insert(meta.task_id.clone(), meta.clone()).is_none() {
            self.result_order.push_back(meta.task_id.clone());
        }
        while self.results.len() > capacity.max(1) {
            let Some(oldest) = self.result_order.pop_front() else {
                break;
            };
            self.results.remove(&oldest);
        }
    }

    /// Ends a delivery for good.
    pub fn end(&mut self, tag: &DeliveryTag) -> Option<Reserved> {
        self.reserved.remove(tag).or_else(|| self.early.remove(tag))
    }

    /// Acknowledges a delivery before its task begins. False when it is not held.
    pub fn begin_early(&mut self, tag: &DeliveryTag) -> bool {
        if let Some(reserved) = self.reserved.remove(tag) {
            self.early.insert(tag.clone(), reserved);
        }
        self.early.contains_key(tag)
    }

    pub fn holds(&self, tag: &DeliveryTag) -> bool {
        self.reserved.contains_key(tag) || self.early.contains_key(tag)
    }

    /// Back to the head of its queue, marked as redelivered. False when it is not held.
    pub fn give_back(&mut self, tag: &DeliveryTag) -> bool {
        let Some(Reserved { mut kept, queue, .. }) = self.reserved.remove(tag) else {
            return false;
        };
        if let Some(marked) = mark_redelivered(&kept.raw) {
            kept.raw = marked.into_bytes();
        }
        let step = kept.step;
        self.queues.entry(queue).or_default()[step].push_front(kept);
        self.waiting += 1;
        true
    }

    /// What nobody has renewed for this long, the latest first.
    pub fn expired(&self, visibility_timeout: Duration) -> Vec<DeliveryTag> {
        let mut expired: Vec<_> = self
            .reserved
            .iter()
            .filter(|(_, held)| held.renewed.elapsed() >= visibility_timeout)
            .collect();
        expired.sort_by_key(|(_, held)| std::cmp::Reverse(held.renewed));
        expired.into_iter().map(|(tag, _)| tag.clone()).collect()
    }
}

/// Which of kombu's priority lists: 0-2, 3-5, 6-8, 9.
pub(super) fn step(priority: u8) -> usize {
    usize::from(priority.min(9) / 3)
}
