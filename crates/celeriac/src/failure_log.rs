//! What a loop says when the broker fails it: one line for a streak of failures and one for its end. About a broker
//! that is away the loops say nothing, because the broker's connection has said it for all of them.

use crate::{
    broker::BrokerError,
    log::{debug, info, warn},
};

#[derive(Debug)]
pub(crate) struct FailureLog {
    /// What the loop does, as the subject of a sentence.
    what: &'static str,
    warned: bool,
}

impl FailureLog {
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, warned: false }
    }

    pub(crate) fn failed(&mut self, error: &BrokerError) {
        let said = matches!(error, BrokerError::Unavailable { .. }) || self.warned;
        if said {
            debug!(%error, "{} failed", self.what);
        } else {
            self.warned = true;
            warn!(%error, "{} fails; trying until it works", self.what);
        }
    }

    pub(crate) fn worked(&mut self) {
        if std::mem::take(&mut self.warned) {
            info!("{} works again", self.what);
        }
    }
}
