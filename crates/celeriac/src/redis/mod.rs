//! [`Broker`] on Redis, in kombu's layout, so that Python and Rust workers serve the same queues.
//!
//! Two connections: one for everything that is sent, pipelined, and one for receiving, which may block. Messages
//! move only inside the scripts of [`scripts`]; what receiving does is in [`receive`], what happens to the
//! messages of dead workers in [`restore`]. Needs Redis 6.2 or Valkey.

mod ack;
mod backend;
mod bus;
mod chord;
mod commands;
mod config;
mod connection;
mod dead;
mod endpoint;
mod fault;
mod lease;
mod names;
mod outage;
mod own_script;
mod publish;
mod receive;
mod restore;
mod schedule;
mod scripts;
mod url;
mod watch;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use redis::{ScriptInvocation, cmd, pipe};

use self::{
    ack::Acks, connection::Connection, endpoint::Endpoint, lease::Lease, publish::Bindings,
    receive::Receiver, scripts::Scripts, watch::Watch,
};
pub use self::{
    config::{ConfigError, RedisConfig},
    own_script::RedisScript,
};
use crate::{
    backend::ResultBackend,
    broker::{Broker, BrokerError, Delivery, DeliveryTag, Depth, Publication, Renewal, Settled, Settlement},
    message::{Message, mark_redelivered},
    observer::{Observer, Unobserved},
    result::ResultMeta,
    system,
};

/// Celery's message broker and result backend on one Redis database.
pub struct RedisBroker {
    config: RedisConfig,
    commands: Arc<Connection>,
    watch: Watch,
    receiver: Receiver,
    scripts: Scripts,
    /// This handle's name in delivery tags and leases.
    instance: String,
    lease: Lease,
    bindings: Bindings,
    acks: Acks,
    observer: Arc<dyn Observer>,
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
    /// A broker handle; connects when it is first used.
    ///
    /// # Errors
    /// When the URL is not one of Redis.
    pub fn new(config: RedisConfig) -> Result<Self, ConfigError> {
        let observer: Arc<dyn Observer> = Arc::new(Unobserved);
        let endpoint = Endpoint::new(&config)?;
        let commands = Arc::new(Connection::new(
            endpoint,
            config.response_timeout,
            Arc::clone(&observer),
        ));
        Ok(Self {
            receiver: Receiver::new(commands.another()),
            watch: Watch::new(Arc::clone(&commands), config.response_timeout),
            commands,
            scripts: Scripts::new(),
            instance: system::random_id().to_string(),
            lease: Lease::new(),
            bindings: Bindings::default(),
            acks: Acks::default(),
            observer,
            config,
        })
    }

    /// Reports commands to this observer. To be said before the handle is used: it connects anew.
    #[must_use]
    pub fn with_observer(self, observer: Arc<dyn Observer>) -> Self {
        let commands = Arc::new(self.commands.reporting_to(Arc::clone(&observer)));
        Self {
            receiver: Receiver::new(commands.another()),
            watch: Watch::new(Arc::clone(&commands), self.config.response_timeout),
            commands,
            observer,
            ..self
        }
    }

    /// Runs a script that ends a delivery and answers whether it was held. Where it was not because the server has lost
    /// its data, the delivery is reserved again first: its message must go on.
    async fn end(&self, delivery: &Delivery, script: &ScriptInvocation<'_>) -> Result<(), BrokerError> {
        let held: bool = self.commands.script(script).await?;
        if !held && self.regained(delivery).await? {
            self.commands.script::<()>(script).await?;
        }
        Ok(())
    }

    /// Whether a delivery that is not held is held again, because it was the server that had lost it.
    async fn regained(&self, delivery: &Delivery) -> Result<bool, BrokerError> {
        let lost = self.lease.is_lost(&self.commands, &self.instance).await?;
        if lost {
            let delivery = std::slice::from_ref(delivery);
            self.lease.reserve(&self.commands, delivery).await?;
        }
        Ok(lost)
    }
}

#[async_trait]
impl Broker for RedisBroker {
    async fn publish(&self, message: Message) -> Result<(), BrokerError> {
        publish::push(&self.commands, &self.bindings, &[message]).await
    }

    async fn publish_batch(&self, messages: Vec<Message>) -> Vec<Result<(), BrokerError>> {
        let answer = publish::push(&self.commands, &self.bindings, &messages).await;
        vec![answer; messages.len()]
    }

    async fn publish_together(&self, publication: &Publication) -> Result<(), BrokerError> {
        self.publish_all(publication).await
    }

    async fn begin(&self, delivery: &Delivery) -> Result<bool, BrokerError> {
        self.begin_early(delivery).await
    }

    async fn settle(&self, delivery: &Delivery, settlement: &Settlement) -> Result<Settled, BrokerError> {
        self.settle_all(delivery, settlement).await
    }

    async fn receive(&self, queues: &[String], max: usize) -> Result<Vec<Delivery>, BrokerError> {
        self.receiver
            .receive(
                &self.scripts.receive,
                &self.instance,
                (&self.lease, self.config.lease),
                queues,
                max,
            )
            .await
    }

    async fn ack(&self, delivery: &Delivery, result: Option<&ResultMeta>) -> Result<(), BrokerError> {
        let stored = result.map(|meta| self.stored(meta));
        self.acks
            .ack(
                &self.commands,
                self.observer.as_ref(),
                delivery.tag.clone(),
                stored,
            )
            .await
    }

    async fn replace(
        &self,
        delivery: &Delivery,
        message: Message,
        result: Option<&ResultMeta>,
    ) -> Result<(), BrokerError> {
        let queue = &delivery.queue;
        let mut script = self.scripts.replace.prepare_invoke();
        script
            .key(names::UNACKED_INDEX)
            .key(names::UNACKED)
            .key(names::binding_key(queue))
            .key(names::list(queue, message.properties.priority))
            .key(names::result(&message.headers.id))
            .arg(delivery.tag.as_str())
            .arg(names::binding(queue))
            .arg(message.encode())
            .arg(result.map(ResultMeta::encode).unwrap_or_default())
            .arg(self.result_seconds());
        self.end(delivery, &script).await
    }

    async fn restore(&self, delivery: &Delivery) -> Result<(), BrokerError> {
        let Some(message) = mark_redelivered(&delivery.raw) else {
            return self
                .bury(delivery, "the message is not a JSON object", None)
                .await;
        };
        let mut script = self.scripts.restore.prepare_invoke();
        script
            .key(names::UNACKED_INDEX)
            .key(names::UNACKED)
            .key(names::list(&delivery.queue, restore::priority(&delivery.raw)))
            .arg(delivery.tag.as_str())
            .arg(message);
        self.end(delivery, &script).await
    }

    async fn bury(
        &self,
        delivery: &Delivery,
        reason: &str,
        result: Option<&ResultMeta>,
    ) -> Result<(), BrokerError> {
        dead::bury(
            &self.commands,
            &self.scripts,
            self.config.dead_letter_capacity,
            delivery.tag.as_str(),
            &delivery.queue,
            &delivery.raw,
            reason,
        )
        .await?;
        self.observer.buried(&delivery.queue);
        match result {
            Some(meta) => self.store_result(meta).await,
            None => Ok(()),
        }
    }

    async fn renew(&self, deliveries: &[DeliveryTag]) -> Result<Renewal, BrokerError> {
        let renewal = self
            .lease
            .renew(&self.commands, &self.config, &self.instance, deliveries)
            .await?;
        if renewal == Renewal::Lost {
            self.bindings.forget();
        }
        Ok(renewal)
    }

    async fn reserve(&self, deliveries: &[Delivery]) -> Result<(), BrokerError> {
        self.lease.reserve(&self.commands, deliveries).await?;
        self.lease.found();
        Ok(())
    }

    fn renew_interval(&self) -> Duration {
        self.config.lease.min(self.config.visibility_timeout) / 4
    }

    async fn restore_expired(&self) -> Result<usize, BrokerError> {
        let (restored, buried) =
            restore::restore_expired(&self.commands, &self.scripts, &self.config).await?;
        for (queue, meta) in &buried {
            self.observer.buried(queue);
            if let Some(meta) = meta {
                self.store_result(meta).await?;
            }
        }
        Ok(restored)
    }

    async fn depth(&self, queue: &str) -> Result<Depth, BrokerError> {
        let mut pipeline = pipe();
        for step in names::STEPS {
            pipeline.cmd("LLEN").arg(names::list(queue, step));
        }
        pipeline.cmd("HLEN").arg(names::UNACKED);
        let lengths: Vec<u64> = self.commands.pipeline(commands::DEPTH, &pipeline).await?;
        match lengths.split_last() {
            Some((unacked, waiting)) => Ok(Depth {
                waiting: waiting.iter().sum(),
                unacked: *unacked,
            }),
            None => Ok(Depth::default()),
        }
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
        let pong: Result<String, _> = self.commands.command(commands::PING, &cmd("PING")).await;
        pong.map(|_| ())
    }
}
