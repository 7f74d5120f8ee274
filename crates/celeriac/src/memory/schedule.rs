//! Last ticks of periodic tasks in the in-process broker. They do not outlive the broker, so every entry
//! starts from the current time after a restart.

use async_trait::async_trait;

use super::MemoryBroker;
use crate::{
    broker::{BrokerError, LastTicks, Timetable},
    message::Message,
    system,
};

#[async_trait]
impl Timetable for MemoryBroker {
    async fn last_ticks(&self, entries: &[String]) -> Result<LastTicks, BrokerError> {
        let contents = self.contents.lock();
        let ticks = entries.iter().map(|entry| contents.ticks.get(entry).cloned());
        Ok(LastTicks {
            now: system::now(),
            ticks: ticks.collect(),
        })
    }

    async fn advance(
        &self,
        entry: &str,
        from: Option<&[u8]>,
        to: &str,
        message: Option<Message>,
    ) -> Result<bool, BrokerError> {
        {
            let mut contents = self.contents.lock();
            if contents.ticks.get(entry).map(Vec::as_slice) != from {
                return Ok(false);
            }
            if let Some(message) = message {
                let queues = contents.queues_of(&message)?;
                contents.ensure_room(queues.len())?;
                for queue in queues {
                    let raw = message.encode().into_bytes();
                    contents.publish(&queue, message.properties.priority, raw);
                }
            }
            contents.ticks.insert(entry.to_owned(), to.as_bytes().to_vec());
        }
        self.arrived.notify_waiters();
        Ok(true)
    }
}
