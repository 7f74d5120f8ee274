//! Named exchanges of kombu, through which Celery clients may send tasks to queues.

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
    is_topic: bool,
}

impl Exchange {
    /// Creates an exchange that compares the routing keys of messages and bindings.
    pub fn direct(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            is_topic: false,
        }
    }

    /// Creates an exchange whose bindings are patterns of words separated by dots: `*` stands for one word, `#`
    /// for any number of words.
    pub fn topic(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            is_topic: true,
        }
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the regular expression that kombu matches routing keys with; empty for a direct exchange.
    pub(crate) fn pattern(&self, routing_key: &str) -> String {
        if !self.is_topic {
            return String::new();
        }
        let word = |word: &str| match word {
            "*" => r".*?[^\.]".to_owned(),
            "#" => ".*?".to_owned(),
            word => escaped(word),
        };
        let words: Vec<String> = routing_key.split('.').map(word).collect();
        format!("^{}$", words.join(r"\."))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_kombu() {
        let topic = Exchange::topic("ex");
        assert_eq!(topic.pattern("a.#"), r"^a\..*?$");
        assert_eq!(topic.pattern("*.b-c.d"), r"^.*?[^\.]\.b\-c\.d$");
        assert_eq!(Exchange::direct("ex").pattern("a.#"), "");
    }
}
