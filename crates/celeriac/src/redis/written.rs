//! Memory of what a worker has recently written: results, retries, follow-up tasks and parts of chords. If
//! the server returns with older data, the worker writes again what the server has lost.
//!
//! The server numbers the writes of each instance, in the same step as the write. Its data is always the
//! result of some first part of its history, so after a restart or a fail-over the stored number shows
//! exactly which writes are lost. Numbers belong to one run of one server, because a request never moves to
//! another connection.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use tokio::time::Instant;

use super::{
    chord_scripts::PartRecord,
    config::Bounds,
    settling::{Settling, StoredResult},
};
use crate::broker::DeliveryTag;

/// Approximate size of a settlement or part without its texts, including the overhead of about seven allocations.
const ENTRY_BYTES: usize = 400;

/// Recent writes, oldest first.
#[derive(Default)]
pub(super) struct Written {
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
}

pub(super) struct Entry {
    /// Identity of the server that confirmed the write.
    pub server: Arc<str>,
    pub number: u64,
    pub write: Arc<Write>,
    at: Instant,
}

pub(super) enum Write {
    Acks(AckBatch),
    /// Settlements of one transaction.
    Settlings(Vec<Settling>),
    /// A settlement that sends the message of a postponed delivery to its queue.
    Postponement {
        /// Id of the message, if known.
        message: Option<u128>,
        settling: Settling,
    },
    Part(PartRecord),
}

/// Acknowledgements of one transaction. Most writes are acknowledgements, so their texts are joined: many small
/// allocations that live this long would slow down all others.
#[derive(Default)]
pub(super) struct AckBatch {
    /// Time until results expire, in seconds.
    seconds: u64,
    /// For each acknowledgement its tag, the id of the task, and the result, the latter two empty without a result.
    texts: Vec<u8>,
    acks: Vec<AckEntry>,
}

struct AckEntry {
    /// Id of the message, if known.
    message: Option<u128>,
    /// Lengths of the texts.
    tag: usize,
    id: usize,
    result: usize,
}

impl AckBatch {
    pub(super) fn new(seconds: u64, count: usize) -> Self {
        Self {
            seconds,
            texts: Vec::new(),
            acks: Vec::with_capacity(count),
        }
    }

    pub(super) fn add(&mut self, tag: &DeliveryTag, message: Option<u128>, result: Option<&StoredResult>) {
        let (id, text) = result.map_or((&[][..], &[][..]), |result| {
            (result.id.as_str().as_bytes(), result.text.as_slice())
        });
        let tag = tag.as_str().as_bytes();
        for part in [tag, id, text] {
            self.texts.extend_from_slice(part);
        }
        self.acks.push(AckEntry {
            message,
            tag: tag.len(),
            id: id.len(),
            result: text.len(),
        });
    }

    /// Returns the acknowledgements as settlements.
    pub(super) fn settlings(&self) -> Vec<Settling> {
        let mut rest = self.texts.as_slice();
        let mut take = |length| rest.split_off(..length).unwrap_or_default();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let settling = |ack: &AckEntry| {
            let tag = DeliveryTag(text(take(ack.tag)));
            let mut settling = Settling::new(tag, ack.message, self.seconds);
            let (id, result) = (take(ack.id), take(ack.result));
            if ack.result > 0 {
                settling.add_stored(StoredResult {
                    id: text(id).into(),
                    text: result.to_vec(),
                });
            }
            settling
        };
        self.acks.iter().map(settling).collect()
    }
}

/// Entry that has been written again, with its new server and number, or `None` if it is obsolete.
pub(super) type Rewritten = (Arc<Entry>, Option<(Arc<str>, u64)>);

impl Write {
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Acks(batch) => batch.acks.len(),
            Self::Settlings(settlings) => settlings.len(),
            Self::Postponement { .. } | Self::Part(_) => 1,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Acks(batch) => batch.texts.capacity() + batch.acks.capacity() * size_of::<AckEntry>(),
            Self::Settlings(settlings) => settlings.iter().map(|one| ENTRY_BYTES + one.bytes()).sum(),
            Self::Postponement { settling, .. } => ENTRY_BYTES + settling.bytes(),
            Self::Part(part) => ENTRY_BYTES + part.bytes(),
        }
    }
}

impl Written {
    pub(super) fn add(&mut self, server: &Arc<str>, number: u64, write: Arc<Write>, bounds: Bounds) {
        self.bytes += write.bytes();
        self.entries.push_back(Arc::new(Entry {
            server: Arc::clone(server),
            number,
            write,
            at: Instant::now(),
        }));
        while let Some(oldest) = self.entries.front()
            && (self.bytes > bounds.bytes || oldest.at.elapsed() > bounds.time)
        {
            self.bytes -= oldest.write.bytes();
            self.entries.pop_front();
        }
    }

    /// Returns the lost entries, oldest first.
    pub(super) fn lost(&self, is_lost: impl Fn(&Entry) -> bool) -> Vec<Arc<Entry>> {
        self.entries
            .iter()
            .filter(|entry| is_lost(entry))
            .cloned()
            .collect()
    }

    /// Returns the ids of the messages whose settlements are remembered.
    pub(super) fn settled(&self) -> HashSet<u128> {
        let mut ids = HashSet::new();
        for entry in &self.entries {
            match &*entry.write {
                Write::Acks(batch) => ids.extend(batch.acks.iter().filter_map(|ack| ack.message)),
                Write::Settlings(settlings) => ids.extend(settlings.iter().filter_map(|one| one.message)),
                Write::Postponement { .. } | Write::Part(_) => {}
            }
        }
        ids
    }

    /// Returns the ids of the messages whose postponements are remembered, and forgets all but the last
    /// postponement of each, so that none is sent twice.
    pub(super) fn postponed(&mut self) -> HashSet<u128> {
        let mut ids = HashSet::new();
        for entry in std::mem::take(&mut self.entries).into_iter().rev() {
            match *entry.write {
                Write::Postponement {
                    message: Some(id), ..
                } if !ids.insert(id) => self.bytes -= entry.write.bytes(),
                _ => self.entries.push_front(entry),
            }
        }
        ids
    }

    /// Replaces entries that have been written again, each with its new server and number, or `None` if it is
    /// obsolete.
    pub(super) fn replace(&mut self, rewritten: &[Rewritten], bounds: Bounds) {
        let old: HashSet<*const Entry> = rewritten.iter().map(|(entry, _)| Arc::as_ptr(entry)).collect();
        self.entries.retain(|entry| !old.contains(&Arc::as_ptr(entry)));
        self.bytes = self.entries.iter().map(|entry| entry.write.bytes()).sum();
        for (entry, number) in rewritten {
            if let Some((server, number)) = number {
                self.add(server, *number, Arc::clone(&entry.write), bounds);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn write(text: &str) -> Arc<Write> {
        let mut settling = Settling::new(DeliveryTag("tag".to_owned()), Some(1), 60);
        settling.add_group("group", text.to_owned());
        Arc::new(Write::Settlings(vec![settling]))
    }

    #[test]
    fn acknowledgements_are_settlements_with_their_results() {
        let mut batch = AckBatch::new(60, 3);
        let result = StoredResult {
            id: "task".into(),
            text: b"{\"status\": \"SUCCESS\"}".to_vec(),
        };
        batch.add(&DeliveryTag("one".to_owned()), Some(1), Some(&result));
        batch.add(&DeliveryTag("second".to_owned()), None, None);
        batch.add(&DeliveryTag("3".to_owned()), Some(3), Some(&result));
        let expected = |tag: &str, message, result: Option<&StoredResult>| {
            let mut settling = Settling::new(DeliveryTag(tag.to_owned()), message, 60);
            if let Some(StoredResult { id, text }) = result {
                let (id, text) = (id.clone(), text.clone());
                settling.add_stored(StoredResult { id, text });
            }
            settling
        };
        assert_eq!(
            batch.settlings(),
            [
                expected("one", Some(1), Some(&result)),
                expected("second", None, None),
                expected("3", Some(3), Some(&result)),
            ]
        );
        let mut written = Written::default();
        let bounds = Bounds {
            bytes: 1 << 20,
            time: Duration::from_secs(60),
        };
        written.add(&"run".into(), 1, Arc::new(Write::Acks(batch)), bounds);
        assert_eq!(written.settled(), HashSet::from([1, 3]));
    }

    #[test]
    fn only_the_last_postponement_of_a_message_is_remembered() {
        let mut written = Written::default();
        let (server, bounds) = (
            "run".into(),
            Bounds {
                bytes: 1 << 20,
                time: Duration::from_secs(60),
            },
        );
        written.add(&server, 1, write("text"), bounds);
        let before = written.bytes;
        for (number, message) in [(2, Some(7)), (3, None), (4, Some(8)), (5, None), (6, Some(7))] {
            let settling = Settling::new(DeliveryTag("tag".to_owned()), None, 60);
            let write = Write::Postponement { message, settling };
            written.add(&server, number, Arc::new(write), bounds);
        }
        let one = (written.bytes - before) / 5;
        assert_eq!(written.postponed(), HashSet::from([7, 8]));
        let numbers: Vec<u64> = written.lost(|_| true).iter().map(|entry| entry.number).collect();
        assert_eq!(numbers, [1, 3, 4, 5, 6]);
        assert_eq!(written.bytes, before + 4 * one);
        assert_eq!(written.settled(), HashSet::from([1]), "postponed is not settled");
    }

    #[test]
    fn the_oldest_writes_are_forgotten_beyond_the_bounds() {
        let mut written = Written::default();
        let server: Arc<str> = "run".into();
        let bounds = Bounds {
            bytes: 3 * write("text").bytes(),
            time: Duration::from_secs(60),
        };
        for number in 1..=5 {
            written.add(&server, number, write("text"), bounds);
        }
        let numbers = |written: &Written| -> Vec<u64> {
            written.lost(|_| true).iter().map(|entry| entry.number).collect()
        };
        assert_eq!(numbers(&written), [3, 4, 5]);
        let lost = written.lost(|entry| entry.number > 3);
        let other: Arc<str> = "other run".into();
        let rewritten = [(lost[0].clone(), None), (lost[1].clone(), Some((other, 1)))];
        written.replace(&rewritten, bounds);
        assert_eq!(numbers(&written), [3, 1]);
        assert_eq!(written.bytes, 2 * write("text").bytes());
        let long = "text".repeat(1000);
        written.add(&server, 6, write(&long), bounds);
        assert_eq!(numbers(&written), [] as [u64; 0], "larger than the bound");
        assert_eq!(written.bytes, 0);
        let short = Bounds {
            time: Duration::ZERO,
            ..bounds
        };
        written.add(&server, 7, write("text"), short);
        assert!(numbers(&written).len() <= 1);
    }
}
