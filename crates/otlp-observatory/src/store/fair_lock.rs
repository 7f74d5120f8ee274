//! Read-write lock that does not starve writers: a waiting writer precedes readers that arrive later. With
//! the standard library's lock, a reader that locks again immediately can overtake a waiting writer
//! indefinitely.

use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Read-write lock that prefers waiting writers.
#[derive(Debug)]
pub(crate) struct FairLock<T> {
    /// Held by a waiting writer, and acquired briefly by every reader.
    gate: Mutex<()>,
    content: RwLock<T>,
}

impl<T> FairLock<T> {
    pub(crate) fn new(content: T) -> Self {
        Self {
            gate: Mutex::new(()),
            content: RwLock::new(content),
        }
    }

    // Poisoning is ignored: a panic while the lock is held may leave counts wrong, but entries stay complete.

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
    fn a_waiting_writer_precedes_later_readers() {
        let shared = &FairLock::new(0);
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
