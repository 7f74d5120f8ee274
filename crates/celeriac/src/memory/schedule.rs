//! The last ticks of periodic tasks inside the process. They end with it, so every entry starts from now when the
//! process does.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::{
    MemoryBroker,
    state::{Kept, step},
};
use crate::{
    broker::BrokerError,
    message::Message,
    schedule::{LastTicks, Timetable},
    system,
};

#[async_trait]
impl Timetable for MemoryBroker {
    async fn last_ticks(&self, entries: &[String]) -> Result<LastTicks, BrokerError> {
        let state = self.state();
        let ticks = entries.iter().map(|entry| state.ticks.get(entry).cloned());
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
            let mut state = self.state();
            if state.ticks.get(entry).map(Vec::as_slice) != from {
                return Ok(false);
            }
            if let Some(message) = message {
                if state.waiting + state.reserved.len() >= self.capacity {
                    return Err(BrokerError::Full {
                        capacity: self.capacity,
                    });
                }
                // Nobody waits for its end.
                let (ended, _) = oneshot::channel();
                let kept = Kept {
                    raw: message.encode().into_bytes(),
                    step: step(message.properties.priority),
                    ended: Arc::new(ended),
                };
                state.append(message.queue(), kept);
            }
            state.ticks.insert(entry.to_owned(), to.as_bytes().to_vec());
        }
        self.arrived.notify_waiters();
        Ok(true)
    }
}
