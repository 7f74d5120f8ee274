//! Publishes messages to their lists and declares the bindings of their queues.

use redis::pipe;

use super::{RedisBroker, commands, names::Names, script::Invocation, scripts};
use crate::{
    broker::{BrokerError, LogReply, PublicationLog},
    message::Message,
};

/// Lifetime of a publication log after its last batch.
const LOG_SECONDS: u64 = 30 * 86_400;

/// Messages for one list, in order.
struct ListOfMessages<'a> {
    queue: &'a str,
    list: String,
    texts: Vec<String>,
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
        // One command pushes all messages of a list, in order.
        for ListOfMessages { queue, list, texts } in by_list(self.names(), messages) {
            if !declared.iter().any(|known| known == queue) && !self.bindings.lock().has(generation, queue) {
                pipeline
                    .sadd(self.names().binding_key(queue), self.names().binding(queue))
                    .ignore();
                declared.push(queue.to_owned());
            }
            pipeline.cmd("LPUSH").arg(list).arg(texts).ignore();
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
        let mut script = Invocation::new(&scripts::PUBLISH_LOGGED);
        script
            .key(self.names().publication_log(log.id()))
            .arg(log.length())
            .arg(LOG_SECONDS);
        for ListOfMessages { queue, list, texts } in by_list(self.names(), messages) {
            script.key(self.names().binding_key(queue)).key(list);
            script
                .arg(self.names().binding(queue))
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
}

fn by_list<'a>(names: &Names, messages: &'a [Message]) -> Vec<ListOfMessages<'a>> {
    let mut lists: Vec<ListOfMessages<'a>> = Vec::new();
    for message in messages {
        let queue = message.queue();
        let list = names.list(queue, message.properties.priority);
        let text = message.encode();
        match lists.iter_mut().find(|known| known.list == list) {
            Some(known) => known.texts.push(text),
            None => lists.push(ListOfMessages {
                queue,
                list,
                texts: vec![text],
            }),
        }
    }
    lists
}
