//! A bounded map that is read at every measurement and written when something is seen for the first time. What comes
//! after the limit is not kept: whoever measures must have a way without the table.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::{PoisonError, RwLock};

/// At most `limit` entries, which are never removed.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    entries: RwLock<HashMap<K, V, BuildHasherDefault<Mixer>>>,
    limit: usize,
}

impl<K: Hash + Eq, V> Table<K, V> {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            entries: RwLock::default(),
            limit,
        }
    }

    /// Applies `with` to the entry of `key`, which `make` makes when there is none. `None` when the table is full.
    pub(crate) fn with<Q, R>(
        &self,
        key: &Q,
        make: impl FnOnce() -> V,
        with: impl FnOnce(&V) -> R,
    ) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        {
            let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(entry) = entries.get(key) {
                return Some(with(entry));
            }
            if entries.len() >= self.limit {
                return None;
            }
        }
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= self.limit && !entries.contains_key(key) {
            return None;
        }
        Some(with(entries.entry(key.to_owned()).or_insert_with(make)))
    }
}

/// A hasher for short texts that costs little. It resists no attacker, who could at worst make a full table as slow as
/// a list of as many entries.
#[derive(Debug, Default)]
pub(crate) struct Mixer(u64);

impl Mixer {
    /// An odd number whose bits look random: 2^64 divided by the golden ratio.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

    fn add(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * u128::from(Self::FACTOR);
        // Both halves, so that every bit of the word reaches every bit of the sum.
        self.0 = (product as u64) ^ ((product >> 64) as u64).rotate_left(17);
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.add(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.add(u64::from_le_bytes(last) ^ ((bytes.len() as u64) << 56));
    }

    fn write_u8(&mut self, value: u8) {
        self.add(u64::from(value));
    }

    fn write_u16(&mut self, value: u16) {
        self.add(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.add(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.add(value as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_full_table_keeps_what_it_has_and_takes_nothing_more() {
        let table = Table::<String, usize>::new(2);
        for (key, value) in [("a", 1), ("b", 2), ("a", 3)] {
            assert!(table.with(key, || value, |_| ()).is_some());
        }
        assert_eq!(table.with("c", || 4, |value| *value), None);
        assert_eq!(table.with("a", || 5, |value| *value), Some(1));
        assert_eq!(table.with("b", || 5, |value| *value), Some(2));
    }

    #[test]
    fn texts_that_differ_a_little_have_different_hashes() {
        let hash = |text: &str| {
            let mut mixer = Mixer::default();
            text.hash(&mut mixer);
            mixer.finish()
        };
        let texts: Vec<String> = (0..10_000).map(|n| format!("/api/articles/{n}")).collect();
        let hashes: HashSet<u64> = texts.iter().map(|text| hash(text)).collect();
        assert_eq!(hashes.len(), texts.len());
        // Those of the lowest bits, which a map uses, spread as well.
        let low: HashSet<u64> = hashes.iter().map(|hash| hash & 0xffff).collect();
        assert!(low.len() > 8_000, "{}", low.len());
    }
}
