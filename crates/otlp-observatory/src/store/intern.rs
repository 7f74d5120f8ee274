//! Reference-counted interning of values that many entries share. Senders choose these values and may be
//! hostile, so their size is counted, and a value is removed with its last reference.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    mem::size_of,
};

use super::memory;

/// Types that report their heap memory.
pub(crate) trait Footprint {
    /// Allocated bytes, without `size_of::<Self>()`.
    fn heap_bytes(&self) -> usize;
}

/// Id of an interned value; reused for another value after the last reference is released.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct InternId(u32);

impl InternId {
    /// Returns the index into a table with one entry per id.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Debug)]
struct Slot<T> {
    value: T,
    hash: u64,
    references: u64,
}

/// Interned values with their reference counts.
#[derive(Debug)]
pub(crate) struct Interner<T> {
    slots: Vec<Option<Slot<T>>>,
    free: Vec<InternId>,
    /// Ids by hash. Hashes are keyed, so senders cannot provoke collisions; values that still collide are
    /// stored separately.
    by_hash: HashMap<u64, InternId>,
    hasher: RandomState,
    values_bytes: usize,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_hash: HashMap::new(),
            hasher: RandomState::new(),
            values_bytes: 0,
        }
    }
}

impl<T: Footprint> Interner<T> {
    /// Adds a reference to the stored value for which `is_same` returns true, or inserts the value that
    /// `make` returns.
    ///
    /// Equal values must have equal keys.
    pub(crate) fn intern(
        &mut self,
        key: &impl Hash,
        is_same: impl FnOnce(&T) -> bool,
        make: impl FnOnce() -> T,
    ) -> InternId {
        let hash = self.hasher.hash_one(key);
        let known = self.by_hash.get(&hash).copied();
        if let Some(id) = known
            && let Some(slot) = &mut self.slots[id.index()]
            && is_same(&slot.value)
        {
            slot.references += 1;
            return id;
        }
        let value = make();
        self.values_bytes += value.heap_bytes();
        let slot = Some(Slot {
            value,
            hash,
            references: 1,
        });
        let id = self.free.pop().unwrap_or_else(|| {
            let id = u32::try_from(self.slots.len());
            self.slots.push(None);
            InternId(id.expect("the memory limit allows far fewer than 2^32 values"))
        });
        self.slots[id.index()] = slot;
        if known.is_none() {
            self.by_hash.insert(hash, id);
        }
        id
    }

    /// Adds a reference.
    pub(crate) fn retain(&mut self, id: InternId) {
        if let Some(slot) = &mut self.slots[id.index()] {
            slot.references += 1;
        }
    }

    /// Removes a reference; returns the value if the reference was the last one.
    pub(crate) fn release(&mut self, id: InternId) -> Option<T> {
        let entry = &mut self.slots[id.index()];
        let slot = entry.as_mut()?;
        slot.references -= 1;
        if slot.references > 0 {
            return None;
        }
        let slot = entry.take()?;
        self.values_bytes -= slot.value.heap_bytes();
        self.free.push(id);
        if self.by_hash.get(&slot.hash) == Some(&id) {
            self.by_hash.remove(&slot.hash);
        }
        if self.by_hash.capacity() > 4 * self.by_hash.len() + 64 {
            self.by_hash.shrink_to(2 * self.by_hash.len());
        }
        Some(slot.value)
    }

    /// Changes a value. The change must not affect equality with other values.
    pub(crate) fn update<R>(&mut self, id: InternId, change: impl FnOnce(&mut T) -> R) -> R {
        let slot = self.slots[id.index()].as_mut();
        let value = &mut slot.expect("holders of an id hold a reference").value;
        self.values_bytes -= value.heap_bytes();
        let result = change(value);
        self.values_bytes += value.heap_bytes();
        result
    }

    pub(crate) fn get(&self, id: InternId) -> &T {
        let slot = self.slots[id.index()].as_ref();
        &slot.expect("holders of an id hold a reference").value
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten().map(|slot| &slot.value)
    }

    /// Returns the required length of a table with one entry per id.
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Returns the values indexed by id, with `None` for unused ids.
    pub(crate) fn slot_values(&self) -> impl Iterator<Item = Option<&T>> {
        self.slots
            .iter()
            .map(|slot| slot.as_ref().map(|slot| &slot.value))
    }

    /// Returns the memory use in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.values_bytes
            + self.slots.capacity() * size_of::<Option<Slot<T>>>()
            + self.free.capacity() * size_of::<InternId>()
            + memory::table::<(u64, InternId)>(self.by_hash.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Footprint for String {
        fn heap_bytes(&self) -> usize {
            self.len()
        }
    }

    fn intern(interner: &mut Interner<String>, text: &str) -> InternId {
        interner.intern(&text, |known| known == text, || text.to_owned())
    }

    #[test]
    fn equal_values_are_stored_once_and_removed_with_the_last_reference() {
        let mut interner = Interner::default();
        let first = intern(&mut interner, "a");
        assert_eq!(intern(&mut interner, "a"), first);
        let other = intern(&mut interner, "b");
        assert_ne!(other, first);

        assert_eq!(interner.release(first), None);
        assert_eq!(interner.get(first), "a");
        assert_eq!(interner.release(first).as_deref(), Some("a"));
        assert_eq!(interner.iter().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn released_values_free_their_memory() {
        let mut interner = Interner::default();
        for number in 0..100_000 {
            let id = intern(&mut interner, &number.to_string());
            interner.release(id);
        }
        assert_eq!(interner.slots(), 1);
        assert!(interner.bytes() < 1_000, "{} bytes", interner.bytes());
    }
}
