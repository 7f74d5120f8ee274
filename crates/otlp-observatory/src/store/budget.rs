//! One memory budget for all signals. Nothing is evicted while their total is within the limit. Above it, the oldest
//! telemetry is evicted first, whatever its signal, but a signal keeps a quarter of the limit: however many log records
//! arrive, they do not evict the last traces.

use crate::export::Signal;

/// Inverse of the fraction of the limit that a signal keeps. It exceeds the number of signals, so that above the limit,
/// at least one signal uses more than its fraction.
const RESERVED_DIVISOR: usize = 4;

/// Inverse of the fraction of the limit that a single item may use. Larger items are rejected.
const ITEM_DIVISOR: usize = 8;

/// Returns the maximum size of a single item or resource, in bytes.
pub(crate) const fn max_item(limit: usize) -> usize {
    limit / ITEM_DIVISOR
}

/// Telemetry of a signal, from which the oldest can be evicted.
pub(crate) trait Evict {
    /// Returns the memory use in bytes.
    fn bytes(&self) -> usize;

    /// Returns the time of arrival of the oldest telemetry; `None` if there is none.
    fn oldest(&self) -> Option<u64>;

    /// Removes the oldest telemetry.
    fn evict_oldest(&mut self);
}

/// Room of a signal: what it may use before it evicts its own telemetry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    bytes: usize,
    /// Time of arrival after which the telemetry of another signal is older and evicted first.
    until: u64,
}

impl Room {
    /// Evicts the oldest telemetry of a signal beyond its room.
    pub(crate) fn make(&self, signal: &mut impl Evict) {
        while signal.bytes() > self.bytes && signal.oldest().is_some_and(|oldest| oldest <= self.until) {
            signal.evict_oldest();
        }
    }
}

/// Memory use and oldest telemetry of all signals.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    used: [usize; 3],
    oldest: [Option<u64>; 3],
}

impl Budget {
    /// Creates the budget from the memory use and the oldest telemetry of each signal, ordered by discriminant.
    pub(crate) fn new(limit: usize, state: [(usize, Option<u64>); 3]) -> Self {
        Self {
            limit,
            used: state.map(|(used, _)| used),
            oldest: state.map(|(_, oldest)| oldest),
        }
    }

    fn reserved(&self) -> usize {
        self.limit / RESERVED_DIVISOR
    }

    /// Whether telemetry of a signal may be evicted.
    fn may_shrink(&self, signal: usize) -> bool {
        self.oldest[signal].is_some() && self.used[signal] > self.reserved()
    }

    /// Returns the room of a signal.
    pub(crate) fn room(&self, signal: Signal) -> Room {
        let signal = signal as usize;
        let others = (0..3).filter(|&other| other != signal);
        let used: usize = others.clone().map(|other| self.used[other]).sum();
        let oldest = others
            .filter(|&other| self.may_shrink(other))
            .filter_map(|other| self.oldest[other]);
        Room {
            bytes: self.limit.saturating_sub(used).max(self.reserved()),
            until: oldest.min().unwrap_or(u64::MAX),
        }
    }

    /// Returns the signal whose oldest telemetry is to be evicted; `None` within the limit.
    pub(crate) fn exceeded(&self) -> Option<Signal> {
        if self.used.iter().sum::<usize>() <= self.limit {
            return None;
        }
        let signals = Signal::ALL.into_iter();
        let shrinkable = signals.filter(|&signal| self.may_shrink(signal as usize));
        shrinkable.min_by_key(|&signal| self.oldest[signal as usize])
    }

    /// Makes room in a signal.
    pub(crate) fn shrink(&mut self, signal: Signal, telemetry: &mut impl Evict) {
        self.room(signal).make(telemetry);
        (self.used[signal as usize], self.oldest[signal as usize]) = state(telemetry);
    }
}

/// Returns the memory use and the time of arrival of the oldest telemetry of a signal.
pub(crate) fn state(telemetry: &impl Evict) -> (usize, Option<u64>) {
    (telemetry.bytes(), telemetry.oldest())
}
