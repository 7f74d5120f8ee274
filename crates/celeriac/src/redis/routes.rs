//! Destinations of messages: a queue, or the queues or workers that are bound to a named exchange.

use std::collections::HashMap;

use redis::pipe;

use super::{RedisBroker, commands, destination::Destination, settling::Settling};
use crate::{
    broker::{Binding, BrokerError, Publication, log_dropped, queues},
    message::Message,
};

/// Bindings of the exchanges to which messages are sent.
#[derive(Default)]
pub(super) struct Routes(HashMap<String, Vec<Binding>>);

impl RedisBroker {
    /// Reads the bindings of the exchanges to which these messages are sent.
    pub(super) async fn routes(&self, messages: &[Message]) -> Result<Routes, BrokerError> {
        let infos = messages.iter().map(|message| &message.properties.delivery_info);
        let infos = infos.filter(|info| !info.exchange.is_empty() && !info.is_fanout);
        let mut exchanges: Vec<&String> = infos.map(|info| &info.exchange).collect();
        if exchanges.is_empty() {
            return Ok(Routes::default());
        }
        exchanges.sort_unstable();
        exchanges.dedup();
        let mut pipeline = pipe();
        for exchange in &exchanges {
            pipeline.smembers(self.names().binding_key(exchange));
        }
        let members: Vec<Vec<String>> = self.commands.pipeline(commands::BINDINGS, &pipeline).await?;
        let bindings = members.into_iter().map(|members| {
            let read = members
                .iter()
                .filter_map(|member| self.names().read_binding(member));
            read.collect()
        });
        Ok(Routes(exchanges.into_iter().cloned().zip(bindings).collect()))
    }

    /// Returns the destinations of a message.
    ///
    /// # Errors
    /// Returns an error if no queue is bound to the message's exchange with its routing key.
    pub(super) fn destinations(
        &self,
        routes: &Routes,
        message: &Message,
    ) -> Result<Vec<Destination>, BrokerError> {
        let info = &message.properties.delivery_info;
        if info.is_fanout {
            let channel = self.channel(&info.exchange, &info.routing_key);
            let exchange = info.exchange.clone();
            return Ok(vec![Destination::Fanout { exchange, channel }]);
        }
        let list = |queue: &str| Destination::Queue {
            queue: queue.to_owned(),
            priority: message.properties.priority,
        };
        if info.exchange.is_empty() {
            return Ok(vec![list(message.queue())]);
        }
        let bindings = routes.0.get(&info.exchange).map_or(&[][..], Vec::as_slice);
        Ok(queues(bindings, info)?.into_iter().map(list).collect())
    }

    /// Adds the messages of a publication to a settlement. Drops messages to exchanges without a matching binding, as
    /// Celery does.
    ///
    /// # Errors
    /// Returns an error if the bindings of exchanges cannot be read.
    pub(super) async fn add_messages(
        &self,
        settling: &mut Settling,
        publication: &Publication,
    ) -> Result<(), BrokerError> {
        let routes = self.routes(&publication.messages).await?;
        for message in &publication.messages {
            match self.destinations(&routes, message) {
                Ok(destinations) => {
                    for destination in destinations {
                        settling.add_message(destination, message.encode());
                    }
                }
                Err(error) => log_dropped(message, &error),
            }
        }
        Ok(())
    }
}
