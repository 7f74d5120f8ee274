//! Moves messages that cannot be run to the dead-letter list `celeriac.dead`, in one step with the removal of
//! their deliveries.

use super::{RedisBroker, names, restore::Candidate, scripts};
use crate::{
    broker::{BrokerError, DeadLetter},
    log::warn,
};

impl RedisBroker {
    /// Moves a reserved message to the dead-letter list if its delivery is still held. Returns whether the
    /// message was moved.
    ///
    /// For another worker's delivery, `expired` requires that the delivery is also still expired.
    pub(super) async fn bury_held(
        &self,
        tag: &str,
        queue: &str,
        raw: &[u8],
        reason: &str,
        expired: Option<&Candidate>,
    ) -> Result<bool, BrokerError> {
        let capacity = self.config.dead_letter_capacity;
        let script = match expired {
            None => &scripts::BURY,
            Some(_) => &scripts::BURY_EXPIRED,
        };
        let mut script = script.prepare_invoke();
        script
            .key(names::UNACKED_INDEX)
            .key(names::UNACKED)
            .key(names::DEAD)
            .arg(tag)
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
