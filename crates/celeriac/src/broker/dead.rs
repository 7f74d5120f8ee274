//! Messages that cannot be run, and what an operator does with them: look, put them back into their queue, or throw
//! them away. A letter is identified by its whole list element and never by its place, because the list changes
//! while somebody looks at it.

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

/// How many letters a walk over all of them holds at a time.
const PAGE: usize = 50;

/// The dead-letter list of a broker.
#[async_trait]
pub trait DeadLetters: Sealed + Send + Sync {
    /// Up to `limit` letters, the oldest first, after leaving out `offset` of the oldest. New letters come at the
    /// end, so they shift nothing.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    async fn dead_letters(&self, offset: usize, limit: usize) -> Result<Vec<DeadLetter>, BrokerError>;

    /// How many letters there are.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    async fn dead_letter_count(&self) -> Result<u64, BrokerError>;

    /// Takes one letter off the list and, in the same step, puts `revived` in its place into a queue. False when
    /// the letter is not there any more; nothing has happened then.
    ///
    /// # Errors
    /// When the broker did not confirm. Repeating the call is harmless.
    async fn take_dead_letter(
        &self,
        letter: &DeadLetter,
        revived: Option<&RequeuedMessage>,
    ) -> Result<bool, BrokerError>;

    /// Puts one letter back at the end of its queue, as if it had never been delivered. False when it is not there
    /// any more. `force` also puts back what no worker can run.
    ///
    /// # Errors
    /// When the message is still one that no worker can run, when nobody knows its queue, or when the broker did
    /// not confirm.
    async fn requeue(&self, letter: &DeadLetter, force: bool) -> Result<bool, RequeueError> {
        let revived = letter.revive(force)?;
        Ok(self.take_dead_letter(letter, Some(&revived)).await?)
    }

    /// [`requeue`](Self::requeue) for every letter that `which` chooses, the oldest first. Letters that arrive
    /// meanwhile are looked at too.
    ///
    /// # Errors
    /// When the broker cannot be reached; what was put back until then stays so.
    async fn requeue_where(
        &self,
        which: LetterFilter<'_>,
        force: bool,
    ) -> Result<RequeueReport, BrokerError> {
        let mut report = RequeueReport::default();
        let mut kept = 0;
        loop {
            let page = self.dead_letters(kept, PAGE).await?;
            if page.is_empty() {
                return Ok(report);
            }
            for letter in page {
                if !which(&letter) {
                    kept += 1;
                    continue;
                }
                match self.requeue(&letter, force).await {
                    Ok(true) => report.requeued.push(letter.id),
                    // Somebody else has taken it, so it is in nobody's way.
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

    /// Throws away every letter that `which` chooses, for good. Returns the ids of the letters.
    ///
    /// # Errors
    /// When the broker cannot be reached; what was thrown away until then stays so.
    async fn purge_where(&self, which: LetterFilter<'_>) -> Result<Vec<Uuid>, BrokerError> {
        let mut purged = Vec::new();
        let mut kept = 0;
        loop {
            let page = self.dead_letters(kept, PAGE).await?;
            if page.is_empty() {
                return Ok(purged);
            }
            for letter in page {
                if !which(&letter) {
                    kept += 1;
                } else if self.take_dead_letter(&letter, None).await? {
                    purged.push(letter.id);
                }
            }
        }
    }
}

/// Which letters a walk is about.
pub type LetterFilter<'a> = &'a (dyn for<'b> Fn(&'b DeadLetter) -> bool + Send + Sync);

/// A message that could not be run, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Names this letter, also one whose message names no task. Equal letters have equal ids.
    pub id: Uuid,
    /// When it was put here; `None` when the entry does not say.
    pub time: Option<Timestamp>,
    /// The queue it came from; empty when nobody knows.
    pub queue: String,
    /// What is wrong with it.
    pub reason: String,
    /// The message as it came.
    pub raw: Vec<u8>,
    /// The task's name where the message got far enough to say so.
    pub task: Option<String>,
    /// The task's id, likewise.
    pub task_id: Option<TaskId>,
    /// The list element, by which it is found again.
    pub(crate) entry: Vec<u8>,
}

/// A message on its way from the dead-letter list to a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequeuedMessage {
    /// The queue it goes to.
    pub queue: String,
    /// Its priority, 0 to 9.
    pub priority: u8,
    /// The list element of the queue.
    pub raw: Vec<u8>,
}

/// What became of the letters that were to be put back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequeueReport {
    /// The ids of the letters that are in their queues again.
    pub requeued: Vec<Uuid>,
    /// Those that stay where they are, and why.
    pub refused: Vec<(DeadLetter, RequeueError)>,
}

/// Why a letter was not put back.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RequeueError {
    /// It would only come back here.
    #[error("no worker can run it: {0}")]
    Poison(Poison),
    /// There is nowhere to put it.
    #[error("it does not say which queue it came from")]
    NoQueue,
    /// The broker did not confirm.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// The entry as it lies in the list.
#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    time: String,
    #[serde(default)]
    queue: String,
    message: Option<String>,
    message_base64: Option<String>,
}

impl Entry {
    fn raw(&self) -> Option<Vec<u8>> {
        match (&self.message, &self.message_base64) {
            (Some(text), _) => Some(text.clone().into_bytes()),
            (None, Some(packed)) => STANDARD.decode(packed).ok(),
            (None, None) => None,
        }
    }
}

impl DeadLetter {
    /// The list element for a message that cannot be run.
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

    /// Reads a list element. One that is no letter still becomes one, so that it can be seen and thrown away.
    pub(crate) fn decode(entry: Vec<u8>) -> Self {
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, &entry);
        let read = serde_json::from_slice::<Entry>(&entry).ok();
        let Some((read, raw)) = read.and_then(|read| read.raw().map(|raw| (read, raw))) else {
            return Self {
                id,
                time: None,
                queue: String::new(),
                reason: "the entry of the dead-letter list cannot be read".to_owned(),
                raw: entry.clone(),
                task: None,
                task_id: None,
                entry,
            };
        };
        let (task, task_id) = match Message::decode(&raw) {
            Ok(message) => (Some(message.headers.task), Some(message.headers.id)),
            Err(poison) => (poison.task, poison.task_id),
        };
        Self {
            id,
            time: time::parse(&read.time),
            queue: read.queue,
            reason: read.reason,
            raw,
            task,
            task_id,
            entry,
        }
    }

    /// The message to put back, without the marks of earlier deliveries.
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
    fn a_letter_is_read_as_it_was_written_whatever_its_bytes() {
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
    fn an_entry_that_is_no_letter_can_be_seen_but_not_put_back() {
        for entry in ["", "[]", "{}", r#"{"queue": "q", "message_base64": "%"}"#] {
            let letter = DeadLetter::decode(entry.as_bytes().to_vec());
            assert_eq!(letter.raw, entry.as_bytes());
            assert_eq!(letter.revive(true), Err(RequeueError::NoQueue), "{entry}");
        }
    }

    #[test]
    fn what_is_put_back_has_never_been_delivered() {
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
    fn what_nobody_can_run_is_refused_unless_forced() {
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
