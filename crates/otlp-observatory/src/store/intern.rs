//! Keeps one copy of what many entries share, for as long as one of them needs it. What is shared is named by senders and so
//! by attackers: everything is counted in bytes, and leaves with its last user.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    mem::size_of,
};

use super::memory;

/// What can say how much it takes beyond its own size.
pub(crate) trait Footprint {
    fn heap_bytes(&self) -> usize;
}

/// Names a shared thing while at least one user holds it; used again for another one after that.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Shared(u32);

impl Shared {
    /// For tables beside the interner, by position.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Debug)]
struct Slot<T> {
    value: T,
    hash: u64,
    uses: u64,
}

/// Shared things by number, with the number of their users.
#[derive(Debug)]
pub(crate) struct Interner<T> {
    slots: Vec<Option<Slot<T>>>,
    free: Vec<Shared>,
    /// Keyed hashes: a sender cannot choose names that collide. Two that do all the same are only not shared.
    by_hash: HashMap<u64, Shared>,
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
    /// The one for which `is_same` holds, or a new one; with one user more. `key` must be the same for the same things.
    pub(crate) fn intern(
        &mut self,
        key: &impl Hash,
        is_same: impl FnOnce(&T) -> bool,
        make: impl FnOnce() -> T,
    ) -> (Shared, Novelty) {
        let hash = self.hasher.hash_one(key);
        let known = self.by_hash.get(&hash).copied();
        if let Some(shared) = known
            && let Some(slot) = &mut self.slots[shared.index()]
            && is_same(&slot.value)
        {
            slot.uses += 1;
            return (shared, Novelty::Known);
        }
        let value = make();
        self.values_bytes += value.heap_bytes();
        let slot = Some(Slot { value, hash, uses: 1 });
        let shared = match self.free.pop() {
            Some(shared) => {
                self.slots[shared.index()] = slot;
                shared
            }
            None => {
                let shared =
                    Shared(u32::try_from(self.slots.len()).expect("limits are far below four billion"));
                self.slots.push(slot);
                shared
            }
        };
        if known.is_none() {
            self.by_hash.insert(hash, shared);
        }
        (shared, Novelty::New)
    }

    /// One user more.
    pub(crate) fn retain(&mut self, shared: Shared) {
        if let Some(slot) = &mut self.slots[shared.index()] {
            slot.uses += 1;
        }
    }

    /// One user less; the thing itself when that was the last.
    pub(crate) fn release(&mut self, shared: Shared) -> Option<T> {
        let place = &mut self.slots[shared.index()];
        let slot = place.as_mut()?;
        slot.uses -= 1;
        if slot.uses > 0 {
            return None;
        }
        let slot = place.take()?;
        self.values_bytes -= slot.value.heap_bytes();
        self.free.push(shared);
        if self.by_hash.get(&slot.hash) == Some(&shared) {
            self.by_hash.remove(&slot.hash);
        }
        Some(slot.value)
    }

    pub(crate) fn get(&self, shared: Shared) -> &T {
        let slot = self.slots[shared.index()].as_ref();
        &slot.expect("whoever has the number is a user").value
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten().map(|slot| &slot.value)
    }

    /// One more than the greatest number in use: how long a table by number must be.
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// By number, with gaps where a number is not in use.
    pub(crate) fn slot_values(&self) -> impl Iterator<Item = Option<&T>> {
        self.slots
            .iter()
            .map(|slot| slot.as_ref().map(|slot| &slot.value))
    }

    /// Everything kept here, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.values_bytes
            + self.slots.capacity() * size_of::<Option<Slot<T>>>()
            + self.free.capacity() * size_of::<Shared>()
            + memory::table::<(u64, Shared)>(self.by_hash.capacity())
    }
}

/// Whether a thing had to be made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Novelty {
    Known,
    New,
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Footprint for String {
        fn heap_bytes(&self) -> usize {
            self.len()
        }
    }

    fn intern(interner: &mut Interner<String>, text: &str) -> Shared {
        interner
            .intern(&text, |known| known == text, || text.to_owned())
            .0
    }

    #[test]
    fn what_is_the_same_is_kept_once_and_leaves_with_its_last_user() {
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
    fn names_that_come_and_go_leave_nothing_behind() {
        let mut interner = Interner::default();
        for number in 0..100_000 {
            let shared = intern(&mut interner, &number.to_string());
            interner.release(shared);
        }
        assert_eq!(interner.slots(), 1);
        assert!(interner.bytes() < 1_000, "{} bytes", interner.bytes());
    }
}
