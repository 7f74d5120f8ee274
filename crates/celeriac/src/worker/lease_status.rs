//! Whether the worker's lease is confirmed: tasks start only while it is.

use std::{pin::pin, time::Duration};

use tokio::{sync::Notify, time::Instant};

use super::inflight::Entry;
use crate::lock::Lock;

/// Confirmation of the worker's lease.
#[derive(Debug, Default)]
pub(super) struct LeaseStatus {
    valid_until: Lock<Option<Instant>>,
    /// Notified of every confirmation. Wakes tasks in order of arrival, which a watch channel does not.
    confirmed: Notify,
}

/// Returns the end of the validity of a request that confirms a lease. It is slightly shorter than the lease,
/// so that a task has started before another worker can take it over.
fn end(requested: Instant, lease: Duration) -> Instant {
    requested + (lease - lease / 10)
}

fn is_future(until: Option<Instant>) -> bool {
    until.is_some_and(|until| Instant::now() < until)
}

impl LeaseStatus {
    /// Records that a renewal was confirmed. It is valid for the lease, from its request, by this process's
    /// monotonic clock.
    pub(super) fn confirm(&self, requested: Instant, lease: Duration) {
        *self.valid_until.lock() = Some(end(requested, lease));
        self.confirmed.notify_waiters();
    }

    /// Returns whether the lease is confirmed.
    pub(super) fn is_valid(&self) -> bool {
        is_future(*self.valid_until.lock())
    }

    /// Resolves once the lease is confirmed.
    pub(super) async fn valid(&self) {
        self.until(is_future).await;
    }

    async fn until(&self, is_confirmed: impl Fn(Option<Instant>) -> bool) {
        let is_confirmed = || is_confirmed(*self.valid_until.lock());
        while !is_confirmed() {
            let mut confirmed = pin!(self.confirmed.notified());
            confirmed.as_mut().enable();
            // A confirmation before the registration does not notify.
            if !is_confirmed() {
                confirmed.await;
            }
        }
    }

    /// Resolves once the lease is confirmed for a delivery: a renewal has included it, or it was requested
    /// within the last lease. A delivery that arrives late, because this process was paused, may belong to
    /// another worker.
    pub(super) async fn valid_for(&self, entry: &Entry, lease: Duration) {
        let is_recent = |requested| is_future(Some(end(requested, lease)));
        self.until(|until| is_future(until) && (entry.is_renewed() || entry.is_recent(is_recent)))
            .await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::{
        broker::{Delivery, DeliveryTag},
        worker::inflight::Inflight,
    };

    const LEASE: Duration = Duration::from_secs(60);

    #[test]
    fn a_delivery_that_arrives_late_waits_for_a_renewal_that_includes_it() {
        let (status, inflight) = (LeaseStatus::default(), Inflight::default());
        let now = Instant::now();
        let add = |tag: &str, requested| {
            let delivery = Delivery {
                tag: DeliveryTag(tag.to_owned()),
                queue: "q".to_owned(),
                raw: Vec::new(),
            };
            inflight.add(delivery, "".into(), requested)
        };
        let (late, prompt) = (add("late", now - LEASE), add("prompt", now));
        let may_start = |entry: &Entry| status.valid_for(entry, LEASE).now_or_never().is_some();
        assert!(!may_start(&prompt), "the lease is not confirmed yet");
        status.confirm(now - LEASE, LEASE);
        assert!(
            !status.is_valid() && !may_start(&prompt),
            "the reply took too long"
        );
        status.confirm(now, LEASE);
        assert!(status.is_valid() && may_start(&prompt));
        assert!(!may_start(&late));
        inflight.set_renewed(std::slice::from_ref(&late.delivery.tag));
        assert!(may_start(&late));
        assert!(prompt.begin_postponing());
        inflight.set_renewed(std::slice::from_ref(&prompt.delivery.tag));
        prompt.cancel_postponing();
        assert!(!may_start(&prompt), "the broker may have postponed it");
        inflight.set_renewed(std::slice::from_ref(&prompt.delivery.tag));
        assert!(may_start(&prompt));
    }
}
