//! [`Bus`] in kombu's layout: fan-out is pub/sub on `/<database>.<exchange>[/<routing key>]`, a mailbox or queue for
//! replies is known by its binding, and replies are a list. From 5.7 on kombu drops the bindings of an exchange
//! that nobody has declared for an hour, so declaring moves that deadline too.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use redis::{
    Msg, Script,
    aio::{PubSubSink, PubSubStream},
    cmd, pipe,
};
use tokio::time::timeout;

use super::{RedisBroker, commands, names, restore};
use crate::{
    broker::BrokerError,
    bus::{Bus, ReplyTo, ServerInfo},
    log::debug,
};

/// How long kombu 5.7 keeps bindings that nobody declares again.
const BINDINGS_KEPT: Duration = Duration::from_secs(3600);
/// A queue for replies goes away by itself after this long without one.
const REPLIES_KEPT: Duration = Duration::from_secs(60);
/// Replies taken in one step.
const MOST_REPLIES: usize = 100;
/// A subscription that hears nothing for this long is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(15);

/// Puts a reply into its queue, if that is still bound: a list of replies that nobody takes would stay for ever.
///
/// KEYS: binding, list. ARGV: binding's member, reply, seconds until the list goes away.
const REPLY: &str = r"
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('LPUSH', KEYS[2], ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[3])
return 1
";

#[async_trait]
impl Bus for RedisBroker {
    fn server(&self) -> ServerInfo {
        self.commands.server()
    }

    async fn broadcast(&self, exchange: &str, routing_key: &str, text: String) -> Result<usize, BrokerError> {
        let channel = names::channel(self.commands.database(), exchange, routing_key);
        let mut publish = cmd("PUBLISH");
        publish.arg(channel).arg(text);
        self.commands.command(commands::PUBLISH, &publish).await
    }

    async fn listen(
        &self,
        exchange: &str,
        routing_pattern: &str,
    ) -> Result<BoxStream<'static, Vec<u8>>, BrokerError> {
        let pattern = names::channel(self.commands.database(), exchange, routing_pattern);
        let patience = self.config.response_timeout;
        let mut subscriber = self.commands.subscriber().await?;
        let cause = match timeout(patience, subscriber.psubscribe(pattern)).await {
            Ok(Ok(())) => {
                let (sink, messages) = subscriber.split();
                let subscription = Subscription {
                    sink,
                    messages,
                    patience,
                };
                return Ok(stream::unfold(subscription, Subscription::next).boxed());
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "subscribing took too long".to_owned(),
        };
        Err(BrokerError::Unavailable { cause })
    }

    async fn declare_mailbox(&self, exchange: &str, node: &str) -> Result<(), BrokerError> {
        let queue = format!("{node}.{exchange}");
        self.bind(exchange, "", &queue).await
    }

    async fn remove_mailbox(&self, exchange: &str, node: &str) -> Result<(), BrokerError> {
        let queue = format!("{node}.{exchange}");
        let mut unbind = cmd("SREM");
        unbind
            .arg(names::binding_key(exchange))
            .arg(names::exchange_binding("", &queue));
        self.commands.command(commands::SREM, &unbind).await
    }

    async fn open_replies(&self, to: &ReplyTo) -> Result<(), BrokerError> {
        self.bind(&to.exchange, &to.routing_key, &to.queue()).await
    }

    async fn reply(&self, to: &ReplyTo, text: String) -> Result<(), BrokerError> {
        let queue = to.queue();
        let script = Script::new(REPLY);
        let mut script = script.prepare_invoke();
        script
            .key(names::binding_key(&to.exchange))
            .key(&queue)
            .arg(names::exchange_binding(&to.routing_key, &queue))
            .arg(text)
            .arg(REPLIES_KEPT.as_secs());
        self.commands.script(&script).await
    }

    async fn take_replies(&self, to: &ReplyTo) -> Result<Vec<Vec<u8>>, BrokerError> {
        let mut take = cmd("RPOP");
        take.arg(to.queue()).arg(MOST_REPLIES);
        let replies: Option<Vec<Vec<u8>>> = self.commands.command(commands::RPOP, &take).await?;
        Ok(replies.unwrap_or_default())
    }

    async fn close_replies(&self, to: &ReplyTo) -> Result<(), BrokerError> {
        let queue = to.queue();
        let mut pipeline = pipe();
        pipeline
            .cmd("SREM")
            .arg(names::binding_key(&to.exchange))
            .arg(names::exchange_binding(&to.routing_key, &queue))
            .ignore();
        pipeline.cmd("DEL").arg(&queue).ignore();
        self.commands.pipeline(commands::CLOSE_REPLIES, &pipeline).await
    }
}

impl RedisBroker {
    async fn bind(&self, exchange: &str, routing_key: &str, queue: &str) -> Result<(), BrokerError> {
        let now = restore::server_time(&self.commands).await?;
        let deadline = ((now + BINDINGS_KEPT.as_secs_f64()) * 1000.0) as u64;
        let mut pipeline = pipe();
        pipeline
            .cmd("SADD")
            .arg(names::binding_key(exchange))
            .arg(names::exchange_binding(routing_key, queue))
            .ignore();
        pipeline
            .cmd("ZADD")
            .arg(names::BINDING_DEADLINES)
            .arg("GT")
            .arg(deadline)
            .arg(exchange)
            .ignore();
        self.commands.pipeline(commands::BIND, &pipeline).await
    }
}

/// A subscription, with the means to ask whether its connection is still there.
struct Subscription {
    sink: PubSubSink,
    messages: PubSubStream,
    patience: Duration,
}

impl Subscription {
    async fn next(mut self) -> Option<(Vec<u8>, Self)> {
        loop {
            match timeout(SILENCE, self.messages.next()).await {
                Ok(message) => {
                    return message.map(|message: Msg| (message.get_payload_bytes().to_vec(), self));
                }
                Err(_) => match timeout(self.patience, self.sink.ping::<redis::Value>()).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => {
                        debug!(%error, "a subscription has lost its connection");
                        return None;
                    }
                    Err(_) => {
                        debug!("a subscription's connection no longer answers");
                        return None;
                    }
                },
            }
        }
    }
}
