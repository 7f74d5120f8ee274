//! Publishes messages to their lists and declares the bindings of their queues.

use redis::pipe;

use super::{RedisBroker, commands, names};
use crate::{broker::BrokerError, message::Message};

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
            if !declared.iter().any(|known| known == queue) && !self.bindings.lock().has(generation, queue) {
                pipeline
                    .sadd(names::binding_key(queue), names::binding(queue))
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
        self.bindings.lock().add(generation, declared);
        Ok(())
    }
}
