//! The last tick of each periodic task, which schedulers share through their broker.

use async_trait::async_trait;
use jiff::Timestamp;

use super::{error::BrokerError, sealed::Sealed};
use crate::message::Message;

/// What brokers keep for schedulers.
#[async_trait]
pub trait Timetable: Sealed + Send + Sync {
    /// The last tick of each of these entries, in their order, and the time by the clock that all schedulers
    /// share.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    async fn last_ticks(&self, entries: &[String]) -> Result<LastTicks, BrokerError>;

    /// Sets an entry's last tick to `to` and publishes `message`, in one step, if the last tick is still `from`.
    /// False, and nothing has happened, when it is not.
    ///
    /// # Errors
    /// When the broker did not confirm. Repeating the call is harmless.
    async fn advance(
        &self,
        entry: &str,
        from: Option<&[u8]>,
        to: &str,
        message: Option<Message>,
    ) -> Result<bool, BrokerError>;
}

/// What [`Timetable::last_ticks`] answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastTicks {
    /// The shared clock.
    pub now: Timestamp,
    /// The last ticks as they are kept; `None` for an entry that nobody has seen yet.
    pub ticks: Vec<Option<Vec<u8>>>,
}
