//! Names of all keys and channels in Redis: Celery's, kombu's, and the few that this crate adds.
//!
//! As in kombu, prefixes apply to keys and channels, and results have a separate prefix.

use std::time::Duration;

use super::config::RedisConfig;
use crate::{
    broker::{Binding, DeliveryTag},
    json,
};

/// Separator between the random part of an instance and the length of its lease in milliseconds.
const LEASE_LENGTH: char = '~';
/// Highest priority of a message in kombu.
const MAX_PRIORITY: u8 = 9;

/// Returns the name of a new instance, from which other workers learn the length of its lease.
pub(super) fn instance(id: &str, lease: Duration) -> String {
    format!("{id}{LEASE_LENGTH}{}", lease.as_millis())
}

/// Returns the length of an instance's lease, or `None` for an instance of an earlier release.
pub(super) fn lease_of(instance: &str) -> Option<Duration> {
    let (_, milliseconds) = instance.rsplit_once(LEASE_LENGTH)?;
    milliseconds.parse().ok().map(Duration::from_millis)
}

/// Prefix of the tags of postponed deliveries.
pub(super) const LATER: &str = "celeriac.later.";

/// Returns the tag of a postponed delivery.
pub(super) fn later_tag(task_id: &str) -> String {
    format!("{LATER}{task_id}")
}

/// Returns the text that follows the message in a reservation: `, "", "<queue>"]`.
pub(super) fn reservation_tail(queue: &str) -> String {
    format!(", \"\", {}]", json::to_string(queue))
}

/// Names that depend on the settings of a broker handle.
#[derive(Debug)]
pub(super) struct Names {
    prefix: String,
    /// Prefix of the keys that store results, and prefix of those that store groups.
    results: String,
    groups: String,
    /// kombu's separator between a queue's name and its priority, and between the parts of a binding.
    separator: String,
    /// Lowest priority of each list of a queue, ascending.
    pub steps: Vec<u8>,
    /// Sorted set of reserved deliveries; the score is the time of the last renewal.
    ///
    /// This crate writes whole seconds, rounded up: a small sorted set stores integers in binary form and other
    /// scores as text, and parsing text for every comparison took a sixth of the server's time.
    pub unacked_index: String,
    /// Hash of delivery tag to `[message, exchange, routing key]`.
    pub unacked: String,
    /// Sorted set of kombu 5.7: exchange to the time (Unix, in milliseconds) at which its bindings expire.
    pub binding_deadlines: String,
    /// Sorted set of this crate: worker instance to the time (Unix, in seconds) at which its lease expires.
    pub leases: String,
    /// Sorted set of this crate: ids of revoked tasks; the score is the time (Unix, in seconds) of their revocation.
    pub revoked: String,
    /// Set of this crate: lists that have had postponed deliveries.
    pub later_lists: String,
    /// List of this crate: messages that cannot be run, newest first.
    pub dead: String,
    /// Hash of this crate: periodic task to its last tick.
    pub schedule: String,
}

impl Names {
    pub(super) fn new(config: &RedisConfig) -> Self {
        let prefix = &config.key_prefix;
        let key = |name| format!("{prefix}{name}");
        let results = config.result_prefix();
        Self {
            results: format!("{results}celery-task-meta-"),
            groups: format!("{results}celery-taskset-meta-"),
            separator: config.separator.clone(),
            steps: config.priority_steps.clone(),
            unacked_index: key("unacked_index"),
            unacked: key("unacked"),
            binding_deadlines: key("_kombu.binding_deadlines"),
            leases: key("celeriac.leases"),
            revoked: key("celeriac.revoked"),
            later_lists: key("celeriac.later"),
            dead: key("celeriac.dead"),
            schedule: key("celeriac.schedule"),
            prefix: prefix.clone(),
        }
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Returns one key of each kind, to find out which of them an account may not access.
    pub(super) fn examples(&self) -> Vec<String> {
        let mut examples = ["celery", "unacked_mutex", "_kombu.binding.celery"]
            .map(|name| self.key(name))
            .to_vec();
        examples.extend([&self.unacked, &self.unacked_index, &self.leases, &self.dead].map(String::clone));
        examples.extend([self.result("example"), self.group("example", "")]);
        examples
    }

    /// Returns the hash of an instance that numbers its writes for each run of a server. Only this crate uses it.
    pub(super) fn writes(&self, instance: &str) -> String {
        self.key(&format!("celeriac.writes.{instance}"))
    }

    /// Returns the key that stores the length of a publication log. Only this crate uses it.
    pub(super) fn publication_log(&self, id: &str) -> String {
        self.key(&format!("celeriac.log.{id}"))
    }

    /// Returns the list of `queue` for messages of this priority.
    pub(super) fn list(&self, queue: &str, priority: u8) -> String {
        let priority = priority.min(MAX_PRIORITY);
        let reached = self.steps.partition_point(|step| *step <= priority);
        // As in kombu, a priority below all steps uses the last step.
        let step = reached
            .checked_sub(1)
            .map_or_else(|| self.steps.last(), |index| self.steps.get(index));
        match step {
            None | Some(0) => self.key(queue),
            Some(step) => format!("{}{queue}{}{step}", self.prefix, self.separator),
        }
    }

    /// Returns the lists of `queue`, in the order in which they are consumed.
    pub(super) fn lists(&self, queue: &str) -> impl Iterator<Item = String> {
        self.steps.iter().map(move |step| self.list(queue, *step))
    }

    /// Returns the sorted set of a list's postponed deliveries; the scores are the times (Unix, in seconds) at which
    /// their tasks are due. Only this crate uses it.
    pub(super) fn later(&self, list: &str) -> String {
        self.key(&format!("{LATER}{list}"))
    }

    /// Returns the key of the bindings of an exchange. The exchange of a queue has the queue's name.
    pub(super) fn binding_key(&self, exchange: &str) -> String {
        self.key(&format!("_kombu.binding.{exchange}"))
    }

    /// Returns kombu 5.7's set of those bindings of an exchange that do not expire.
    pub(super) fn permanent_binding_key(&self, exchange: &str) -> String {
        self.key(&format!("_kombu.binding_permanent.{exchange}"))
    }

    /// Returns the binding of a queue to the exchange of the same name: routing key, pattern, queue.
    pub(super) fn binding(&self, queue: &str) -> String {
        self.exchange_binding(queue, queue)
    }

    /// Returns the binding of a queue to a named exchange without patterns.
    pub(super) fn exchange_binding(&self, routing_key: &str, queue: &str) -> String {
        [routing_key, "", queue].join(&self.separator)
    }

    /// Returns a binding as text.
    pub(super) fn binding_text(&self, binding: &Binding) -> String {
        let Binding {
            routing_key,
            pattern,
            queue,
        } = binding;
        [routing_key.as_str(), pattern, queue].join(&self.separator)
    }

    /// Reads a binding.
    pub(super) fn read_binding(&self, text: &str) -> Option<Binding> {
        let mut parts = text.split(&self.separator).map(str::to_owned);
        Some(Binding {
            routing_key: parts.next()?,
            pattern: parts.next()?,
            queue: parts.next()?,
        })
    }

    /// Returns the channel of a fan-out exchange.
    pub(super) fn channel(&self, database: i64, exchange: &str, routing_key: &str) -> String {
        let slash = if routing_key.is_empty() { "" } else { "/" };
        self.key(&format!("/{database}.{exchange}{slash}{routing_key}"))
    }

    /// Returns the key that stores a task's result, which is also the channel that announces it.
    pub(super) fn result(&self, id: &str) -> String {
        format!("{}{id}", self.results)
    }

    /// Returns the id of the task whose result this channel announces.
    pub(super) fn task_of<'a>(&self, channel: &'a str) -> Option<&'a str> {
        channel.strip_prefix(&self.results)
    }

    /// Returns the key that marks a delivery as acknowledged before its task started, until the task finishes.
    /// Only this crate uses it.
    pub(super) fn acked_early(&self, tag: &DeliveryTag) -> String {
        self.key(&format!("celeriac.early.{tag}"))
    }

    /// Returns a key of a group.
    ///
    /// Without a suffix, the key stores the structure of the group. The keys of a chord's header have the
    /// suffixes `.j` (results), `.s` (size) and `.t` (number added later), and since Celery 5.7 also `.d`
    /// (finished tasks) and `.c` (claim on the body).
    pub(super) fn group(&self, id: &str, suffix: &str) -> String {
        format!("{}{id}{suffix}", self.groups)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(config: RedisConfig) -> Names {
        Names::new(&config)
    }

    fn config() -> RedisConfig {
        RedisConfig::new("redis://localhost/0")
    }

    #[test]
    fn an_instance_tells_the_length_of_its_lease() {
        let instance = instance("5e6f", Duration::from_millis(6500));
        assert_eq!(lease_of(&instance), Some(Duration::from_millis(6500)));
        assert_eq!(lease_of("bfdd5872-fa2e-40ae-9f05-f9e43e9553b6"), None);
    }

    #[test]
    fn names_match_kombu() {
        let names = names(config());
        let lists: Vec<_> = (0..=10).map(|priority| names.list("q", priority)).collect();
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
        assert_eq!(names.binding("celery"), "celery\x06\x16\x06\x16celery");
        assert_eq!(
            names.channel(3, "celeryev", "worker.online"),
            "/3.celeryev/worker.online"
        );
        assert_eq!(names.channel(0, "celery.pidbox", ""), "/0.celery.pidbox");
        assert_eq!(
            names.exchange_binding("", "a@b.celery.pidbox"),
            "\x06\x16\x06\x16a@b.celery.pidbox"
        );
    }

    #[test]
    fn transport_options_change_names_as_in_kombu() {
        let names = names(
            config()
                .key_prefix("x:")
                .result_key_prefix("results")
                .priority_steps([2, 5])
                .separator(":"),
        );
        let lists = [0, 2, 4, 5, 9].map(|priority| names.list("q", priority));
        assert_eq!(lists, ["x:q:5", "x:q:2", "x:q:2", "x:q:5", "x:q:5"]);
        assert_eq!(names.later("x:q"), "x:celeriac.later.x:q");
        assert_eq!(Vec::from_iter(names.lists("q")), ["x:q:2", "x:q:5"]);
        assert_eq!(names.binding_key("q"), "x:_kombu.binding.q");
        assert_eq!(names.binding("q"), "q::q");
        assert_eq!(names.channel(0, "celeryev", "a"), "x:/0.celeryev/a");
        assert_eq!(names.unacked, "x:unacked");
        assert_eq!(names.result("1"), "results_celery-task-meta-1");
        assert_eq!(names.task_of("results_celery-task-meta-1"), Some("1"));
        assert_eq!(names.group("1", ".j"), "results_celery-taskset-meta-1.j");
    }
}
