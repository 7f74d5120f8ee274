//! Names of all keys and channels in Redis: Celery's, kombu's, and the few that this crate adds.

use std::time::Duration;

use crate::{broker::DeliveryTag, json};

/// Sorted set of reserved deliveries; the score is the time of the last renewal.
///
/// This crate writes whole seconds, rounded up: a small sorted set stores integers in binary form and other
/// scores as text, and parsing text for every comparison took a sixth of the server's time.
pub(super) const UNACKED_INDEX: &str = "unacked_index";
/// Hash of delivery tag to `[message, exchange, routing key]`.
pub(super) const UNACKED: &str = "unacked";
/// Sorted set of kombu 5.7: exchange to the time (Unix, in milliseconds) at which its bindings expire.
pub(super) const BINDING_DEADLINES: &str = "_kombu.binding_deadlines";
/// Sorted set of this crate: worker instance to the time (Unix, in seconds) at which its lease expires.
pub(super) const LEASES: &str = "celeriac.leases";
/// Separator between the random part of an instance and the length of its lease in milliseconds.
const LEASE_LENGTH: char = '~';
/// List of this crate: messages that cannot be run, newest first.
pub(super) const DEAD: &str = "celeriac.dead";

/// Hash of this crate: periodic task to its last tick.
pub(super) const SCHEDULE: &str = "celeriac.schedule";

/// Returns the hash of an instance that numbers its writes for each run of a server. Only this crate uses it.
pub(super) fn writes(instance: &str) -> String {
    format!("celeriac.writes.{instance}")
}

/// Returns the name of a new instance, from which other workers learn the length of its lease.
pub(super) fn instance(id: &str, lease: Duration) -> String {
    format!("{id}{LEASE_LENGTH}{}", lease.as_millis())
}

/// Returns the length of an instance's lease, or `None` for an instance of an earlier release.
pub(super) fn lease_of(instance: &str) -> Option<Duration> {
    let (_, milliseconds) = instance.rsplit_once(LEASE_LENGTH)?;
    milliseconds.parse().ok().map(Duration::from_millis)
}

/// One key of each kind, to find out which of them an account may not access.
pub(super) const EXAMPLES: [&str; 9] = [
    "celery",
    UNACKED,
    UNACKED_INDEX,
    "unacked_mutex",
    "_kombu.binding.celery",
    "celery-task-meta-example",
    "celery-taskset-meta-example",
    LEASES,
    DEAD,
];

/// Returns the key that stores the length of a publication log. Only this crate uses it.
pub(super) fn publication_log(id: &str) -> String {
    format!("celeriac.log.{id}")
}

/// Hash of this crate: list with postponed deliveries to its queue.
pub(super) const LATER_LISTS: &str = "celeriac.later";
/// Start of the tags of postponed deliveries, and of the sorted sets of this crate that contain these tags with
/// the time (Unix, in seconds) at which their tasks are due.
pub(super) const LATER: &str = "celeriac.later.";

/// Returns the sorted set of the postponed deliveries of a list.
pub(super) fn later(list: &str) -> String {
    format!("{LATER}{list}")
}

/// Returns the tag of a postponed delivery.
pub(super) fn later_tag(task_id: &str) -> String {
    format!("{LATER}{task_id}")
}

/// Separator between a queue's name and its priority in kombu.
const SEPARATOR: &str = "\u{6}\u{16}";
/// Lowest priority of each list of a queue.
pub(super) const STEPS: [u8; 4] = [0, 3, 6, 9];

/// Returns the list of `queue` for messages of this priority.
pub(super) fn list(queue: &str, priority: u8) -> String {
    let step = STEPS
        .iter()
        .rev()
        .find(|step| **step <= priority)
        .copied()
        .unwrap_or(0);
    if step == 0 {
        queue.to_owned()
    } else {
        format!("{queue}{SEPARATOR}{step}")
    }
}

/// Returns the key of the bindings of an exchange. The exchange of a queue has the queue's name.
pub(super) fn binding_key(exchange: &str) -> String {
    format!("_kombu.binding.{exchange}")
}

/// Returns the binding of a queue to the exchange of the same name: routing key, pattern, queue.
pub(super) fn binding(queue: &str) -> String {
    exchange_binding(queue, queue)
}

/// Start of the keys that store results.
const RESULT: &str = "celery-task-meta-";

/// Returns the key that stores a task's result, which is also the channel that announces it.
pub(super) fn result(id: &str) -> String {
    format!("{RESULT}{id}")
}

/// Returns the id of the task whose result this channel announces.
pub(super) fn task_of(channel: &str) -> Option<&str> {
    channel.strip_prefix(RESULT)
}

/// Returns the key that marks a delivery as acknowledged before its task started, until the task finishes.
/// Only this crate uses it.
pub(super) fn acked_early(tag: &DeliveryTag) -> String {
    format!("celeriac.early.{tag}")
}

/// Returns a key of a group.
///
/// Without a suffix, the key stores the structure of the group. The keys of a chord's header have the
/// suffixes `.j` (results), `.s` (size) and `.t` (number added later), and since Celery 5.7 also `.d`
/// (finished tasks) and `.c` (claim on the body).
pub(super) fn group(id: &str, suffix: &str) -> String {
    format!("celery-taskset-meta-{id}{suffix}")
}

/// Returns the binding of a queue to a named exchange.
pub(super) fn exchange_binding(routing_key: &str, queue: &str) -> String {
    pattern_binding(routing_key, "", queue)
}

/// Returns the binding of a queue to a named exchange, with the pattern of a topic exchange.
pub(super) fn pattern_binding(routing_key: &str, pattern: &str, queue: &str) -> String {
    format!("{routing_key}{SEPARATOR}{pattern}{SEPARATOR}{queue}")
}

/// Returns the channel of a fan-out exchange.
pub(super) fn channel(database: i64, exchange: &str, routing_key: &str) -> String {
    if routing_key.is_empty() {
        format!("/{database}.{exchange}")
    } else {
        format!("/{database}.{exchange}/{routing_key}")
    }
}

/// Returns the text that follows the message in a reservation: `, "", "<queue>"]`.
pub(super) fn reservation_tail(queue: &str) -> String {
    format!(", \"\", {}]", json::to_string(queue))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_tells_the_length_of_its_lease() {
        let instance = instance("5e6f", Duration::from_millis(6500));
        assert_eq!(lease_of(&instance), Some(Duration::from_millis(6500)));
        assert_eq!(lease_of("bfdd5872-fa2e-40ae-9f05-f9e43e9553b6"), None);
    }

    #[test]
    fn names_match_kombu() {
        let lists: Vec<_> = (0..=10).map(|priority| list("q", priority)).collect();
        let expected = [
            "q",
            "q",
            "q",
            "q\x06\x163",
            "q\x06\x163",
            "q\x06\x163",
            "q\x06\x166",
            "q\x06\x166",
        ];
        assert_eq!(lists[..8], expected);
        assert_eq!(lists[8..], ["q\x06\x166", "q\x06\x169", "q\x06\x169"]);
        assert_eq!(binding("celery"), "celery\x06\x16\x06\x16celery");
        assert_eq!(
            channel(3, "celeryev", "worker.online"),
            "/3.celeryev/worker.online"
        );
        assert_eq!(channel(0, "celery.pidbox", ""), "/0.celery.pidbox");
        assert_eq!(
            exchange_binding("", "a@b.celery.pidbox"),
            "\x06\x16\x06\x16a@b.celery.pidbox"
        );
    }
}
