//! Settlement of one delivery: results, messages and chords that one script writes. It can be written again
//! if the server has lost it.

use std::collections::HashSet;

use uuid::Uuid;

use super::{
    counter::Counter,
    destination::Destination,
    names::Names,
    script::{Invocation, scripts},
    scripts::{SEND, STORE},
};
use crate::{
    broker::{DeadLetter, Delivery, DeliveryTag, Publication, Settlement},
    json,
    message::mark_redelivered,
    result::ResultMeta,
    task_id::TaskId,
};

/// Suffixes of the keys that a header with the same id may have left behind.
pub(super) const STALE: [&str; 4] = [".c", ".j", ".t", ".d"];

/// Encoded result to store and publish.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StoredResult {
    pub id: TaskId,
    pub text: Vec<u8>,
}

impl StoredResult {
    pub(super) fn new(meta: &ResultMeta) -> Self {
        Self {
            id: meta.task_id.clone(),
            text: meta.encode_stored(),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settling {
    tag: DeliveryTag,
    /// Id of the settled message, if known.
    pub message: Option<u128>,
    /// Time until results and groups expire, in seconds.
    seconds: u64,
    chords: Vec<(String, TaskId)>,
    /// Chords whose parts stay until they expire.
    failed_chords: Vec<String>,
    steps: Vec<Step>,
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Stores and publishes a result.
    Result {
        result: StoredResult,
        /// Whether the result may replace a final one other than `SUCCESS`.
        replaces: bool,
    },
    Chord {
        group: String,
        size: u64,
    },
    Group {
        group: String,
        structure: String,
    },
    Message {
        destination: Destination,
        raw: String,
    },
    /// Adds an encoded dead letter.
    DeadLetter(String),
}

impl Settling {
    /// Creates a settlement that only acknowledges the delivery of a message with this id.
    pub(super) fn new(tag: DeliveryTag, message: Option<u128>, seconds: u64) -> Self {
        Self {
            tag,
            message,
            seconds,
            chords: Vec::new(),
            failed_chords: Vec::new(),
            steps: Vec::new(),
        }
    }

    /// Sets the chords whose headers the task has completed, and those of them that fail.
    pub(super) fn chords(mut self, chords: &[(String, TaskId)], failed: &[String]) -> Self {
        self.chords = chords.to_vec();
        self.failed_chords = failed.to_vec();
        self
    }

    /// Adds the results of a settlement.
    pub(super) fn add_results(&mut self, settlement: &Settlement) {
        for meta in &settlement.results {
            self.add_result(meta, true);
        }
        for meta in &settlement.skipped {
            self.add_result(meta, false);
        }
    }

    /// Adds the groups and chord headers of a publication.
    pub(super) fn add_groups(&mut self, publication: &Publication) {
        for (group, size) in &publication.chord_sizes {
            self.add_chord(group, *size);
        }
        for (group, structure) in &publication.groups {
            self.add_group(group, json::to_string(structure));
        }
    }

    /// Adds a result: of the settled task (`own`), or of a task that can no longer run.
    pub(super) fn add_result(&mut self, meta: &ResultMeta, own: bool) {
        self.steps.push(Step::Result {
            result: StoredResult::new(meta),
            replaces: own && meta.status.is_final(),
        });
    }

    pub(super) fn add_stored(&mut self, result: StoredResult) {
        self.steps.push(Step::Result {
            result,
            replaces: true,
        });
    }

    fn add_chord(&mut self, group: &str, size: u64) {
        let group = group.to_owned();
        self.steps.push(Step::Chord { group, size });
    }

    pub(super) fn add_group(&mut self, group: &str, structure: String) {
        let group = group.to_owned();
        self.steps.push(Step::Group { group, structure });
    }

    pub(super) fn add_message(&mut self, destination: Destination, raw: String) {
        self.steps.push(Step::Message { destination, raw });
    }

    /// Adds the message of the delivery to the dead-letter list, if the settlement asks for it.
    pub(super) fn add_dead_letter(&mut self, delivery: &Delivery, settlement: &Settlement) {
        if let Some(reason) = &settlement.dead_letter {
            let letter = DeadLetter::encode(&delivery.queue, &delivery.raw, reason);
            self.steps.push(Step::DeadLetter(letter));
        }
    }

    /// Returns the size of the texts.
    pub(super) fn bytes(&self) -> usize {
        let chords = self
            .chords
            .iter()
            .map(|(group, part)| group.len() + part.as_str().len());
        let steps = self.steps.iter().map(|step| match step {
            Step::Result { result, .. } => result.id.as_str().len() + result.text.len(),
            Step::Chord { group, .. } => group.len(),
            Step::Group { group, structure } => group.len() + structure.len(),
            Step::Message { destination, raw } => destination.name().len() + raw.len(),
            Step::DeadLetter(letter) => letter.len(),
        });
        self.tag.as_str().len() + chords.chain(steps).sum::<usize>()
    }

    /// Returns the script that writes the settlement if the delivery is held or, with `again`, even if it is
    /// not: the server has lost an earlier write. Messages are then marked as redelivered, so that they do
    /// not run if their tasks have ended, and messages whose ids `again` contains are not sent.
    pub(super) fn script(
        &self,
        names: &Names,
        counter: &Counter,
        again: Option<&HashSet<u128>>,
    ) -> Invocation<'static> {
        let mut script = Invocation::on_delivery(&SETTLE, names, &self.tag);
        script
            .key(names.acked_early(&self.tag))
            .key(&*counter.key)
            .arg(self.chords.len())
            .arg(self.seconds)
            .arg(&*counter.server)
            .arg(if again.is_some() { "again" } else { "" });
        for (group, part) in &self.chords {
            let keys = [".c", ".j", ".t", ".s", ".d"].map(|suffix| names.group(group, suffix));
            let kept = self.failed_chords.contains(group);
            script.key(&keys).arg(part.as_str()).arg(u8::from(kept));
        }
        for step in &self.steps {
            match step {
                Step::Result { result, replaces } => {
                    let kind = if *replaces { "result" } else { "unless final" };
                    script.key(names.result(&result.id)).arg(kind).arg(&result.text);
                }
                Step::Chord { group, size } => {
                    let keys = STALE.map(|suffix| names.group(group, suffix));
                    script.key(&keys).key(names.group(group, ".s"));
                    script.arg("chord").arg(*size);
                }
                Step::Group { group, structure } => {
                    script.key(names.group(group, "")).arg("group").arg(structure);
                }
                Step::Message { destination, raw } => {
                    let received = |known: &HashSet<u128>| {
                        message_id(raw.as_bytes()).is_some_and(|id| known.contains(&id))
                    };
                    if again.is_some_and(received) {
                        continue;
                    }
                    let marked = again.and_then(|_| mark_redelivered(raw.as_bytes()));
                    script.arg("message");
                    script.message(names, destination, marked.as_ref().unwrap_or(raw));
                }
                Step::DeadLetter(letter) => {
                    script.key(&names.dead).arg("dead letter").arg(letter);
                }
            }
        }
        script
    }
}

/// Number of bytes at the end of a message in which its id is searched for.
const ID_SEARCHED: usize = 256;

/// Returns the id of a message, which is its original delivery tag, or `None` if the tag is not a UUID at the
/// end of the message, where kombu and this crate write it. A redelivery does not change the id.
pub(super) fn message_id(raw: &[u8]) -> Option<u128> {
    const NAME: &[u8] = br#""delivery_tag": ""#;
    let end = &raw[raw.len().saturating_sub(ID_SEARCHED)..];
    let found = end.windows(NAME.len()).rposition(|window| window == NAME)?;
    let value = end.get(found + NAME.len()..)?;
    let text = value.get(..value.iter().position(|byte| *byte == b'"')?)?;
    Uuid::try_parse_ascii(text).ok().map(|id| id.as_u128())
}

/// Returns whether the publication has groups or chord headers.
pub(super) fn has_groups(publication: &Publication) -> bool {
    let Publication {
        chord_sizes,
        chord_additions,
        groups,
        ..
    } = publication;
    !(chord_sizes.is_empty() && chord_additions.is_empty() && groups.is_empty())
}

/// Adds the commands that store the groups and chord headers of a publication.
pub(super) fn add_groups(
    pipeline: &mut redis::Pipeline,
    names: &Names,
    publication: &Publication,
    seconds: u64,
) {
    for (group, size) in &publication.chord_sizes {
        let stale = STALE.map(|suffix| names.group(group, suffix));
        pipeline.del(&stale).ignore();
        pipeline.set_ex(names.group(group, ".s"), size, seconds).ignore();
    }
    for (group, added) in &publication.chord_additions {
        let key = names.group(group, ".t");
        pipeline.incr(&key, *added).ignore();
        pipeline.cmd("EXPIRE").arg(key).arg(seconds).ignore();
    }
    for (group, structure) in &publication.groups {
        let structure = json::to_string(structure);
        pipeline
            .set_ex(names.group(group, ""), structure, seconds)
            .ignore();
    }
}

/// Reply of [`SETTLE`] if the delivery is not held.
pub(super) const NOT_HELD: i64 = -1;
/// Reply of [`SETTLE`] if another worker has claimed a chord.
pub(super) const CHORD_TAKEN: i64 = -2;

scripts! {
    /// Settles a delivery and applies the steps, if the delivery is still held, or if they are written again.
    ///
    /// KEYS: unacked_index, unacked, acked-early, writes, then for each chord .c, .j, .t, .s, .d, then the
    /// keys of the steps. ARGV: delivery tag, number of chords, seconds to keep, identity of the server,
    /// `again` or an empty string, then for each chord the claim and whether its parts are kept, then for
    /// each step its kind and arguments. Returns the number of the write, -1 (not held), or -2 (a claim is
    /// lost).
    SETTLE = &[STORE, SEND, r"
local again = ARGV[5] == 'again'
if not again and redis.call('HEXISTS', KEYS[2], ARGV[1]) + redis.call('EXISTS', KEYS[3]) == 0 then return -1 end
local chords = tonumber(ARGV[2])
for i = 1, chords do
    local claim = redis.call('GET', KEYS[i * 5])
    if claim and claim ~= ARGV[i * 2 + 4] then return -2 end
    if not claim and not again and redis.call('EXISTS', KEYS[i * 5 + 3]) == 0 then return -2 end
end
for i = 1, chords do
    local first = i * 5
    if ARGV[i * 2 + 5] == '0' then
        redis.call('DEL', KEYS[first + 1], KEYS[first + 2], KEYS[first + 3], KEYS[first + 4])
    end
    redis.call('SET', KEYS[first], 'done', 'EX', ARGV[3])
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('DEL', KEYS[3])
local key, arg = 5 + chords * 5, 6 + chords * 2
while ARGV[arg] do
    if ARGV[arg] == 'message' then
        send(KEYS[key], KEYS[key + 1], ARGV[arg + 1], ARGV[arg + 2])
        key, arg = key + 2, arg + 3
    elseif ARGV[arg] == 'chord' then
        redis.call('DEL', KEYS[key], KEYS[key + 1], KEYS[key + 2], KEYS[key + 3])
        redis.call('SETEX', KEYS[key + 4], ARGV[3], ARGV[arg + 1])
        key, arg = key + 5, arg + 2
    else
        if ARGV[arg] == 'result' then
            store(KEYS[key], ARGV[3], ARGV[arg + 1])
        elseif ARGV[arg] == 'unless final' then
            store_unless_final(KEYS[key], ARGV[3], ARGV[arg + 1])
        elseif ARGV[arg] == 'dead letter' then
            redis.call('LPUSH', KEYS[key], ARGV[arg + 1])
        else
            redis.call('SETEX', KEYS[key], ARGV[3], ARGV[arg + 1])
        end
        key, arg = key + 1, arg + 2
    end
end
return redis.call('HINCRBY', KEYS[4], ARGV[4], 1)
"].concat();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redelivered_message_has_the_same_id() {
        let raw = include_str!("../../tests/vectors/message.json").trim();
        let id = message_id(raw.as_bytes()).unwrap();
        let marked = mark_redelivered(raw.as_bytes()).unwrap();
        assert_eq!(message_id(marked.as_bytes()), Some(id));
        assert_eq!(message_id(b"{}"), None);
        assert_eq!(message_id(br#"{"delivery_tag": "1"}"#), None);
        assert_eq!(message_id(br#"{"delivery_tag": "1"#), None);
    }
}
