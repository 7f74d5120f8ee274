//! A lock whose readers do not keep the writer out: one that waits to write is next, however many come to read. The
//! standard library's lets a reader that comes back at once overtake it, again and again.

use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

#[derive(Debug)]
pub(crate) struct Gated<T> {
    /// Held by a writer while it waits; readers go through.
    gate: Mutex<()>,
    content: RwLock<T>,
}

impl<T> Gated<T> {
    pub(crate) fn new(content: T) -> Self {
        Self {
            gate: Mutex::new(()),
            content: RwLock::new(content),
        }
    }

    // A thread that panicked while it held a lock leaves counts that may be off, and entries that are whole.

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        drop(self.gate.lock().unwrap_or_else(PoisonError::into_inner));
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        let _gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        self.content.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_writer_that_waits_is_before_readers_that_come_later() {
        let shared = &Gated::new(0);
        thread::scope(|scope| {
            let earlier = shared.read();
            scope.spawn(|| *shared.write() += 1);
            while shared.gate.try_lock().is_ok() {
                thread::yield_now();
            }
            let later = scope.spawn(|| *shared.read());
            assert_eq!(*earlier, 0);
            drop(earlier);
            assert_eq!(later.join().expect("a value"), 1);
        });
    }
}
