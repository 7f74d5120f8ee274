//! The last tick of each periodic task, which schedulers share through their broker.

use async_trait::async_trait;
use jiff::Timestamp;

use super::{error::BrokerError, sealed::Sealed};
use crate::message::Message;

/// Storage of the last ticks of periodic tasks.
///
/// This trait is sealed: only the brokers of this crate implement it, so methods can be added without
/// breaking users.
#[async_trait]
pub trait Timetable: Sealed + Send + Sync {
    /// Returns the last tick of each entry, in the order of `entries`, and the time of the clock that all
    /// schedulers share.
    ///
    /// # Errors
    /// Returns an error if the broker cannot be reached.
    async fn last_ticks(&self, entries: &[String]) -> Result<LastTicks, BrokerError>;

    /// Sets an entry's last tick to `to` and publishes `message`, in one step, if the last tick is still
    /// `from`. Otherwise returns false and changes nothing.
    ///
    /// # Errors
    /// Returns an error if the broker does not confirm. Repeating the call is harmless.
    async fn advance(
        &self,
        entry: &str,
        from: Option<&[u8]>,
        to: &str,
        message: Option<Message>,
    ) -> Result<bool, BrokerError>;
}

/// Result of [`Timetable::last_ticks`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastTicks {
    /// Time of the shared clock.
    pub now: Timestamp,
    /// Last ticks as stored; `None` for a new entry.
    pub ticks: Vec<Option<Vec<u8>>>,
}
