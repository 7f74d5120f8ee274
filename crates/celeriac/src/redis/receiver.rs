//! The connection and the delivery tags that a broker handle uses to receive messages.

use std::sync::atomic::AtomicUsize;

use tokio::sync::Mutex;

use super::connection::Connection;

pub(super) struct Receiver {
    pub connection: Connection,
    /// Locked while a receive is in progress: the next free tag is known only after the reply to the
    /// previous script.
    pub tags: Mutex<Tags>,
    /// Rotates the order of the queues, because a full queue would starve the others.
    pub rotation: AtomicUsize,
}

#[derive(Default)]
pub(super) struct Tags {
    pub next: u64,
    /// Number of tags before `next` that were passed to a script whose reply has not arrived.
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
}
