//! Publishes messages to their lists and declares the bindings of their queues.

use std::mem;

use redis::pipe;

use super::{RedisBroker, commands, destination::Destination, script::Invocation, scripts};
use crate::{
    broker::{BrokerError, LogReply, PublicationLog},
    message::Message,
};

/// Lifetime of a publication log after its last batch.
const LOG_SECONDS: u64 = 30 * 86_400;

/// Messages for one list, in order.
struct ListOfMessages {
    queue: String,
    list: String,
    texts: Vec<String>,
}

type Sorted = (Vec<ListOfMessages>, Vec<(String, String)>);

impl RedisBroker {
    /// Pushes all messages in a single pipeline.
    pub(super) async fn push(&self, messages: &[Message]) -> Result<(), BrokerError> {
        if messages.is_empty() {
            return Ok(());
        }
        let (lists, broadcasts) = self.by_list(messages).await?;
        let generation = self.commands.live().await?.generation;
        let mut pipeline = pipe();
        let mut declared = Vec::new();
        // One command pushes all messages of a list, in order.
        for ListOfMessages { queue, list, texts } in lists {
            if !declared.contains(&queue) && !self.bindings.lock().has(generation, &queue) {
                pipeline
                    .sadd(self.names().binding_key(&queue), self.names().binding(&queue))
                    .ignore();
                declared.push(queue);
            }
            pipeline.cmd("LPUSH").arg(list).arg(texts).ignore();
        }
        for (channel, text) in broadcasts {
            pipeline.publish(channel, text).ignore();
        }
        self.commands.pipeline::<()>(commands::LPUSH, &pipeline).await?;
        self.bindings.lock().add(generation, declared);
        Ok(())
    }

    /// Pushes all messages and extends the log in one script.
    pub(super) async fn push_logged(
        &self,
        log: &PublicationLog,
        messages: &[Message],
    ) -> Result<LogReply, BrokerError> {
        let (lists, broadcasts) = self.by_list(messages).await?;
        if !broadcasts.is_empty() {
            return Err(BrokerError::Refused {
                cause: "a fan-out exchange does not store messages, so they cannot be logged".to_owned(),
            });
        }
        let mut script = Invocation::new(&scripts::PUBLISH_LOGGED);
        script
            .key(self.names().publication_log(log.id()))
            .arg(log.length())
            .arg(LOG_SECONDS);
        for ListOfMessages { queue, list, texts } in lists {
            script.key(self.names().binding_key(&queue)).key(list);
            script
                .arg(self.names().binding(&queue))
                .arg(texts.len())
                .arg(texts);
        }
        let (published, length): (bool, u64) = self.commands.script(&script).await?;
        Ok(if published {
            LogReply::Extended(length)
        } else {
            LogReply::Lost(length)
        })
    }

    /// Returns the messages for each list, and the channels and messages of fan-out exchanges.
    async fn by_list(&self, messages: &[Message]) -> Result<Sorted, BrokerError> {
        let routes = self.routes(messages).await?;
        let mut lists: Vec<ListOfMessages> = Vec::new();
        let mut broadcasts = Vec::new();
        for message in messages {
            let mut text = message.encode();
            let mut destinations = self.destinations(&routes, message)?.into_iter();
            while let Some(destination) = destinations.next() {
                let more = destinations.len() > 0;
                let text = if more { text.clone() } else { mem::take(&mut text) };
                let (queue, priority) = match destination {
                    Destination::Queue { queue, priority } => (queue, priority),
                    Destination::Fanout { channel, .. } => {
                        broadcasts.push((channel, text));
                        continue;
                    }
                };
                let list = self.names().list(&queue, priority);
                match lists.iter_mut().find(|known| known.list == list) {
                    Some(known) => known.texts.push(text),
                    None => lists.push(ListOfMessages {
                        queue,
                        list,
                        texts: vec![text],
                    }),
                }
            }
        }
        Ok((lists, broadcasts))
    }
}
