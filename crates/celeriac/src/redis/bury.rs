//! Moves messages that cannot be run to the dead-letter list `celeriac.dead`, in one step with the removal of
//! their deliveries.

use super::{RedisBroker, names, restore::Candidate, scripts};
use crate::{
    broker::{BrokerError, DeadLetter, DeliveryTag},
    log::warn,
};

impl RedisBroker {
    /// Moves a reserved message to the dead-letter list if its delivery is still held. Returns whether the
    /// message was moved.
    ///
    /// For another worker's delivery, `expired` requires that the delivery is also still expired.
    pub(super) async fn bury_held(
        &self,
        tag: &DeliveryTag,
        queue: &str,
        raw: &[u8],
        reason: &str,
        expired: Option<&Candidate>,
    ) -> Result<bool, BrokerError> {
        let capacity = self.config.dead_letter_capacity;
        let mut script = scripts::BURY.on_delivery(tag);
        script
            .key(names::DEAD)
            .arg(DeadLetter::encode(queue, raw, reason))
            .arg(capacity.max(1));
        if let Some(Candidate { cutoff, instance, .. }) = expired {
            script.key(names::LEASES).arg(cutoff).arg(instance);
        }
        let dropped: i64 = self.commands.script(&script).await?;
        if dropped > 0 {
            warn!(
                dropped,
                capacity, "the dead-letter list is full; the oldest dead letters were dropped"
            );
        }
        Ok(dropped >= 0)
    }
}
