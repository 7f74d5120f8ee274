//! Messages that cannot be run or whose tasks have failed, and the operations on them: listing, requeueing and
//! purging. A letter is identified by its whole list element and not by its position, because the list may change
//! concurrently.

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use thiserror::Error;
use uuid::Uuid;

use super::{error::BrokerError, sealed::Sealed};
use crate::{
    json,
    message::{Message, Poison, as_never_delivered},
    system,
    task_id::TaskId,
    time,
};

/// Number of letters read at a time.
const PAGE: usize = 50;

/// The dead-letter list of a broker.
///
/// This trait is sealed: only the brokers of this crate implement it, so methods can be added without
/// breaking users.
#[async_trait]
pub trait DeadLetters: Sealed + Send + Sync {
    /// Returns up to `limit` letters, oldest first, after skipping the `offset` oldest. New letters are added
    /// at the end and do not change the offsets of others.
    ///
    /// # Errors
    /// Returns an error if the broker cannot be reached.
    async fn dead_letters(&self, offset: usize, limit: usize) -> Result<Vec<DeadLetter>, BrokerError>;

    /// Returns the number of letters.
    ///
    /// # Errors
    /// Returns an error if the broker cannot be reached.
    async fn dead_letter_count(&self) -> Result<u64, BrokerError>;

    /// Atomically removes a letter from the list, publishes `revived` in its place, and deletes the failure of its
    /// task from the results. Returns false, without any effect, if the letter is no longer in the list.
    ///
    /// # Errors
    /// Returns an error if the broker does not confirm. Repeating the call is harmless.
    async fn take_dead_letter(
        &self,
        letter: &DeadLetter,
        revived: Option<&RequeuedMessage>,
    ) -> Result<bool, BrokerError>;

    /// Puts a letter's message back at the end of its queue, as if it had never been delivered. Returns
    /// false if the letter is no longer in the list. With `force`, messages that no worker can run are
    /// requeued too.
    ///
    /// # Errors
    /// Returns an error if no worker can run the message, if its queue is unknown, or if the broker does not
    /// confirm.
    async fn requeue(&self, letter: &DeadLetter, force: bool) -> Result<bool, RequeueError> {
        let revived = letter.revive(force)?;
        Ok(self.take_dead_letter(letter, Some(&revived)).await?)
    }

    /// Requeues every letter that `which` selects, oldest first, but not those that arrive during the call: a task
    /// that fails again at once would be requeued without end.
    ///
    /// # Errors
    /// Returns an error if the broker cannot be reached. Letters requeued until then stay requeued.
    async fn requeue_where(
        &self,
        which: LetterFilter<'_>,
        force: bool,
    ) -> Result<RequeueReport, BrokerError> {
        let mut report = RequeueReport::default();
        let mut unread = self.dead_letter_count().await?;
        let mut kept = 0;
        loop {
            let page = self.dead_letters(kept, PAGE).await?;
            if page.is_empty() {
                return Ok(report);
            }
            for letter in page {
                if unread == 0 {
                    return Ok(report);
                }
                unread -= 1;
                if !which(&letter) {
                    kept += 1;
                    continue;
                }
                match self.requeue(&letter, force).await {
                    Ok(true) => report.requeued.push(letter.id),
                    // Removed concurrently, so it does not count towards the offset.
                    Ok(false) => {}
                    Err(RequeueError::Broker(error)) => return Err(error),
                    Err(refusal) => {
                        kept += 1;
                        report.refused.push((letter, refusal));
                    }
                }
            }
        }
    }

    /// Deletes every letter that `which` selects, but not those that arrive during the call. Returns the ids of the
    /// deleted letters.
    ///
    /// # Errors
    /// Returns an error if the broker cannot be reached. Letters deleted until then stay deleted.
    async fn purge_where(&self, which: LetterFilter<'_>) -> Result<Vec<Uuid>, BrokerError> {
        let mut purged = Vec::new();
        let mut unread = self.dead_letter_count().await?;
        let mut kept = 0;
        loop {
            let page = self.dead_letters(kept, PAGE).await?;
            if page.is_empty() {
                return Ok(purged);
            }
            for letter in page {
                if unread == 0 {
                    return Ok(purged);
                }
                unread -= 1;
                if !which(&letter) {
                    kept += 1;
                } else if self.take_dead_letter(&letter, None).await? {
                    purged.push(letter.id);
                }
            }
        }
    }
}

/// Predicate that selects the letters of an operation.
pub type LetterFilter<'a> = &'a (dyn for<'b> Fn(&'b DeadLetter) -> bool + Send + Sync);

/// A message that could not be run or whose task has failed, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Id of the letter, derived from its list element: equal letters have equal ids.
    pub id: Uuid,
    /// Time at which the letter was added, if the entry contains it.
    pub time: Option<Timestamp>,
    /// Queue the message came from; empty if unknown.
    pub queue: String,
    /// Reason that the message could not be run, or that its task has failed.
    pub reason: String,
    /// The message as received.
    pub raw: Vec<u8>,
    /// Name of the task, if it could be read.
    pub task: Option<String>,
    /// Id of the task, if it could be read.
    pub task_id: Option<TaskId>,
    /// List element, which identifies the letter.
    pub(crate) entry: Vec<u8>,
}

/// A message on its way from the dead-letter list to a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequeuedMessage {
    /// Destination queue.
    pub queue: String,
    /// Priority, 0 to 9.
    pub priority: u8,
    /// List element to add to the queue.
    pub raw: Vec<u8>,
}

/// Outcome of a requeue operation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequeueReport {
    /// Ids of the requeued letters.
    pub requeued: Vec<Uuid>,
    /// Letters that stay in the list, each with the reason.
    pub refused: Vec<(DeadLetter, RequeueError)>,
}

/// Reason a letter was not requeued.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RequeueError {
    /// No worker can run the message, so it would return to the dead-letter list.
    #[error("no worker can run it: {0}")]
    Poison(Poison),
    /// The queue of the message is unknown.
    #[error("the letter does not name the queue it came from")]
    NoQueue,
    /// The broker did not confirm.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// Format of a list element.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    reason: String,
    time: String,
    queue: String,
    message: Option<String>,
    message_base64: Option<String>,
}

impl Entry {
    /// Decodes a list element and its message.
    fn decode(entry: &[u8]) -> Option<(Self, Vec<u8>)> {
        let mut read: Self = serde_json::from_slice(entry).ok()?;
        let raw = match read.message.take() {
            Some(text) => text.into_bytes(),
            None => STANDARD.decode(read.message_base64.take()?).ok()?,
        };
        Some((read, raw))
    }
}

impl DeadLetter {
    /// Encodes the list element for a message.
    pub(crate) fn encode(queue: &str, raw: &[u8], reason: &str) -> String {
        let (name, content) = match std::str::from_utf8(raw) {
            Ok(text) => ("message", text.to_owned()),
            Err(_) => ("message_base64", STANDARD.encode(raw)),
        };
        json::to_string(&json!({
            "reason": reason,
            "time": time::format(system::now()),
            "queue": queue,
            name: content,
        }))
    }

    /// Decodes a list element. An invalid element becomes a letter too: it must be possible to list and purge
    /// it.
    pub(crate) fn decode(entry: Vec<u8>) -> Self {
        let (read, raw) = Entry::decode(&entry).unwrap_or_else(|| {
            let invalid = Entry {
                reason: "the entry of the dead-letter list cannot be read".to_owned(),
                ..Entry::default()
            };
            (invalid, entry.clone())
        });
        let (task, task_id) = match Message::decode(&raw) {
            Ok(message) => (Some(message.headers.task), Some(message.headers.id)),
            Err(poison) => (poison.task, poison.task_id),
        };
        Self {
            id: Uuid::new_v5(&Uuid::NAMESPACE_OID, &entry),
            time: time::parse(&read.time),
            queue: read.queue,
            reason: read.reason,
            raw,
            task,
            task_id,
            entry,
        }
    }

    /// Returns the message to requeue, without the marks of earlier deliveries and with all of its retries.
    fn revive(&self, force: bool) -> Result<RequeuedMessage, RequeueError> {
        if self.queue.is_empty() {
            return Err(RequeueError::NoQueue);
        }
        let priority = match Message::decode(&self.raw) {
            Ok(message) => message.properties.priority,
            Err(_) if force => 0,
            Err(poison) => return Err(RequeueError::Poison(poison)),
        };
        Ok(RequeuedMessage {
            queue: self.queue.clone(),
            priority,
            raw: as_never_delivered(&self.raw).map_or_else(|| self.raw.clone(), String::into_bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str = include_str!("../../tests/vectors/message.json");

    #[test]
    fn a_letter_preserves_the_bytes_of_its_message() {
        let raw = MESSAGE.trim().as_bytes();
        let letter = DeadLetter::decode(DeadLetter::encode("celery", raw, "too old").into_bytes());
        assert_eq!(
            (letter.queue.as_str(), letter.reason.as_str()),
            ("celery", "too old")
        );
        assert_eq!(letter.raw, raw);
        assert!(letter.time.is_some());
        assert_eq!(
            letter.task.as_deref(),
            Some("app.jobs.tasks.send_article_notification")
        );
        assert_eq!(
            letter.task_id.as_deref(),
            Some("9b83d466-f412-4357-8563-2b2dedf45e4e")
        );
        let binary = DeadLetter::decode(DeadLetter::encode("q", b"\xff\xfe{}", "no JSON").into_bytes());
        assert_eq!(binary.raw, b"\xff\xfe{}");
        assert_eq!(binary.task_id, None);
        assert_ne!(binary.id, letter.id);
    }

    #[test]
    fn an_invalid_entry_is_listed_but_not_requeued() {
        for entry in ["", "[]", "{}", r#"{"queue": "q", "message_base64": "%"}"#] {
            let letter = DeadLetter::decode(entry.as_bytes().to_vec());
            assert_eq!(letter.raw, entry.as_bytes());
            assert_eq!(letter.revive(true), Err(RequeueError::NoQueue), "{entry}");
        }
    }

    #[test]
    fn a_requeued_message_has_no_marks_of_earlier_deliveries() {
        let marked = MESSAGE.trim().replacen(
            r#""lang": "py""#,
            r#""lang": "py", "redelivered": true, "celeriac_deliveries": 20"#,
            1,
        );
        let marked = marked.replacen(
            r#""routing_key": "celery""#,
            r#""routing_key": "celery", "redelivered": true"#,
            1,
        );
        assert!(Message::decode(marked.as_bytes()).unwrap().redelivered());
        let letter =
            DeadLetter::decode(DeadLetter::encode("celery", marked.as_bytes(), "too often").into_bytes());
        let revived = letter.revive(false).unwrap();
        assert_eq!(String::from_utf8(revived.raw).unwrap(), MESSAGE.trim());
    }

    #[test]
    fn poison_is_requeued_only_with_force() {
        let letter = DeadLetter::decode(DeadLetter::encode("celery", b"{\"half\": ", "no JSON").into_bytes());
        let refusal = letter.revive(false).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "no worker can run it: the message is not a JSON object: Eof error at line 1 column 9"
        );
        let forced = letter.revive(true).unwrap();
        assert_eq!(
            (forced.priority, forced.raw.as_slice()),
            (0, b"{\"half\": ".as_slice())
        );
    }
}
