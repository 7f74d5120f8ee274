//! What things take in memory, as the allocator sees it. The store's limits are kept by these numbers, so they are meant to
//! be honest rather than exact: a benchmark compares them with what the process really grows by.

use std::{collections::VecDeque, mem::size_of};

/// What an allocation of `bytes` takes: a header of 8 bytes, rounded up to 16, 32 at least.
pub(crate) const fn heap(bytes: usize) -> usize {
    if bytes == 0 {
        return 0;
    }
    let taken = bytes.saturating_add(8 + 15) & !15;
    if taken < 32 { 32 } else { taken }
}

/// What an `Arc<[u8]>` or `Arc<str>` of `length` takes: two counters before the content.
pub(crate) const fn shared(length: usize) -> usize {
    heap(length.saturating_add(2 * size_of::<usize>()))
}

/// What a hash map of `capacity` takes: an entry and a control byte for every slot, of which an eighth stays free.
pub(crate) const fn table<Entry>(capacity: usize) -> usize {
    capacity / 7 * 8 * (size_of::<Entry>() + 1)
}

/// Makes room for one more, a quarter of what is there at a time: doubling would take half of the budget at once.
pub(crate) fn grow<T>(queue: &mut VecDeque<T>) {
    queue.reserve_exact(growth(queue));
}

/// By how many entries [`grow`] would.
pub(crate) fn growth<T>(queue: &VecDeque<T>) -> usize {
    if queue.len() == queue.capacity() {
        queue.len() / 4 + 4
    } else {
        0
    }
}
