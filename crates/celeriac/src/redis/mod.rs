//! [`Broker`] on Redis in kombu's layout: Python and Rust workers can serve the same queues. Requires
//! Redis 6.2 or later, or Valkey.
//!
//! A handle uses two connections: one for pipelined commands, and one for receiving, which may block.
//! Messages move only inside the scripts of [`scripts`]; receiving is described in [`receive`], and restoring
//! the messages of dead workers in [`restore`].

mod ack;
mod backend;
mod bindings;
mod bus;
mod chord_scripts;
mod commands;
mod config;
mod connection;
mod counter;
mod dead;
mod destination;
mod endpoint;
mod error;
mod error_scope;
mod judge;
mod later;
mod lease;
mod names;
mod outage;
mod own_script;
mod publish;
mod receive;
mod reserve;
mod restore;
mod routes;
mod schedule;
mod script;
mod scripts;
mod separate;
mod settling;
mod tags;
mod url;
mod watch;
mod writer;
mod written;

use std::{
    fmt,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use async_trait::async_trait;
use redis::{FromRedisValue, pipe};
use tokio::sync::Mutex;

use self::{
    ack::Acks,
    bindings::Bindings,
    connection::Connection,
    counter::Counter,
    destination::Destination,
    endpoint::Endpoint,
    lease::Lease,
    names::Names,
    script::Invocation,
    settling::{Settling, StoredResult},
    tags::Tags,
    watch::Watch,
    writer::Writer,
    written::Write,
};
pub use self::{config::RedisConfig, error::ConfigError, own_script::RedisScript};
use crate::{
    broker::{
        Broker, BrokerError, Delivery, DeliveryTag, Depth, LogReply, Publication, PublicationLog, Recovery,
        Renewal, ResultBackend, Settlement, SettlementStatus, sealed::Sealed,
    },
    lock::Lock,
    message::{self, Message, mark_redelivered},
    observer::{NoopObserver, Observer},
    result::ResultMeta,
    system,
};

/// Celery's message broker and result backend in one Redis database.
pub struct RedisBroker {
    config: RedisConfig,
    commands: Arc<Connection>,
    /// Handle of the server of results, if it is another server or database.
    results: Option<Arc<RedisBroker>>,
    watch: Watch,
    /// Connection for receiving, which may block.
    receiving: Connection,
    /// Locked while a receive is in progress: the next free tag is known only after the reply to the previous
    /// script.
    tags: Mutex<Tags>,
    /// Number of messages from the last receive that were postponed.
    postponed: AtomicUsize,
    /// Rotates the order of the queues, because a full queue would starve the others.
    rotation: AtomicUsize,
    /// Name of this handle in delivery tags and leases.
    instance: String,
    lease: Arc<Lease>,
    writer: Writer,
    bindings: Arc<Lock<Bindings>>,
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
        config.check()?;
        let results = match &config.result_backend {
            Some(url) => {
                let results = Self::new(RedisConfig {
                    url: url.clone(),
                    result_backend: None,
                    key_prefix: config.result_prefix(),
                    ..config.clone()
                });
                let invalid = |error| ConfigError::ResultBackend(Box::new(error));
                Some(Arc::new(results.map_err(invalid)?))
            }
            None => None,
        };
        let endpoint = Endpoint::new(&config)?;
        let names = Names::new(&config);
        let observer = Arc::new(NoopObserver);
        let commands = Connection::new(endpoint, names, config.response_timeout, observer);
        Ok(Self::with_commands(config, Arc::new(commands), results))
    }

    fn with_commands(
        config: RedisConfig,
        commands: Arc<Connection>,
        results: Option<Arc<RedisBroker>>,
    ) -> Self {
        let instance = names::instance(&system::random_id().to_string(), config.lease);
        let lease: Arc<Lease> = Arc::default();
        Self {
            receiving: commands.another(),
            tags: Mutex::default(),
            postponed: AtomicUsize::new(0),
            rotation: AtomicUsize::new(0),
            watch: Watch::new(Arc::clone(&commands)),
            writer: Writer {
                commands: Arc::clone(&commands),
                key: commands.names.writes(&instance).into(),
                lease: Arc::clone(&lease),
                written: Arc::default(),
                seconds: config.result_seconds(),
                bounds: config.rewrite,
            },
            commands,
            results,
            instance,
            lease,
            bindings: Arc::default(),
            acks: Acks::default(),
            config,
        }
    }

    /// Reports commands to `observer`. Call before first use; this replaces the connections.
    #[must_use]
    pub fn observer(self, observer: Arc<dyn Observer>) -> Self {
        let commands = self.commands.observer(Arc::clone(&observer));
        let results = self.results.map(|results| {
            let commands = Arc::new(results.commands.observer(observer));
            Arc::new(Self::with_commands(results.config.clone(), commands, None))
        });
        Self::with_commands(self.config, Arc::new(commands), results)
    }

    /// Runs a script that settles a delivery if it is held, which `is_held` reads from the reply. If the
    /// server has lost its data, reserves the delivery again and repeats the script, to save the message.
    /// Returns the reply and the counter that numbered the write.
    async fn run_settling<T: FromRedisValue>(
        &self,
        delivery: &Delivery,
        script: impl Fn(&Counter) -> Invocation<'static>,
        is_held: impl Fn(&T) -> bool,
    ) -> Result<(T, Counter), BrokerError> {
        let counter = self.writer.counter().await?;
        let reply = self.commands.script(&script(&counter)).await?;
        if !is_held(&reply) && self.reserve_if_lost(delivery).await? {
            let counter = self.writer.counter().await?;
            let reply = self.commands.script(&script(&counter)).await?;
            return Ok((reply, counter));
        }
        Ok((reply, counter))
    }

    /// Returns the names of keys and channels.
    fn names(&self) -> &Names {
        &self.commands.names
    }

    /// Returns the channel of a fan-out exchange.
    fn channel(&self, exchange: &str, routing_key: &str) -> String {
        let database = self.commands.endpoint.database();
        self.names().channel(database, exchange, routing_key)
    }

    /// Returns a settlement that only acknowledges a delivery.
    fn settling(&self, delivery: &Delivery) -> Settling {
        let message = settling::message_id(&delivery.raw);
        Settling::new(delivery.tag.clone(), message, self.result_seconds())
    }

    /// Writes a settlement if the delivery is held, and remembers it. Returns the reply of the script.
    async fn write_settling(&self, delivery: &Delivery, settling: Settling) -> Result<i64, BrokerError> {
        let script = |counter: &Counter| settling.script(self.names(), counter, None);
        let is_held = |reply: &i64| *reply != settling::NOT_HELD;
        let (reply, counter) = self.run_settling(delivery, script, is_held).await?;
        if let Ok(number) = u64::try_from(reply) {
            self.writer
                .remember(&counter, number, [Write::Settlings(vec![settling])]);
        }
        Ok(reply)
    }
}

impl Sealed for RedisBroker {}

#[async_trait]
impl Broker for RedisBroker {
    async fn publish(&self, message: Message) -> Result<(), BrokerError> {
        self.push(&[message]).await
    }

    async fn publish_batch(&self, messages: Vec<Message>) -> Vec<Result<(), BrokerError>> {
        vec![self.push(&messages).await; messages.len()]
    }

    async fn publish_logged(
        &self,
        log: &PublicationLog,
        messages: Vec<Message>,
    ) -> Result<LogReply, BrokerError> {
        self.push_logged(log, &messages).await
    }

    async fn log_lengths(&self, ids: &[String]) -> Result<Vec<u64>, BrokerError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<String> = ids.iter().map(|id| self.names().publication_log(id)).collect();
        let lengths: Vec<Option<u64>> = self.commands.command(commands::MGET, keys).await?;
        Ok(lengths.into_iter().map(Option::unwrap_or_default).collect())
    }

    async fn publish_together(&self, publication: &Publication) -> Result<(), BrokerError> {
        let mut pipeline = pipe();
        pipeline.atomic();
        match &self.results {
            Some(results) if settling::has_groups(publication) => results.publish_groups(publication).await?,
            Some(_) => {}
            None => settling::add_groups(&mut pipeline, self.names(), publication, self.result_seconds()),
        }
        let (names, routes) = (self.names(), self.routes(&publication.messages).await?);
        for message in &publication.messages {
            for destination in self.destinations(&routes, message)? {
                match destination {
                    Destination::Queue { queue, priority } => {
                        let binding = names.binding(&queue);
                        pipeline.sadd(names.binding_key(&queue), binding).ignore();
                        pipeline
                            .lpush(names.list(&queue, priority), message.encode())
                            .ignore();
                    }
                    Destination::Fanout { channel, .. } => {
                        pipeline.publish(channel, message.encode()).ignore();
                    }
                }
            }
        }
        self.commands
            .pipeline(commands::PUBLISH_TOGETHER, &pipeline)
            .await
    }

    async fn begin(&self, delivery: &Delivery) -> Result<bool, BrokerError> {
        let script = |counter: &Counter| chord_scripts::begin(self.names(), &delivery.tag, counter, false);
        let is_held = |reply: &i64| *reply != settling::NOT_HELD;
        let (reply, counter) = self.run_settling(delivery, script, is_held).await?;
        let Ok(number) = u64::try_from(reply) else {
            return Ok(false);
        };
        let acknowledged = self.settling(delivery);
        self.writer
            .remember(&counter, number, [Write::Settlings(vec![acknowledged])]);
        Ok(true)
    }

    async fn settle(
        &self,
        delivery: &Delivery,
        settlement: &Settlement,
    ) -> Result<SettlementStatus, BrokerError> {
        if let Some(results) = &self.results {
            return self.settle_separately(results, delivery, settlement).await;
        }
        let settling = self.settling(delivery);
        let mut settling = settling.chords(&settlement.chords, &settlement.failed_chords);
        settling.add_results(settlement);
        settling.add_groups(&settlement.publication);
        self.add_messages(&mut settling, &settlement.publication).await?;
        settling.add_dead_letter(delivery, settlement);
        match self.write_settling(delivery, settling).await? {
            settling::NOT_HELD => return Ok(SettlementStatus::NotHeld),
            settling::CHORD_TAKEN => return Ok(SettlementStatus::ChordTaken),
            _ => {}
        }
        if settlement.dead_letter.is_some() {
            self.added_dead_letter(&delivery.queue).await;
        }
        Ok(SettlementStatus::Applied)
    }

    async fn receive(&self, queues: &[String], max: usize) -> Result<Vec<Delivery>, BrokerError> {
        self.receive_from(queues, max).await
    }

    async fn ack(&self, delivery: &Delivery, result: Option<&ResultMeta>) -> Result<bool, BrokerError> {
        if let (Some(results), Some(meta)) = (&self.results, result) {
            let stored = Box::pin(self.store_if_held(results, delivery, meta));
            return Ok(stored.await? && self.ack(delivery, None).await?);
        }
        let ack = || {
            let stored = result.map(StoredResult::new);
            self.acks.ack(&self.writer, delivery, stored)
        };
        if ack().await? {
            return Ok(true);
        }
        // Boxed to keep the future of every task small.
        Ok(Box::pin(self.reserve_if_lost(delivery)).await? && ack().await?)
    }

    async fn replace(
        &self,
        delivery: &Delivery,
        message: Message,
        result: Option<&ResultMeta>,
    ) -> Result<bool, BrokerError> {
        if let (Some(results), Some(meta)) = (&self.results, result) {
            let stored = self.store_if_held(results, delivery, meta).await?;
            return Ok(stored && self.replace(delivery, message, None).await?);
        }
        let mut settling = self.settling(delivery);
        if let Some(meta) = result {
            settling.add_result(meta, true);
        }
        let destination = Destination::Queue {
            queue: delivery.queue.clone(),
            priority: message.properties.priority,
        };
        settling.add_message(destination, message.encode());
        Ok(self.write_settling(delivery, settling).await? != settling::NOT_HELD)
    }

    async fn restore(&self, delivery: &Delivery) -> Result<bool, BrokerError> {
        let Some(message) = mark_redelivered(&delivery.raw) else {
            self.bury(delivery, "the message is not a JSON object", None)
                .await?;
            return Ok(true);
        };
        let script = |_: &Counter| {
            let mut script = Invocation::on_delivery(&scripts::RESTORE, self.names(), &delivery.tag);
            script
                .key(
                    self.names()
                        .list(&delivery.queue, message::priority(&delivery.raw)),
                )
                .arg(&message);
            script
        };
        let (restored, _) = self.run_settling(delivery, script, |held| *held).await?;
        Ok(restored)
    }

    async fn restore_batch(&self, deliveries: &[Delivery]) -> Result<usize, BrokerError> {
        let mut script = Invocation::new(&scripts::RESTORE_BATCH);
        script.key(&self.names().unacked_index).key(&self.names().unacked);
        for Delivery { tag, queue, raw } in deliveries {
            // No delivery has an empty tag, so a message that is not a JSON object is left for the loop below, which
            // moves it to the dead-letter list.
            let message = mark_redelivered(raw);
            script
                .key(self.names().list(queue, message::priority(raw)))
                .arg(if message.is_some() { tag.as_str() } else { "" })
                .arg(message.unwrap_or_default());
        }
        let held: Vec<bool> = self.commands.script(&script).await?;
        let mut restored = held.iter().filter(|held| **held).count();
        // The server may have lost the others.
        for (delivery, _) in deliveries.iter().zip(held).filter(|(_, held)| !held) {
            restored += usize::from(self.restore(delivery).await?);
        }
        Ok(restored)
    }

    async fn postpone(&self, deliveries: &[(&Delivery, &Message)]) -> Result<Vec<bool>, BrokerError> {
        self.postpone_all(deliveries).await
    }

    async fn postponed(&self, queues: &[String], max: usize) -> Result<Vec<Delivery>, BrokerError> {
        self.next_postponed(queues, max).await
    }

    async fn postponed_tasks(&self, task_ids: &[String]) -> Result<Vec<Delivery>, BrokerError> {
        self.postponed_of(task_ids).await
    }

    async fn recall(&self, task_ids: &[String]) -> Result<(), BrokerError> {
        self.recall_tasks(task_ids).await
    }

    async fn return_postponed(&self, is_leaving: bool, returned: &mut usize) -> Result<(), BrokerError> {
        self.return_all_postponed(is_leaving, returned).await
    }

    async fn bury(
        &self,
        delivery: &Delivery,
        reason: &str,
        result: Option<&ResultMeta>,
    ) -> Result<(), BrokerError> {
        let Delivery { tag, queue, raw } = delivery;
        if self.bury_held(tag, queue, raw, reason, None).await? {
            self.commands.observer.buried(&delivery.queue);
        }
        // Stored in any case, because an earlier attempt may have moved the message.
        match result {
            Some(meta) => self.store_unless_ended(meta).await,
            None => Ok(()),
        }
    }

    fn for_worker(&self) -> Option<Arc<dyn Broker>> {
        Some(Arc::new(Self {
            bindings: Arc::clone(&self.bindings),
            ..Self::with_commands(
                self.config.clone(),
                Arc::clone(&self.commands),
                self.results.clone(),
            )
        }))
    }

    fn with_own_connections(&self) -> Option<Arc<dyn Broker>> {
        // A request without a reply within the lease is of no use to the thread that renews it.
        let response_timeout = self.config.response_timeout.min(self.config.lease);
        let commands = self.commands.with_response_timeout(response_timeout);
        let other = Self::with_commands(self.config.clone(), Arc::new(commands), self.results.clone());
        Some(Arc::new(Self {
            instance: self.instance.clone(),
            writer: Writer {
                key: Arc::clone(&self.writer.key),
                lease: Arc::clone(&self.lease),
                written: Arc::clone(&self.writer.written),
                ..other.writer
            },
            lease: Arc::clone(&self.lease),
            bindings: Arc::clone(&self.bindings),
            ..other
        }))
    }

    async fn renew(&self, deliveries: &[DeliveryTag]) -> Result<Renewal, BrokerError> {
        self.renew_lease(deliveries).await
    }

    async fn reserve(
        &self,
        deliveries: &[Delivery],
        acknowledged: &[DeliveryTag],
    ) -> Result<Recovery, BrokerError> {
        self.recover(deliveries, acknowledged).await
    }

    fn lease(&self) -> Duration {
        self.config.lease
    }

    fn renew_interval(&self) -> Duration {
        self.config.renew_every()
    }

    async fn restore_expired(&self) -> Result<usize, BrokerError> {
        self.restore_all_expired().await
    }

    async fn depth(&self, queue: &str) -> Result<Depth, BrokerError> {
        let mut pipeline = pipe();
        for list in self.names().lists(queue) {
            pipeline.cmd("LLEN").arg(list);
        }
        pipeline.cmd("HLEN").arg(&self.names().unacked);
        let mut lengths: Vec<u64> = self.commands.pipeline(commands::DEPTH, &pipeline).await?;
        let unacked = lengths.pop().unwrap_or_default();
        Ok(Depth {
            waiting: lengths.iter().sum(),
            unacked,
        })
    }

    async fn heads(&self, queue: &str) -> Result<Vec<Vec<u8>>, BrokerError> {
        let mut pipeline = pipe();
        for list in self.names().lists(queue) {
            pipeline.cmd("LINDEX").arg(list).arg(-1);
        }
        let heads: Vec<Option<Vec<u8>>> = self.commands.pipeline(commands::HEADS, &pipeline).await?;
        Ok(heads.into_iter().flatten().collect())
    }

    async fn purge(&self, queue: &str) -> Result<u64, BrokerError> {
        let mut pipeline = pipe();
        pipeline.atomic();
        for list in self.names().lists(queue) {
            pipeline.cmd("LLEN").arg(&list);
            pipeline.del(list).ignore();
        }
        let lengths: Vec<u64> = self.commands.pipeline(commands::PURGE, &pipeline).await?;
        Ok(lengths.iter().sum())
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        self.commands.command(commands::PING, commands::NO_ARGS).await
    }
}
