//! The dead-letter list `celeriac.dead`, newest first. A letter goes there in the step that takes it from its worker,
//! and leaves it in the step that puts it into a queue.

use async_trait::async_trait;
use redis::cmd;

use super::{RedisBroker, commands, connection::Connection, names, scripts::Scripts};
use crate::{
    broker::BrokerError,
    dead::{self, DeadLetter, DeadLetters, Revived},
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
        .arg(dead::encode(queue, raw, reason))
        .arg(capacity.max(1));
    buried(connection.script(&script).await?, capacity);
    Ok(())
}

/// Reads the answer of a script that buries: whether it did. Says when letters were dropped.
pub(super) fn buried(dropped: i64, capacity: usize) -> bool {
    if dropped > 0 {
        warn!(
            dropped,
            capacity, "the dead-letter list is full: the oldest letters were dropped"
        );
    }
    dropped >= 0
}

#[async_trait]
impl DeadLetters for RedisBroker {
    async fn dead_letters(&self, offset: usize, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        // From the end, where the oldest is.
        let last = i64::try_from(offset).unwrap_or(i64::MAX - 1) + 1;
        let first = last.saturating_add(i64::try_from(limit).unwrap_or(i64::MAX) - 1);
        let mut range = cmd("LRANGE");
        range.arg(names::DEAD).arg(-first).arg(-last);
        let entries: Vec<Vec<u8>> = self.commands.command(commands::LRANGE, &range).await?;
        Ok(entries.into_iter().rev().map(DeadLetter::decode).collect())
    }

    async fn dead_letter_count(&self) -> Result<u64, BrokerError> {
        let mut length = cmd("LLEN");
        length.arg(names::DEAD);
        self.commands.command(commands::LLEN, &length).await
    }

    async fn take_dead_letter(
        &self,
        letter: &DeadLetter,
        revived: Option<&Revived>,
    ) -> Result<bool, BrokerError> {
        let mut script = self.scripts.take_dead.prepare_invoke();
        script.key(names::DEAD).arg(&letter.entry);
        if let Some(Revived { queue, priority, raw }) = revived {
            script
                .key(names::binding_key(queue))
                .key(names::list(queue, *priority))
                .arg(names::binding(queue))
                .arg(raw);
        }
        self.commands.script(&script).await
    }
}
