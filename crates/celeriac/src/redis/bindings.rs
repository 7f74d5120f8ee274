//! Remembers the queues whose bindings have been declared. kombu finds queues by these bindings. As in
//! Celery, a binding is declared once per connection; it is declared again after a while, in case the
//! database was flushed.

use std::{collections::HashSet, time::Duration};

use tokio::time::Instant;

/// Maximum number of remembered queues; bindings of other queues are declared every time.
const MAX_BINDINGS: usize = 1024;
/// Time after which bindings are declared again.
const REDECLARE_AFTER: Duration = Duration::from_secs(10);

/// Queues whose bindings were declared on the current connection.
#[derive(Default)]
pub(super) struct Bindings {
    generation: u64,
    /// Time of the oldest declaration.
    since: Option<Instant>,
    queues: HashSet<String>,
}

impl Bindings {
    fn is_fresh(&self, generation: u64) -> bool {
        self.generation == generation && self.since.is_some_and(|since| since.elapsed() < REDECLARE_AFTER)
    }

    pub(super) fn has(&self, generation: u64, queue: &str) -> bool {
        self.is_fresh(generation) && self.queues.contains(queue)
    }

    pub(super) fn add(&mut self, generation: u64, queues: Vec<String>) {
        if !self.is_fresh(generation) {
            *self = Self {
                generation,
                since: Some(Instant::now()),
                queues: HashSet::new(),
            };
        }
        if self.queues.len() + queues.len() <= MAX_BINDINGS {
            self.queues.extend(queues);
        }
    }
}
