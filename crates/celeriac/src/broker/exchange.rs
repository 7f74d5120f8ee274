//! Named exchanges of kombu, through which tasks may be sent to queues.

use regex::Regex;

use super::error::BrokerError;
use crate::{
    log::error,
    message::{DeliveryInfo, Headers, Message},
};

/// Exchange that distributes messages to the queues that are bound to it.
///
/// ```
/// use celeriac::Exchange;
///
/// let reports = Exchange::topic("reports");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Exchange {
    name: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Direct,
    Topic,
    Fanout,
}

impl Exchange {
    /// Creates an exchange that compares the routing keys of messages and bindings.
    pub fn direct(name: impl Into<String>) -> Self {
        Self::new(name, Kind::Direct)
    }

    /// Creates an exchange whose bindings are patterns of words separated by dots: `*` stands for one word, `#`
    /// for any number of words.
    pub fn topic(name: impl Into<String>) -> Self {
        Self::new(name, Kind::Topic)
    }

    /// Creates an exchange that sends each message to every worker that is bound to it at the time, like Celery's
    /// `Broadcast`. A message is not stored until a worker has received it.
    pub fn fanout(name: impl Into<String>) -> Self {
        Self::new(name, Kind::Fanout)
    }

    fn new(name: impl Into<String>, kind: Kind) -> Self {
        let name = name.into();
        Self { name, kind }
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns kombu's name for the type of the exchange.
    pub(crate) fn kind(&self) -> &'static str {
        match self.kind {
            Kind::Direct => "direct",
            Kind::Topic => "topic",
            Kind::Fanout => "fanout",
        }
    }

    pub(crate) fn is_fanout(&self) -> bool {
        self.kind == Kind::Fanout
    }

    /// Returns the binding of a queue to this exchange; for a topic, it has the same regular expression as in kombu.
    pub(crate) fn binding(&self, routing_key: &str, queue: &str) -> Binding {
        let word = |word: &str| match word {
            "*" => r"[^\.]+".to_owned(),
            "#" => ".*?".to_owned(),
            word => escaped(word),
        };
        let pattern = if self.kind == Kind::Topic {
            let words: Vec<String> = routing_key.split('.').map(word).collect();
            format!("^{}$", words.join(r"\."))
        } else {
            String::new()
        };
        Binding {
            routing_key: routing_key.to_owned(),
            pattern,
            queue: queue.to_owned(),
        }
    }
}

/// Escapes a word as kombu does.
fn escaped(word: &str) -> String {
    let mut text = String::with_capacity(word.len());
    for character in word.chars() {
        if !character.is_alphanumeric() && !matches!(character, '#' | '*') {
            text.push('\\');
        }
        text.push(character);
    }
    text
}

/// Binding of a queue to an exchange.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Binding {
    pub routing_key: String,
    /// Regular expression for routing keys; empty for a direct exchange.
    pub pattern: String,
    pub queue: String,
}

impl Binding {
    fn matches(&self, routing_key: &str) -> bool {
        if self.pattern.is_empty() {
            return self.routing_key == routing_key;
        }
        Regex::new(&self.pattern).is_ok_and(|pattern| pattern.is_match(routing_key))
    }
}

/// Returns the queues to which an exchange with these bindings sends a message.
///
/// # Errors
/// Returns an error if no binding matches the routing key.
pub(crate) fn queues<'a>(bindings: &'a [Binding], info: &DeliveryInfo) -> Result<Vec<&'a str>, BrokerError> {
    let bound = bindings
        .iter()
        .filter(|binding| binding.matches(&info.routing_key));
    let mut queues: Vec<&str> = bound.map(|binding| binding.queue.as_str()).collect();
    queues.sort_unstable();
    queues.dedup();
    if queues.is_empty() {
        let (exchange, routing_key) = (&info.exchange, &info.routing_key);
        return Err(BrokerError::Refused {
            cause: format!(
                "no queue is bound to the exchange {exchange:?} with the routing key {routing_key:?}"
            ),
        });
    }
    Ok(queues)
}

/// Logs that a follow-up task was dropped because it cannot be sent.
pub(crate) fn log_dropped(message: &Message, error: &BrokerError) {
    let Headers { id, task, .. } = &message.headers;
    error!(
        messaging.message.id = %id,
        celery.task_name = task,
        %error,
        "dropped a follow-up task that cannot be sent"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_kombu() {
        let topic = Exchange::topic("ex");
        let pattern = |key| topic.binding(key, "q").pattern;
        assert_eq!(pattern("a.#"), r"^a\..*?$");
        assert_eq!(pattern("*.b-c.d"), r"^[^\.]+\.b\-c\.d$");
        assert_eq!(Exchange::direct("ex").binding("a.#", "q").pattern, "");
    }

    #[test]
    fn a_message_goes_once_to_every_queue_bound_to_its_routing_key() {
        let topic = Exchange::topic("ex");
        let bindings = [
            topic.binding("a.*", "q"),
            topic.binding("a.#", "q"),
            topic.binding("#.b", "r"),
            Exchange::direct("ex").binding("a.b", "s"),
            topic.binding("other", "t"),
        ];
        let info = |routing_key: &str| DeliveryInfo {
            routing_key: routing_key.to_owned(),
            ..DeliveryInfo::default()
        };
        assert_eq!(queues(&bindings, &info("a.b")).unwrap(), ["q", "r", "s"]);
        assert_eq!(queues(&bindings, &info("a.b.c")).unwrap(), ["q"]);
        assert!(queues(&bindings, &info("c")).is_err());
    }
}
