//! [`Broker`] on Redis, in kombu's layout, so that Python and Rust workers can serve the same queues. Needs
//! Redis 6.2 or Valkey.
//!
//! A handle uses two connections: one for pipelined commands, and one for receiving, which may block.
//! Messages move only inside the scripts of [`scripts`]; receiving is described in [`receive`], and restoring
//! the messages of dead workers in [`restore`].

mod ack;
mod backend;
mod bindings;
mod bury;
mod bus;
mod chord;
mod chord_scripts;
mod commands;
mod config;
mod connection;
mod dead;
mod endpoint;
mod error;
mod fault;
mod lease;
mod names;
mod outage;
mod own_script;
mod publish;
mod receive;
mod receiver;
mod reserve;
mod restore;
mod schedule;
mod script;
mod scripts;
mod url;
mod watch;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use redis::{FromRedisValue, pipe};

use self::{
    ack::Acks, bindings::Bindings, connection::Connection, endpoint::Endpoint, lease::Lease,
    receiver::Receiver, script::Invocation, watch::Watch,
};
pub use self::{config::RedisConfig, error::ConfigError, own_script::RedisScript};
use crate::{
    broker::{
        Broker, BrokerError, Delivery, DeliveryTag, Depth, Publication, Renewal, ResultBackend, Settlement,
        SettlementStatus, sealed::Sealed,
    },
    message::{self, Message, mark_redelivered},
    observer::{NoopObserver, Observer},
    result::ResultMeta,
    system,
};

/// Celery's message broker and result backend in one Redis database.
pub struct RedisBroker {
    config: RedisConfig,
    commands: Arc<Connection>,
    watch: Watch,
    receiver: Receiver,
    /// Name of this handle in delivery tags and leases.
    instance: String,
    lease: Lease,
    bindings: Bindings,
    acks: Acks,
}

impl fmt::Debug for RedisBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBroker")
            .field("config", &self.config)
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

impl RedisBroker {
    /// Creates a broker handle, which connects on first use.
    ///
    /// # Errors
    /// Returns an error if the configuration is invalid.
    pub fn new(config: RedisConfig) -> Result<Self, ConfigError> {
        let endpoint = Endpoint::new(&config)?;
        let commands = Arc::new(Connection::new(
            endpoint,
            config.response_timeout,
            Arc::new(NoopObserver),
        ));
        Ok(Self {
            receiver: Receiver::new(commands.another()),
            watch: Watch::new(Arc::clone(&commands)),
            commands,
            instance: system::random_id().to_string(),
            lease: Lease::default(),
            bindings: Bindings::default(),
            acks: Acks::default(),
            config,
        })
    }

    /// Reports commands to `observer`. Call before first use; this replaces the connections.
    #[must_use]
    pub fn observer(self, observer: Arc<dyn Observer>) -> Self {
        let commands = Arc::new(self.commands.observer(observer));
        Self {
            receiver: Receiver::new(commands.another()),
            watch: Watch::new(Arc::clone(&commands)),
            commands,
            ..self
        }
    }

    /// Runs a script that settles a delivery if it is held, which `is_held` reads from its answer. If the
    /// server has lost its data, reserves the delivery again and repeats the script, so that the message is
    /// not lost.
    async fn run_settling<T: FromRedisValue>(
        &self,
        delivery: &Delivery,
        script: &Invocation<'_>,
        is_held: impl Fn(&T) -> bool,
    ) -> Result<T, BrokerError> {
        let answer = self.commands.script(script).await?;
        if !is_held(&answer) && self.reserve_if_lost(delivery).await? {
            return self.commands.script(script).await;
        }
        Ok(answer)
    }
}

impl Sealed for RedisBroker {}

#[async_trait]
impl Broker for RedisBroker {
    async fn publish(&self, message: Message) -> Result<(), BrokerError> {
        self.push(&[message]).await
    }

    async fn publish_batch(&self, messages: Vec<Message>) -> Vec<Result<(), BrokerError>> {
        let answer = self.push(&messages).await;
        vec![answer; messages.len()]
    }

    async fn publish_together(&self, publication: &Publication) -> Result<(), BrokerError> {
        self.publish_all(publication).await
    }

    async fn begin(&self, delivery: &Delivery) -> Result<bool, BrokerError> {
        self.begin_early(delivery).await
    }

    async fn settle(
        &self,
        delivery: &Delivery,
        settlement: &Settlement,
    ) -> Result<SettlementStatus, BrokerError> {
        self.settle_all(delivery, settlement).await
    }

    async fn receive(&self, queues: &[String], max: usize) -> Result<Vec<Delivery>, BrokerError> {
        self.receive_from(queues, max).await
    }

    async fn ack(&self, delivery: &Delivery, result: Option<&ResultMeta>) -> Result<(), BrokerError> {
        let stored = result.map(|meta| self.stored(meta));
        self.acks.ack(&self.commands, delivery.tag.clone(), stored).await
    }

    async fn replace(
        &self,
        delivery: &Delivery,
        message: Message,
        result: Option<&ResultMeta>,
    ) -> Result<(), BrokerError> {
        let mut script = scripts::REPLACE.prepare_invoke();
        script
            .key(names::UNACKED_INDEX)
            .key(names::UNACKED)
            .arg(delivery.tag.as_str())
            .message(&delivery.queue, message.properties.priority, message.encode())
            .key(names::result(&message.headers.id))
            .arg(result.map(ResultMeta::encode).unwrap_or_default())
            .arg(self.result_seconds());
        self.run_settling(delivery, &script, |held| *held).await?;
        Ok(())
    }

    async fn restore(&self, delivery: &Delivery) -> Result<(), BrokerError> {
        let Some(message) = mark_redelivered(&delivery.raw) else {
            return self
                .bury(delivery, "the message is not a JSON object", None)
                .await;
        };
        let mut script = scripts::RESTORE.prepare_invoke();
        script
            .key(names::UNACKED_INDEX)
            .key(names::UNACKED)
            .key(names::list(&delivery.queue, message::priority(&delivery.raw)))
            .arg(delivery.tag.as_str())
            .arg(message);
        self.run_settling(delivery, &script, |held| *held).await?;
        Ok(())
    }

    async fn bury(
        &self,
        delivery: &Delivery,
        reason: &str,
        result: Option<&ResultMeta>,
    ) -> Result<(), BrokerError> {
        let Delivery { tag, queue, raw } = delivery;
        self.bury_held(tag.as_str(), queue, raw, reason, None).await?;
        self.commands.observer.buried(&delivery.queue);
        match result {
            Some(meta) => self.store_result(meta).await,
            None => Ok(()),
        }
    }

    async fn renew(&self, deliveries: &[DeliveryTag]) -> Result<Renewal, BrokerError> {
        let renewal = self.renew_lease(deliveries).await?;
        if renewal == Renewal::Lost {
            self.bindings.forget();
        }
        Ok(renewal)
    }

    async fn reserve(&self, deliveries: &[Delivery]) -> Result<(), BrokerError> {
        self.reserve_again(deliveries).await?;
        self.lease.clear_lost();
        Ok(())
    }

    fn renew_interval(&self) -> Duration {
        self.config.lease.min(self.config.visibility_timeout) / 4
    }

    async fn restore_expired(&self) -> Result<usize, BrokerError> {
        self.restore_all_expired().await
    }

    async fn depth(&self, queue: &str) -> Result<Depth, BrokerError> {
        let mut pipeline = pipe();
        for step in names::STEPS {
            pipeline.cmd("LLEN").arg(names::list(queue, step));
        }
        pipeline.cmd("HLEN").arg(names::UNACKED);
        let mut lengths: Vec<u64> = self.commands.pipeline(commands::DEPTH, &pipeline).await?;
        let unacked = lengths.pop().unwrap_or_default();
        Ok(Depth {
            waiting: lengths.iter().sum(),
            unacked,
        })
    }

    async fn heads(&self, queue: &str) -> Result<Vec<Vec<u8>>, BrokerError> {
        let mut pipeline = pipe();
        for step in names::STEPS {
            pipeline.cmd("LINDEX").arg(names::list(queue, step)).arg(-1);
        }
        let heads: Vec<Option<Vec<u8>>> = self.commands.pipeline(commands::HEADS, &pipeline).await?;
        Ok(heads.into_iter().flatten().collect())
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        let pong: Result<String, _> = self.commands.command(commands::PING, commands::NO_ARGS).await;
        pong.map(|_| ())
    }
}
