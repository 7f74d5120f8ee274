//! Positions in lists that are ordered by time. Entries arrive in any order of time, so each list has an index.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Serialize, Serializer};

/// Time and number of an entry. Pages of a list continue below a position, whatever arrives in the meantime.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct TimePosition {
    /// Nanoseconds since 1970.
    pub(crate) time: u64,
    /// Number in order of arrival, which distinguishes entries of the same time.
    pub(crate) number: u64,
}

impl TimePosition {
    /// TimePosition above every entry.
    pub(crate) const END: Self = Self {
        time: u64::MAX,
        number: u64::MAX,
    };
}

impl fmt::Display for TimePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.time, self.number)
    }
}

impl FromStr for TimePosition {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (time, number) = text.split_once('-').ok_or(())?;
        let parse = |digits: &str| digits.parse().map_err(|_| ());
        Ok(Self {
            time: parse(time)?,
            number: parse(number)?,
        })
    }
}

impl Serialize for TimePosition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Positions of all entries of a list, ordered by time.
#[derive(Debug, Default)]
pub(crate) struct TimeIndex {
    positions: BTreeSet<TimePosition>,
}

impl TimeIndex {
    /// Allocated bytes per position: a node of 11 positions, which ascending insertion leaves half full.
    const ENTRY_BYTES: usize = 36;

    pub(crate) fn insert(&mut self, time: u64, number: u64) {
        self.positions.insert(TimePosition { time, number });
    }

    pub(crate) fn remove(&mut self, time: u64, number: u64) {
        self.positions.remove(&TimePosition { time, number });
    }

    /// Returns the positions below `before`, newest first.
    pub(crate) fn before(&self, before: TimePosition) -> impl Iterator<Item = TimePosition> {
        self.positions.range(..before).rev().copied()
    }

    /// Returns the memory use in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.positions.len() * Self::ENTRY_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_of_a_position_is_parsed_and_other_text_is_not() {
        let position = TimePosition {
            time: 1_800_000_000_000_000_000,
            number: 4711,
        };
        assert_eq!(position.to_string().parse(), Ok(position));
        for text in ["", "1", "-", "1-", "-1", "1-x", "1-2-3"] {
            assert_eq!(text.parse::<TimePosition>(), Err(()), "{text}");
        }
    }
}
