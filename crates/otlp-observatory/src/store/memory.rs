//! Estimates of allocated memory, with which the store enforces its limits. They approximate the allocator; a
//! benchmark compares them with the growth of the process.

use std::{collections::VecDeque, mem::size_of};

/// Returns the size of an allocation of `bytes`: a header of 8 bytes is added, and the sum is rounded up to a
/// multiple of 16 and at least 32.
pub(crate) const fn heap(bytes: usize) -> usize {
    if bytes == 0 {
        return 0;
    }
    let size = bytes.saturating_add(8 + 15) & !15;
    if size < 32 { 32 } else { size }
}

/// Returns the size of an `Arc<[u8]>` or `Arc<str>` of `length` bytes: two counters precede the content.
pub(crate) const fn shared(length: usize) -> usize {
    heap(length.saturating_add(2 * size_of::<usize>()))
}

/// Returns the size of a hash map of `capacity`: every slot has an entry and a control byte, and one slot in
/// eight stays free.
pub(crate) const fn table<Entry>(capacity: usize) -> usize {
    capacity / 7 * 8 * (size_of::<Entry>() + 1)
}

/// Reserves room for one more entry. A full queue grows by a quarter, because doubling could use half of the
/// memory limit.
pub(crate) fn grow<T>(queue: &mut VecDeque<T>) {
    if queue.len() == queue.capacity() {
        queue.reserve_exact(queue.len() / 4 + 4);
    }
}
