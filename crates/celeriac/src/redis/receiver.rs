//! The connection and the delivery tags with which a broker handle receives messages.

use std::{sync::atomic::AtomicUsize, time::Duration};

use tokio::sync::Mutex;

use super::{commands, connection::Connection};
use crate::broker::BrokerError;

/// Duration of one wait, which is also the latency of messages in the lists that the wait does not cover.
const WAIT: Duration = Duration::from_millis(100);

pub(super) struct Receiver {
    pub connection: Connection,
    /// Locked while a receive is in progress: the next free tag is known only after the previous script has
    /// answered.
    pub tags: Mutex<Tags>,
    /// Rotates the order of the queues, so that a full queue does not starve the others.
    pub rotation: AtomicUsize,
}

#[derive(Default)]
pub(super) struct Tags {
    pub next: u64,
    /// Number of tags before `next` that were passed to a script whose answer has not arrived.
    pub unanswered: u64,
}

impl Receiver {
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            connection,
            tags: Mutex::default(),
            rotation: AtomicUsize::new(0),
        }
    }

    pub(super) async fn wait(&self, queue: &str) -> Result<(), BrokerError> {
        let args = (queue, queue, "RIGHT", "RIGHT", WAIT.as_secs_f64());
        let woken: Result<redis::Value, _> = self.connection.command(commands::BLMOVE, args).await;
        woken.map(|_| ())
    }
}
