//! [`Bus`] in kombu's layout: fan-out uses pub/sub on `/<database>.<exchange>[/<routing key>]`, a binding
//! announces a mailbox or reply queue, and replies are stored in a list. Since version 5.7, kombu drops the
//! bindings of an exchange an hour after their last declaration, so every declaration extends that deadline.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use redis::{
    aio::{PubSubSink, PubSubStream},
    pipe,
};
use tokio::time::timeout;

use super::{
    RedisBroker, commands,
    script::{Invocation, scripts},
};
use crate::{
    broker::{BrokerError, Bus, Exchange, ReplyTo, ServerInfo},
    log::debug,
    message,
};

/// Lifetime of bindings in kombu 5.7.
const BINDING_TTL: Duration = Duration::from_secs(3600);
/// Time after the last reply at which a reply queue expires.
const REPLIES_TTL: Duration = Duration::from_secs(60);
/// Time after which the queue of a worker that has died, for messages of a fan-out exchange, expires.
const BROADCAST_TTL: Duration = Duration::from_secs(86_400);
/// Time for which revoked ids are stored, and their maximum number, as in a worker's memory.
const REVOKED_TTL: Duration = Duration::from_secs(3 * 3600);
const MAX_REVOKED: isize = 50_000;
/// Maximum number of replies taken in one step.
const MAX_REPLIES: usize = 100;
/// Idle time after which a subscription checks its connection.
const PING_AFTER: Duration = Duration::from_secs(15);

scripts! {
    /// Adds a reply to its queue if the queue is still bound, because replies without a reader would pile up.
    ///
    /// KEYS: binding, list. ARGV: binding's member, reply, seconds until the list expires.
    REPLY = r"
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('LPUSH', KEYS[2], ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[3])
return 1
";
}

#[async_trait]
impl Bus for RedisBroker {
    fn server(&self) -> ServerInfo {
        self.commands.endpoint.server_info()
    }

    fn result_server(&self) -> ServerInfo {
        self.results
            .as_ref()
            .map_or_else(|| self.server(), |results| results.server())
    }

    async fn broadcast(&self, exchange: &str, routing_key: &str, text: String) -> Result<usize, BrokerError> {
        let channel = self.channel(exchange, routing_key);
        self.commands.command(commands::PUBLISH, (channel, text)).await
    }

    async fn listen(
        &self,
        exchange: &str,
        routing_pattern: &str,
    ) -> Result<BoxStream<'static, Vec<u8>>, BrokerError> {
        let pattern = self.channel(exchange, routing_pattern);
        let mut subscriber = self.commands.subscriber().await?;
        self.commands.confirmed(subscriber.psubscribe(pattern)).await?;
        let (sink, messages) = subscriber.split();
        let subscription = Subscription {
            sink,
            messages,
            response_timeout: self.config.response_timeout,
        };
        Ok(stream::unfold(subscription, Subscription::next).boxed())
    }

    async fn bind_queue(
        &self,
        queue: &str,
        exchange: &Exchange,
        routing_key: &str,
    ) -> Result<(), BrokerError> {
        // kombu 5.7 keeps the bindings of an exchange as long as one of them is permanent.
        let names = self.names();
        let member = names.binding_text(&exchange.binding(routing_key, queue));
        let mut pipeline = pipe();
        pipeline
            .sadd(names.binding_key(exchange.name()), &member)
            .ignore();
        pipeline
            .sadd(names.permanent_binding_key(exchange.name()), &member)
            .ignore();
        if exchange.is_fanout() {
            // Retries and returned messages wait in the queue too.
            for list in names.lists(queue) {
                pipeline.expire(list, BROADCAST_TTL.as_secs() as i64).ignore();
            }
        }
        self.commands.pipeline(commands::BIND_QUEUE, &pipeline).await
    }

    async fn delete_queue(
        &self,
        queue: &str,
        exchange: &Exchange,
        routing_key: &str,
    ) -> Result<(), BrokerError> {
        let names = self.names();
        let member = names.binding_text(&exchange.binding(routing_key, queue));
        let mut pipeline = pipe();
        pipeline
            .srem(names.binding_key(exchange.name()), &member)
            .ignore();
        pipeline
            .srem(names.permanent_binding_key(exchange.name()), &member)
            .ignore();
        // The binding of messages that were sent directly to the queue, such as retries.
        pipeline.del(names.binding_key(queue)).ignore();
        for list in names.lists(queue) {
            pipeline.del(list).ignore();
        }
        self.commands.pipeline(commands::DELETE_QUEUE, &pipeline).await
    }

    async fn enqueue_broadcast(&self, queue: &str, raw: &[u8]) -> Result<(), BrokerError> {
        let list = self.names().list(queue, message::priority(raw));
        let mut pipeline = pipe();
        match message::mark_broadcast(raw) {
            Some(marked) => pipeline.lpush(&list, marked).ignore(),
            None => pipeline.lpush(&list, raw).ignore(),
        };
        pipeline
            .cmd("EXPIRE")
            .arg(&list)
            .arg(BROADCAST_TTL.as_secs())
            .ignore();
        self.commands.pipeline(commands::ENQUEUE, &pipeline).await
    }

    async fn store_revoked(&self, ids: &[&str]) -> Result<(), BrokerError> {
        let (key, now) = (&self.names().revoked, self.server_time().await?);
        let entries: Vec<(f64, &str)> = ids.iter().map(|id| (now, *id)).collect();
        let mut pipeline = pipe();
        pipeline.zadd_multiple(key, &entries).ignore();
        pipeline
            .zrembyscore(key, "-inf", now - REVOKED_TTL.as_secs_f64())
            .ignore();
        pipeline.zremrangebyrank(key, 0, -MAX_REVOKED - 1).ignore();
        pipeline
            .cmd("EXPIRE")
            .arg(key)
            .arg(REVOKED_TTL.as_secs())
            .ignore();
        self.commands.pipeline(commands::STORE_REVOKED, &pipeline).await
    }

    async fn stored_revoked(&self) -> Result<Vec<String>, BrokerError> {
        let oldest = self.server_time().await? - REVOKED_TTL.as_secs_f64();
        let range = (&self.names().revoked, oldest, "inf", "BYSCORE");
        self.commands.command(commands::STORED_REVOKED, range).await
    }

    async fn declare_mailbox(&self, exchange: &str, node: &str) -> Result<(), BrokerError> {
        self.bind(exchange, "", &format!("{node}.{exchange}")).await
    }

    async fn remove_mailbox(&self, exchange: &str, node: &str) -> Result<(), BrokerError> {
        let binding = self.names().exchange_binding("", &format!("{node}.{exchange}"));
        let member = (self.names().binding_key(exchange), binding);
        self.commands.command(commands::SREM, member).await
    }

    async fn open_replies(&self, to: &ReplyTo) -> Result<(), BrokerError> {
        self.bind(&to.exchange, &to.routing_key, &to.queue()).await
    }

    async fn reply(&self, to: &ReplyTo, text: String) -> Result<(), BrokerError> {
        let queue = to.queue();
        let mut script = Invocation::new(&REPLY);
        script
            .key(self.names().binding_key(&to.exchange))
            .key(self.names().list(&queue, 0))
            .arg(self.names().exchange_binding(&to.routing_key, &queue))
            .arg(text)
            .arg(REPLIES_TTL.as_secs());
        self.commands.script(&script).await
    }

    async fn take_replies(&self, to: &ReplyTo) -> Result<Vec<Vec<u8>>, BrokerError> {
        let args = (self.names().list(&to.queue(), 0), MAX_REPLIES);
        let replies: Option<Vec<Vec<u8>>> = self.commands.command(commands::RPOP, args).await?;
        Ok(replies.unwrap_or_default())
    }

    async fn close_replies(&self, to: &ReplyTo) -> Result<(), BrokerError> {
        let queue = to.queue();
        let mut pipeline = pipe();
        let binding = self.names().exchange_binding(&to.routing_key, &queue);
        pipeline
            .srem(self.names().binding_key(&to.exchange), binding)
            .ignore();
        pipeline.del(self.names().list(&queue, 0)).ignore();
        self.commands.pipeline(commands::CLOSE_REPLIES, &pipeline).await
    }
}

impl RedisBroker {
    async fn bind(&self, exchange: &str, routing_key: &str, queue: &str) -> Result<(), BrokerError> {
        self.add_binding(exchange, self.names().exchange_binding(routing_key, queue))
            .await
    }

    async fn add_binding(&self, exchange: &str, binding: String) -> Result<(), BrokerError> {
        let now = self.server_time().await?;
        let deadline = ((now + BINDING_TTL.as_secs_f64()) * 1000.0) as u64;
        let mut pipeline = pipe();
        pipeline
            .sadd(self.names().binding_key(exchange), binding)
            .ignore();
        let extended = (&self.names().binding_deadlines, "GT", deadline, exchange);
        pipeline.cmd("ZADD").arg(extended).ignore();
        self.commands.pipeline(commands::BIND, &pipeline).await
    }
}

/// Subscription whose connection can be checked.
struct Subscription {
    sink: PubSubSink,
    messages: PubSubStream,
    response_timeout: Duration,
}

impl Subscription {
    async fn next(mut self) -> Option<(Vec<u8>, Self)> {
        loop {
            if let Ok(message) = timeout(PING_AFTER, self.messages.next()).await {
                return message.map(|message| (message.get_payload_bytes().to_vec(), self));
            }
            let cause = match timeout(self.response_timeout, self.sink.ping::<redis::Value>()).await {
                Ok(Ok(_)) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "timed out waiting for the reply to a ping".to_owned(),
            };
            debug!(exception.message = cause, "a subscription lost its connection");
            return None;
        }
    }
}
