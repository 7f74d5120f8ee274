//! [`Bus`] of the in-process broker: listeners, each with a bounded buffer, and reply queues.

use async_trait::async_trait;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::sync::mpsc;

use super::{
    MemoryBroker,
    channels::{LISTENER_BUFFER, Listener, MAX_REPLIES},
};
use crate::{
    broker::{BrokerError, Bus, Exchange, ReplyTo, ServerInfo},
    message,
};

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
        let mut channels = self.bus.lock();
        channels.listeners.retain(|listener| !listener.sender.is_closed());
        let delivered = |listener: &&Listener| {
            listener.matches(exchange, routing_key)
                && listener.sender.try_send(text.clone().into_bytes()).is_ok()
        };
        Ok(channels.listeners.iter().filter(delivered).count())
    }

    async fn listen(
        &self,
        exchange: &str,
        routing_pattern: &str,
    ) -> Result<BoxStream<'static, Vec<u8>>, BrokerError> {
        let (sender, broadcasts) = mpsc::channel(LISTENER_BUFFER);
        self.bus.lock().listeners.push(Listener {
            exchange: exchange.to_owned(),
            pattern: routing_pattern.to_owned(),
            sender,
        });
        let next = async |mut broadcasts: mpsc::Receiver<_>| Some((broadcasts.recv().await?, broadcasts));
        Ok(stream::unfold(broadcasts, next).boxed())
    }

    async fn bind_queue(
        &self,
        queue: &str,
        exchange: &Exchange,
        routing_key: &str,
    ) -> Result<(), BrokerError> {
        let binding = exchange.binding(routing_key, queue);
        let mut contents = self.contents.lock();
        let bindings = contents.bindings.entry(exchange.name().to_owned()).or_default();
        if !bindings.contains(&binding) {
            bindings.push(binding);
        }
        Ok(())
    }

    async fn delete_queue(
        &self,
        queue: &str,
        exchange: &Exchange,
        routing_key: &str,
    ) -> Result<(), BrokerError> {
        let binding = exchange.binding(routing_key, queue);
        let mut contents = self.contents.lock();
        if let Some(bindings) = contents.bindings.get_mut(exchange.name()) {
            bindings.retain(|known| *known != binding);
        }
        contents.queues.remove(queue);
        Ok(())
    }

    async fn enqueue_broadcast(&self, queue: &str, raw: &[u8]) -> Result<(), BrokerError> {
        {
            let mut contents = self.contents.lock();
            contents.ensure_room(1)?;
            contents.publish(queue, message::priority(raw), raw.to_vec());
        }
        self.arrived.notify_waiters();
        Ok(())
    }

    async fn store_revoked(&self, _: &[&str]) -> Result<(), BrokerError> {
        // Messages do not outlive the process either.
        Ok(())
    }

    async fn stored_revoked(&self) -> Result<Vec<String>, BrokerError> {
        Ok(Vec::new())
    }

    async fn declare_mailbox(&self, _: &str, _: &str) -> Result<(), BrokerError> {
        Ok(())
    }

    async fn remove_mailbox(&self, _: &str, _: &str) -> Result<(), BrokerError> {
        Ok(())
    }

    async fn open_replies(&self, to: &ReplyTo) -> Result<(), BrokerError> {
        self.bus.lock().replies.insert(to.queue(), Vec::new());
        Ok(())
    }

    async fn reply(&self, to: &ReplyTo, text: String) -> Result<(), BrokerError> {
        if let Some(queue) = self.bus.lock().replies.get_mut(&to.queue())
            && queue.len() < MAX_REPLIES
        {
            queue.push(text.into_bytes());
        }
        Ok(())
    }

    async fn take_replies(&self, to: &ReplyTo) -> Result<Vec<Vec<u8>>, BrokerError> {
        let mut channels = self.bus.lock();
        let replies = channels.replies.get_mut(&to.queue());
        Ok(replies.map(std::mem::take).unwrap_or_default())
    }

    async fn close_replies(&self, to: &ReplyTo) -> Result<(), BrokerError> {
        self.bus.lock().replies.remove(&to.queue());
        Ok(())
    }
}
