//! Publishes messages to their lists and declares the bindings by which kombu knows the queues: once for each
//! queue and connection, as Celery does, and again after a while, in case the database has been flushed.

use std::{collections::HashSet, time::Duration};

use redis::pipe;
use tokio::time::Instant;

use super::{RedisBroker, commands, names};
use crate::{broker::BrokerError, lock::Lock, message::Message};

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

impl RedisBroker {
    /// Pushes all messages in a single pipeline.
    pub(super) async fn push(&self, messages: &[Message]) -> Result<(), BrokerError> {
        if messages.is_empty() {
            return Ok(());
        }
        let generation = self.commands.live().await?.generation;
        let mut pipeline = pipe();
        let mut declared = Vec::new();
        let mut lists: Vec<(String, Vec<String>)> = Vec::new();
        for message in messages {
            let queue = message.queue();
            if !declared.iter().any(|known| known == queue) && !self.bindings.has(generation, queue) {
                pipeline
                    .cmd("SADD")
                    .arg(names::binding_key(queue))
                    .arg(names::binding(queue))
                    .ignore();
                declared.push(queue.to_owned());
            }
            let list = names::list(queue, message.properties.priority);
            let text = message.encode();
            // One command pushes all messages of a list, in order.
            match lists.iter_mut().find(|(known, _)| *known == list) {
                Some((_, texts)) => texts.push(text),
                None => lists.push((list, vec![text])),
            }
        }
        for (list, texts) in lists {
            pipeline.cmd("LPUSH").arg(list).arg(texts).ignore();
        }
        self.commands.pipeline::<()>(commands::LPUSH, &pipeline).await?;
        self.bindings.add(generation, declared);
        Ok(())
    }
}

impl Declared {
    fn is_fresh(&self, generation: u64) -> bool {
        self.generation == generation && self.since.is_some_and(|since| since.elapsed() < REDECLARE_AFTER)
    }
}

impl Bindings {
    fn has(&self, generation: u64, queue: &str) -> bool {
        let declared = self.0.lock();
        declared.is_fresh(generation) && declared.queues.contains(queue)
    }

    /// Forgets all bindings, so that they are declared again.
    pub(super) fn forget(&self) {
        *self.0.lock() = Declared::default();
    }

    fn add(&self, generation: u64, queues: Vec<String>) {
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
