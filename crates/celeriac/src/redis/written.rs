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

use super::{chord_scripts::PartRecord, config::Bounds, settling::Settling};

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
    /// Settlements of one transaction.
    Settlings(Vec<Settling>),
    Part(PartRecord),
}

/// Entry that has been written again, with its new server and number, or `None` if it is obsolete.
pub(super) type Rewritten = (Arc<Entry>, Option<(Arc<str>, u64)>);

impl Write {
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Settlings(settlings) => settlings.len(),
            Self::Part(_) => 1,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Settlings(settlings) => settlings.iter().map(|one| ENTRY_BYTES + one.bytes()).sum(),
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
        let settled = self.entries.iter().flat_map(|entry| match &*entry.write {
            Write::Settlings(settlings) => settlings.as_slice(),
            Write::Part(_) => &[],
        });
        settled.filter_map(|settling| settling.message).collect()
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
    use crate::broker::DeliveryTag;

    fn write(text: &str) -> Arc<Write> {
        let mut settling = Settling::new(DeliveryTag("tag".to_owned()), Some(1), 60);
        settling.add_group("group", text.to_owned());
        Arc::new(Write::Settlings(vec![settling]))
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
