//! [`Bus`] inside one process: listeners with a bounded buffer each, and open queues for replies.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::sync::mpsc;

use super::MemoryBroker;
use crate::{
    broker::BrokerError,
    bus::{Bus, ReplyTo, ServerInfo},
};

/// Broadcasts kept for a listener that is slow; it misses what comes on top.
const BUFFER: usize = 1024;
/// Replies kept in a queue; what comes on top is dropped.
const MOST_REPLIES: usize = 1024;

#[derive(Default)]
pub(super) struct MemoryBus(Mutex<State>);

#[derive(Default)]
struct State {
    listeners: Vec<Listener>,
    replies: HashMap<String, VecDeque<Vec<u8>>>,
}

struct Listener {
    exchange: String,
    pattern: String,
    heard: mpsc::Sender<Vec<u8>>,
}

impl Listener {
    fn hears(&self, exchange: &str, routing_key: &str) -> bool {
        self.exchange == exchange
            && match self.pattern.strip_suffix('*') {
                Some(start) => routing_key.starts_with(start),
                None => routing_key == self.pattern,
            }
    }
}

impl MemoryBus {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Bus for MemoryBroker {
    fn server(&self) -> ServerInfo {
        ServerInfo {
            transport: "memory",
            hostname: None,
            port: None,
            virtual_host: String::new(),
            userid: None,
            ssl: false,
        }
    }

    async fn broadcast(&self, exchange: &str, routing_key: &str, text: String) -> Result<usize, BrokerError> {
        let mut state = self.bus.state();
        state.listeners.retain(|listener| !listener.heard.is_closed());
        let hear = |listener: &&Listener| {
            listener.hears(exchange, routing_key)
                && listener.heard.try_send(text.clone().into_bytes()).is_ok()
        };
        Ok(state.listeners.iter().filter(hear).count())
    }

    async fn listen(
        &self,
        exchange: &str,
        routing_pattern: &str,
    ) -> Result<BoxStream<'static, Vec<u8>>, BrokerError> {
        let (heard, broadcasts) = mpsc::channel(BUFFER);
        self.bus.state().listeners.push(Listener {
            exchange: exchange.to_owned(),
            pattern: routing_pattern.to_owned(),
            heard,
        });
        let next = async |mut broadcasts: mpsc::Receiver<_>| Some((broadcasts.recv().await?, broadcasts));
        Ok(stream::unfold(broadcasts, next).boxed())
    }

    async fn declare_mailbox(&self, _: &str, _: &str) -> Result<(), BrokerError> {
        Ok(())
    }

    async fn remove_mailbox(&self, _: &str, _: &str) -> Result<(), BrokerError> {
        Ok(())
    }

    async fn open_replies(&self, to: &ReplyTo) -> Result<(), BrokerError> {
        self.bus.state().replies.insert(to.queue(), VecDeque::new());
        Ok(())
    }

    async fn reply(&self, to: &ReplyTo, text: String) -> Result<(), BrokerError> {
        if let Some(queue) = self.bus.state().replies.get_mut(&to.queue())
            && queue.len() < MOST_REPLIES
        {
            queue.push_back(text.into_bytes());
        }
        Ok(())
    }

    async fn take_replies(&self, to: &ReplyTo) -> Result<Vec<Vec<u8>>, BrokerError> {
        let mut state = self.bus.state();
        let replies = state
            .replies
            .get_mut(&to.queue())
            .map(|queue| queue.drain(..).collect());
        Ok(replies.unwrap_or_default())
    }

    async fn close_replies(&self, to: &ReplyTo) -> Result<(), BrokerError> {
        self.bus.state().replies.remove(&to.queue());
        Ok(())
    }
}
