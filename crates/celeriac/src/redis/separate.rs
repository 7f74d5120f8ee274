//! Results and chords on another server or database than the messages. A result is stored before its message is
//! acknowledged, and a chord is marked as done after its body is sent: if the worker dies in between, steps are
//! repeated, and none is lost.

use std::collections::HashSet;

use redis::pipe;

use super::{
    RedisBroker, commands,
    settling::{self, Settling},
};
use crate::{
    broker::{BrokerError, Delivery, Publication, ResultBackend, Settlement, SettlementStatus},
    result::ResultMeta,
};

impl RedisBroker {
    /// Returns whether a delivery is held. Reserves it again if the server has lost its data.
    pub(super) async fn is_held(&self, delivery: &Delivery) -> Result<bool, BrokerError> {
        let mut pipeline = pipe();
        pipeline
            .cmd("HEXISTS")
            .arg(&self.names().unacked)
            .arg(delivery.tag.as_str())
            .cmd("EXISTS")
            .arg(self.names().acked_early(&delivery.tag));
        let (reserved, early): (bool, bool) = self.commands.pipeline(commands::IS_HELD, &pipeline).await?;
        Ok(reserved || early || self.reserve_if_lost(delivery).await?)
    }

    /// Stores the result of a delivery that is about to be acknowledged. Returns whether the delivery is held.
    pub(super) async fn store_if_held(
        &self,
        results: &Self,
        delivery: &Delivery,
        meta: &ResultMeta,
    ) -> Result<bool, BrokerError> {
        let held = self.is_held(delivery).await?;
        if held {
            results.store_result(meta).await?;
        }
        Ok(held)
    }

    pub(super) async fn settle_separately(
        &self,
        results: &Self,
        delivery: &Delivery,
        settlement: &Settlement,
    ) -> Result<SettlementStatus, BrokerError> {
        if !self.is_held(delivery).await? {
            return Ok(SettlementStatus::NotHeld);
        }
        let publication = &settlement.publication;
        let mut stored = self.settling(delivery);
        stored.add_results(settlement);
        stored.add_groups(publication);
        results.write_unchecked(&stored).await?;
        let mut sent = self.settling(delivery);
        self.add_messages(&mut sent, publication).await?;
        sent.add_dead_letter(delivery, settlement);
        if self.write_settling(delivery, sent).await? == settling::NOT_HELD {
            return Ok(SettlementStatus::NotHeld);
        }
        if settlement.dead_letter.is_some() {
            self.added_dead_letter(&delivery.queue).await;
        }
        if !settlement.chords.is_empty() {
            let done = self.settling(delivery);
            let done = done.chords(&settlement.chords, &settlement.failed_chords);
            results.write_unchecked(&done).await?;
        }
        Ok(SettlementStatus::Applied)
    }

    /// Writes a settlement to a server that does not have the delivery.
    async fn write_unchecked(&self, settling: &Settling) -> Result<(), BrokerError> {
        let counter = self.writer.counter().await?;
        let _: i64 = self
            .commands
            .script(&settling.script(self.names(), &counter, Some(&HashSet::new())))
            .await?;
        Ok(())
    }

    /// Stores the groups and chord headers of a publication.
    pub(super) async fn publish_groups(&self, publication: &Publication) -> Result<(), BrokerError> {
        let seconds = self.result_seconds();
        let mut pipeline = pipe();
        pipeline.atomic();
        settling::add_groups(&mut pipeline, self.names(), publication, seconds);
        self.commands
            .pipeline(commands::PUBLISH_TOGETHER, &pipeline)
            .await
    }
}
