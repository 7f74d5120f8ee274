//! Putting messages into their lists, and telling kombu that the queue exists: its binding is declared once per
//! queue and connection, as Celery does, and again with the first message after a while, because somebody may have
//! flushed the database.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::pipe;
use tokio::time::Instant;

use super::{commands, connection::Connection, names};
use crate::{broker::BrokerError, message::Message};

/// Queues whose binding is remembered as declared; more are declared every time.
const MOST_BINDINGS: usize = 1024;
/// How long a binding is taken for granted.
const REMEMBERED: Duration = Duration::from_secs(10);

/// Queues whose binding was declared on the connection of this generation.
#[derive(Default)]
pub(super) struct Bindings(Mutex<Declared>);

#[derive(Default)]
struct Declared {
    generation: u64,
    /// Since when the oldest of them are remembered.
    since: Option<Instant>,
    queues: HashSet<String>,
}

/// Pushes all messages in one round trip.
pub(super) async fn push(
    connection: &Connection,
    bindings: &Bindings,
    messages: &[Message],
) -> Result<(), BrokerError> {
    if messages.is_empty() {
        return Ok(());
    }
    let generation = connection.live().await?.generation;
    let mut pipeline = pipe();
    let mut declared = Vec::new();
    let mut lists: Vec<(String, Vec<String>)> = Vec::new();
    for message in messages {
        let queue = message.queue();
        if !declared.iter().any(|known| known == queue) && !bindings.has(generation, queue) {
            pipeline
                .cmd("SADD")
                .arg(names::binding_key(queue))
                .arg(names::binding(queue))
                .ignore();
            declared.push(queue.to_owned());
        }
        let list = names::list(queue, message.properties.priority);
        let text = message.encode();
        // One command pushes all that go to one list, in their order.
        match lists.iter_mut().find(|(known, _)| *known == list) {
            Some((_, texts)) => texts.push(text),
            None => lists.push((list, vec![text])),
        }
    }
    for (list, texts) in lists {
        pipeline.cmd("LPUSH").arg(list).arg(texts).ignore();
    }
    connection.pipeline::<()>(commands::LPUSH, &pipeline).await?;
    bindings.add(generation, declared);
    Ok(())
}

impl Declared {
    fn is_fresh(&self, generation: u64) -> bool {
        self.generation == generation && self.since.is_some_and(|since| since.elapsed() < REMEMBERED)
    }
}

impl Bindings {
    fn has(&self, generation: u64, queue: &str) -> bool {
        let declared = self.lock();
        declared.is_fresh(generation) && declared.queues.contains(queue)
    }

    /// Everything has to be declared again.
    pub fn forget(&self) {
        *self.lock() = Declared::default();
    }

    fn add(&self, generation: u64, queues: Vec<String>) {
        let mut declared = self.lock();
        if !declared.is_fresh(generation) {
            *declared = Declared {
                generation,
                since: Some(Instant::now()),
                queues: HashSet::new(),
            };
        }
        if declared.queues.len() + queues.len() <= MOST_BINDINGS {
            declared.queues.extend(queues);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Declared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
