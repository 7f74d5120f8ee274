//! Totals of searches with many results, remembered for a few seconds.
//!
//! Counting many results takes much longer than finding a page of them, so the following pages, and other
//! callers with the same search, use the previous count. It is used until it is as old as [`LIFETIME`];
//! nothing else invalidates it.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Maximum age of a total.
const LIFETIME: Duration = Duration::from_secs(5);
/// Maximum memory of all totals, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// Remembered totals, the oldest first.
#[derive(Debug, Default)]
pub(super) struct SearchTotals(Mutex<VecDeque<Remembered>>);

#[derive(Debug)]
struct Remembered {
    search: Box<str>,
    total: i64,
    counted: Instant,
}

impl SearchTotals {
    pub(super) fn get(&self, search: &str, now: Instant) -> Option<i64> {
        let remembered = self.lock();
        let found = remembered.iter().find(|entry| *entry.search == *search)?;
        (now < found.counted + LIFETIME).then_some(found.total)
    }

    /// Remembers a total, and forgets the oldest ones that no longer fit into [`MAX_BYTES`].
    pub(super) fn insert(&self, search: &str, total: i64, now: Instant) {
        if size(search) > MAX_BYTES {
            return;
        }
        let mut remembered = self.lock();
        remembered.retain(|entry| *entry.search != *search && now < entry.counted + LIFETIME);
        while size(search) + remembered.iter().map(|entry| size(&entry.search)).sum::<usize>() > MAX_BYTES {
            remembered.pop_front();
        }
        remembered.push_back(Remembered {
            search: search.into(),
            total,
            counted: now,
        });
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Remembered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the memory of an entry, including the unused capacity of a queue that has grown.
fn size(search: &str) -> usize {
    search.len() + 2 * size_of::<Remembered>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_is_forgotten_after_its_lifetime() {
        let (totals, start) = (SearchTotals::default(), Instant::now());
        assert_eq!(totals.get("a", start), None);
        totals.insert("a", 7, start);
        let last = start + LIFETIME - Duration::from_millis(1);
        assert_eq!(totals.get("a", last), Some(7));
        assert_eq!(totals.get("b", last), None);
        assert_eq!(totals.get("a", start + LIFETIME), None);
        totals.insert("b", 8, start + LIFETIME);
        assert_eq!(totals.lock().len(), 1);
    }

    #[test]
    fn a_later_count_replaces_a_total_and_its_age() {
        let (totals, start) = (SearchTotals::default(), Instant::now());
        totals.insert("a", 7, start);
        totals.insert("a", 8, start + LIFETIME / 2);
        assert_eq!(totals.get("a", start + LIFETIME), Some(8));
        assert_eq!(totals.lock().len(), 1);
    }

    #[test]
    fn memory_is_bounded_and_the_newest_totals_are_kept() {
        let (totals, now) = (SearchTotals::default(), Instant::now());
        let name = |number: usize| format!("{number:0>255}");
        for number in 0..1_000 {
            totals.insert(&name(number), 7, now);
        }
        let kept = totals.lock().len();
        assert!((100..=MAX_BYTES / 255).contains(&kept), "{kept}");
        assert!(totals.get(&name(1_000 - kept), now).is_some());
        assert!(totals.get(&name(1_000 - kept - 1), now).is_none());
        totals.insert(&"a".repeat(MAX_BYTES), 7, now);
        assert_eq!(
            totals.lock().len(),
            kept,
            "a search that does not fit is not remembered"
        );
    }
}
