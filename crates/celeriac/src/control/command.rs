//! Remote control commands as kombu's mailbox encodes them, and the selection of the workers they address.

use regex::RegexBuilder;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::broker::ReplyTo;

/// Exchange of remote control commands, to which every worker listens.
pub(crate) const EXCHANGE: &str = "celery.pidbox";
/// Exchange of the replies.
pub(crate) const REPLY_EXCHANGE: &str = "reply.celery.pidbox";

/// Maximum size of a compiled pattern, in bytes.
const MAX_PATTERN_SIZE: usize = 1 << 18;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Command {
    pub method: String,
    #[serde(default)]
    pub arguments: Option<Map<String, Value>>,
    /// Names of the addressed workers; `None` or an empty list addresses all workers.
    #[serde(default)]
    pub destination: Option<Vec<String>>,
    #[serde(default)]
    pub pattern: Option<String>,
    #[serde(default)]
    pub matcher: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<ReplyTo>,
}

impl Command {
    /// Returns whether the command addresses this worker.
    pub(crate) fn is_for(&self, node: &str) -> bool {
        match (&self.destination, &self.pattern, &self.matcher) {
            (Some(nodes), ..) if !nodes.is_empty() => nodes.iter().any(|name| name == node),
            (_, Some(pattern), Some(matcher)) => matches(node, pattern, matcher),
            _ => true,
        }
    }
}

/// Returns whether the name matches as in kombu: a `glob` pattern must match the whole name, a `pcre` pattern
/// its beginning.
fn matches(node: &str, pattern: &str, matcher: &str) -> bool {
    let expression = match matcher {
        "glob" => glob_to_regex(pattern),
        "pcre" => format!("^(?:{pattern})"),
        _ => return false,
    };
    RegexBuilder::new(&expression)
        .size_limit(MAX_PATTERN_SIZE)
        .build()
        .is_ok_and(|expression| expression.is_match(node))
}

/// Translates a shell pattern into a regular expression.
fn glob_to_regex(pattern: &str) -> String {
    let mut expression = String::from("(?s)^");
    let mut rest = pattern.chars();
    while let Some(character) = rest.next() {
        match character {
            '*' => expression.push_str(".*"),
            '?' => expression.push('.'),
            '[' => match class(rest.as_str()) {
                Some((class, length)) => {
                    expression.push_str(&class);
                    rest = rest.as_str()[length..].chars();
                }
                None => expression.push_str("\\["),
            },
            other => expression.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    expression.push('$');
    expression
}

/// Reads a character class from the text after its `[`, such as `a-z]...` or `!a]...`. Returns the class as a
/// regular expression and its length in the pattern, in bytes.
fn class(rest: &str) -> Option<(String, usize)> {
    let negated = rest.starts_with('!');
    let start = usize::from(negated);
    // A closing bracket in the first position is a member of the class.
    let first = rest.get(start..)?.chars().next()?.len_utf8();
    let end = start + first + rest.get(start + first..)?.find(']')?;
    let mut class = String::from(if negated { "[^" } else { "[" });
    for member in rest[start..end].chars() {
        if !member.is_alphanumeric() && member != '-' {
            class.push('\\');
        }
        class.push(member);
    }
    class.push(']');
    Some((class, end + 1))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_command_addresses_the_workers_it_names_or_all() {
        let command = |fields: Value| -> Command { serde_json::from_value(fields).unwrap() };
        let cases = [
            (json!({"method": "ping"}), true),
            (
                json!({"method": "ping", "arguments": null, "destination": []}),
                true,
            ),
            (
                json!({"method": "ping", "destination": ["a@b", "celery@vm"]}),
                true,
            ),
            (json!({"method": "ping", "destination": ["a@b"]}), false),
            (json!({"method": "ping", "pattern": "a*", "matcher": null}), true),
            (
                json!({"method": "ping", "pattern": "a*", "matcher": "glob"}),
                false,
            ),
            (
                json!({"method": "ping", "pattern": "a*", "matcher": "none such"}),
                false,
            ),
        ];
        for (fields, expected) in cases {
            assert_eq!(command(fields.clone()).is_for("celery@vm"), expected, "{fields}");
        }
    }

    #[test]
    fn patterns_match_as_in_python() {
        let cases = [
            ("glob", "celery@*", true),
            ("glob", "celery", false),
            ("glob", "c?lery@v[a-n]", true),
            ("glob", "c?lery@v[!a-n]", false),
            ("glob", "celery@v[]m]", true),
            ("glob", "celery@v[m", false),
            ("glob", "celery.vm", false),
            ("pcre", "cel.+@", true),
            ("pcre", "lery", false),
            ("pcre", "(", false),
            ("pcre", "a{1000}{1000}{1000}", false),
        ];
        for (matcher, pattern, expected) in cases {
            assert_eq!(
                matches("celery@vm", pattern, matcher),
                expected,
                "{matcher} {pattern}"
            );
        }
    }
}
