//! Counts and remembers what a worker writes to its server.

use std::sync::Arc;

use super::{
    config::Bounds,
    connection::Connection,
    counter::Counter,
    lease::Lease,
    written::{Write, Written},
};
use crate::{broker::BrokerError, lock::Lock};

pub(super) struct Writer {
    pub commands: Arc<Connection>,
    /// Key that numbers the writes of the instance.
    pub key: Arc<str>,
    pub lease: Arc<Lease>,
    /// Recent writes.
    pub written: Arc<Lock<Written>>,
    /// Time until results expire, in seconds.
    pub seconds: u64,
    pub bounds: Bounds,
}

impl Writer {
    /// Returns the counter of writes on the server that commands are sent to.
    pub(super) async fn counter(&self) -> Result<Counter, BrokerError> {
        self.counter_on(&self.commands).await
    }

    pub(super) async fn counter_on(&self, connection: &Connection) -> Result<Counter, BrokerError> {
        Ok(Counter {
            key: Arc::clone(&self.key),
            server: connection.live().await?.server,
        })
    }

    /// Remembers confirmed writes, in case the server loses them.
    pub(super) fn remember(&self, counter: &Counter, number: u64, writes: impl IntoIterator<Item = Write>) {
        self.lease.confirm(&counter.server, number);
        let mut written = self.written.lock();
        for write in writes {
            written.add(&counter.server, number, Arc::new(write), self.bounds);
        }
    }
}
