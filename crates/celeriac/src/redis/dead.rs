//! The dead-letter list `celeriac.dead`, newest first. A letter is added in the step that removes the message
//! from its worker, and removed in the step that returns the message to a queue.

use async_trait::async_trait;

use super::{RedisBroker, commands, names, scripts};
use crate::broker::{BrokerError, DeadLetter, DeadLetters, RequeuedMessage};

#[async_trait]
impl DeadLetters for RedisBroker {
    async fn dead_letters(&self, offset: usize, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        // Counted from the end, where the oldest letter is.
        let last = i64::try_from(offset).unwrap_or(i64::MAX - 1) + 1;
        let first = last.saturating_add(i64::try_from(limit).unwrap_or(i64::MAX) - 1);
        let range = (names::DEAD, -first, -last);
        let entries: Vec<Vec<u8>> = self.commands.command(commands::LRANGE, range).await?;
        Ok(entries.into_iter().rev().map(DeadLetter::decode).collect())
    }

    async fn dead_letter_count(&self) -> Result<u64, BrokerError> {
        self.commands.command(commands::LLEN, names::DEAD).await
    }

    async fn take_dead_letter(
        &self,
        letter: &DeadLetter,
        revived: Option<&RequeuedMessage>,
    ) -> Result<bool, BrokerError> {
        let mut script = scripts::TAKE_DEAD.prepare_invoke();
        script.key(names::DEAD).arg(&letter.entry);
        if let Some(RequeuedMessage { queue, priority, raw }) = revived {
            script.message(queue, *priority, raw);
        }
        self.commands.script(&script).await
    }
}
