//! Moves messages that cannot be run to the dead-letter list `celeriac.dead`, in the step that removes their
//! delivery.

use super::{connection::Connection, names, scripts::Scripts};
use crate::{
    broker::{BrokerError, DeadLetter},
    log::warn,
};

/// Moves a reserved message to the dead-letter list, if the delivery is still held.
pub(super) async fn bury(
    connection: &Connection,
    scripts: &Scripts,
    capacity: usize,
    tag: &str,
    queue: &str,
    raw: &[u8],
    reason: &str,
) -> Result<(), BrokerError> {
    let mut script = scripts.bury.prepare_invoke();
    script
        .key(names::UNACKED_INDEX)
        .key(names::UNACKED)
        .key(names::DEAD)
        .arg(tag)
        .arg(DeadLetter::encode(queue, raw, reason))
        .arg(capacity.max(1));
    buried(connection.script(&script).await?, capacity);
    Ok(())
}

/// Reads the answer of a script that buries a message: returns whether it did, and logs dropped letters.
pub(super) fn buried(dropped: i64, capacity: usize) -> bool {
    if dropped > 0 {
        warn!(
            dropped,
            capacity, "the dead-letter list is full; the oldest letters were dropped"
        );
    }
    dropped >= 0
}
