//! The names of everything in Redis: Celery's and kombu's, and the few that are ours.

use crate::json;

/// Zset of reserved deliveries; the score is the time of the last renewal. Ours are whole seconds, rounded up: a small
/// zset keeps integers as such, and reads everything else as text at every comparison, a sixth of the server's time.
pub(super) const UNACKED_INDEX: &str = "unacked_index";
/// Hash from delivery tag to `[message, exchange, routing key]`.
pub(super) const UNACKED: &str = "unacked";
/// Zset of kombu 5.7 from exchange to the time (Unix, ms) at which its bindings are forgotten.
pub(super) const BINDING_DEADLINES: &str = "_kombu.binding_deadlines";
/// Ours: zset from worker instance to the time at which it counts as dead.
pub(super) const LEASES: &str = "celeriac.leases";
/// Ours: list of messages that cannot be run, newest first.
pub(super) const DEAD: &str = "celeriac.dead";

/// Ours: hash from periodic task to its last tick.
pub(super) const SCHEDULE: &str = "celeriac.schedule";

/// What kombu puts between a queue's name and its priority.
const SEPARATOR: &str = "\u{6}\u{16}";
/// The lowest priority of each list.
pub(super) const STEPS: [u8; 4] = [0, 3, 6, 9];

/// The list that messages of this priority lie in.
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

/// The set that names the bindings of an exchange; a queue's own exchange has its name.
pub(super) fn binding_key(queue: &str) -> String {
    format!("_kombu.binding.{queue}")
}

/// The queue's binding to the exchange of the same name: routing key, pattern, queue.
pub(super) fn binding(queue: &str) -> String {
    exchange_binding(queue, queue)
}

/// Where a task's result is kept and announced.
pub(super) fn result(id: &str) -> String {
    format!("celery-task-meta-{id}")
}

/// Ours: says that a delivery was acknowledged before its task began, which has not ended yet.
pub(super) fn early(tag: &str) -> String {
    format!("celeriac.early.{tag}")
}

/// What is kept of a group: its structure under no suffix, and for the header of a chord `.j` (results), `.s` (how
/// many), `.t` (how many were added), since Celery 5.7 `.d` (which have returned) and `.c` (who runs the body).
pub(super) fn group(id: &str, suffix: &str) -> String {
    format!("celery-taskset-meta-{id}{suffix}")
}

/// A queue's binding to a named exchange.
pub(super) fn exchange_binding(routing_key: &str, queue: &str) -> String {
    format!("{routing_key}{SEPARATOR}{SEPARATOR}{queue}")
}

/// The channel of a fan-out exchange.
pub(super) fn channel(database: i64, exchange: &str, routing_key: &str) -> String {
    if routing_key.is_empty() {
        format!("/{database}.{exchange}")
    } else {
        format!("/{database}.{exchange}/{routing_key}")
    }
}

/// What stands behind the message in `unacked`: `, "", "<queue>"]`.
pub(super) fn reservation_tail(queue: &str) -> String {
    format!(", \"\", {}]", json::to_string(queue))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_share_lists_as_in_kombu() {
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
