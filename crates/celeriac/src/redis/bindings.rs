//! Remembers the bindings by which kombu knows the queues. They are declared once for each queue and
//! connection, as Celery does, and again after a while, in case the database has been flushed.

use std::{collections::HashSet, time::Duration};

use tokio::time::Instant;

use crate::lock::Lock;

/// Maximum number of queues whose bindings are remembered; others are declared every time.
const MAX_BINDINGS: usize = 1024;
/// Time after which bindings are declared again.
const REDECLARE_AFTER: Duration = Duration::from_secs(10);

/// Queues whose bindings were declared on the current connection.
#[derive(Default)]
pub(super) struct Bindings(Lock<Declared>);

#[derive(Default)]
struct Declared {
    generation: u64,
    /// Time of the oldest declaration.
    since: Option<Instant>,
    queues: HashSet<String>,
}

impl Declared {
    fn is_fresh(&self, generation: u64) -> bool {
        self.generation == generation && self.since.is_some_and(|since| since.elapsed() < REDECLARE_AFTER)
    }
}

impl Bindings {
    pub(super) fn has(&self, generation: u64, queue: &str) -> bool {
        let declared = self.0.lock();
        declared.is_fresh(generation) && declared.queues.contains(queue)
    }

    /// Forgets all bindings, so that they are declared again.
    pub(super) fn forget(&self) {
        *self.0.lock() = Declared::default();
    }

    pub(super) fn add(&self, generation: u64, queues: Vec<String>) {
        let mut declared = self.0.lock();
        if !declared.is_fresh(generation) {
            *declared = Declared {
                generation,
                since: Some(Instant::now()),
                queues: HashSet::new(),
            };
        }
        if declared.queues.len() + queues.len() <= MAX_BINDINGS {
            declared.queues.extend(queues);
        }
    }
}
