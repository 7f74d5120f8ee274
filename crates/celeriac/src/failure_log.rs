//! Logs the failures of a loop that retries: a warning for the first failure of a series, and a line when the
//! loop works again. While the broker is unavailable, loops log only at DEBUG, because the broker's connection
//! logs the outage for all of them.

use crate::{
    broker::BrokerError,
    log::{debug, info, warn},
};

#[derive(Debug)]
pub(crate) struct FailureLog {
    /// Activity of the loop, as the subject of a sentence.
    activity: &'static str,
    warned: bool,
}

impl FailureLog {
    pub(crate) fn new(activity: &'static str) -> Self {
        Self {
            activity,
            warned: false,
        }
    }

    pub(crate) fn failed(&mut self, error: &BrokerError) {
        let logged = error.is_outage() || self.warned;
        if logged {
            debug!(%error, "{} failed", self.activity);
        } else {
            self.warned = true;
            warn!(%error, "{} fails; retrying", self.activity);
        }
    }

    pub(crate) fn worked(&mut self) {
        if std::mem::take(&mut self.warned) {
            info!("{} works again", self.activity);
        }
    }
}
