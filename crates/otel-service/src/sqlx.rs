//! Statements of sqlx. sqlx offers no hooks, but logs each statement with its duration when the statement ends, in the
//! span that executed it. This event becomes a client span and a measurement, regardless of `RUST_LOG`. It does not
//! tell whether the statement failed.

use std::fmt::Debug;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanKind, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use otlp_recorder::SpanStart;
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata};

use crate::db;
use crate::recorder::OWN;

/// Target of the events.
pub(crate) const TARGET: &str = "sqlx::query";

/// Whether `metadata` belongs to statements of sqlx.
pub(crate) fn is_statement(metadata: &Metadata<'_>) -> bool {
    metadata.target() == TARGET
}

/// Records the statement of `event`. `system` is its `db.system.name`.
pub(crate) fn record(event: &Event<'_>, system: &'static str) {
    let mut statement = Statement::default();
    event.record(&mut statement);
    let end = SystemTime::now();
    let elapsed = Duration::try_from_secs_f64(statement.elapsed_secs).unwrap_or_default();
    let text = match statement.text.trim() {
        // A short statement is its own summary.
        "" => statement.summary.trim(),
        text => text,
    };
    let text = without_literals(text);
    let (operation, collection) = operation_and_collection(&text);
    let mut summary = operation.clone();
    let mut labels = vec![
        KeyValue::new("db.system.name", system),
        KeyValue::new("db.operation.name", operation),
    ];
    if let Some(collection) = collection {
        summary = format!("{summary} {collection}");
        labels.push(KeyValue::new("db.collection.name", collection));
    }
    let start = SpanStart::new(summary.clone(), SpanKind::Client).time(end.checked_sub(elapsed));
    let cx = OWN.start(&Context::current(), start, |into| {
        labels.iter().for_each(|label| into.set(label));
        into.text("db.query.summary", &summary);
        into.text("db.query.text", &text);
        into.number("db.response.returned_rows", statement.rows_returned);
    });
    if let Some(duration) = db::duration() {
        duration.record(elapsed.as_secs_f64(), &labels, cx.span().span_context());
    }
    cx.span().end_with_timestamp(end);
}

#[derive(Debug, Default)]
struct Statement {
    /// First words of the statement.
    summary: String,
    /// The whole text; empty if it is as long as the summary.
    text: String,
    rows_returned: i64,
    elapsed_secs: f64,
}

impl Visit for Statement {
    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "summary" => value.clone_into(&mut self.summary),
            "db.statement" => value.clone_into(&mut self.text),
            _ => {}
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "rows_returned" {
            self.rows_returned = i64::try_from(value).unwrap_or(i64::MAX);
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if field.name() == "elapsed_secs" {
            self.elapsed_secs = value;
        }
    }
}

/// Returns `text` on one line, with `?` in place of literals, which the conventions require for statements that may
/// contain values.
fn without_literals(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let follows_name =
            shown.ends_with(|last: char| last.is_alphanumeric() || matches!(last, '_' | '$' | '?' | '"'));
        match character {
            '\'' => {
                // Two quotes within a literal stand for one.
                while let Some(character) = characters.next() {
                    if character == '\'' && characters.next_if_eq(&'\'').is_none() {
                        break;
                    }
                }
                shown.push('?');
            }
            '0'..='9' if !follows_name => {
                while characters
                    .next_if(|next| next.is_alphanumeric() || *next == '.')
                    .is_some()
                {}
                shown.push('?');
            }
            space if space.is_whitespace() => {
                if !shown.ends_with(' ') {
                    shown.push(' ');
                }
            }
            other => shown.push(other),
        }
    }
    shown
}

/// Returns the first word of a statement, and the table that the statement reads or changes first.
fn operation_and_collection(text: &str) -> (String, Option<String>) {
    let mut words = text.split(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | ',' | ';'));
    let operation = words.next().unwrap_or_default().to_ascii_uppercase();
    let mut words = words.filter(|word| !word.is_empty());
    let is_keyword = |word: &&str| {
        ["FROM", "INTO"]
            .iter()
            .any(|keyword| word.eq_ignore_ascii_case(keyword))
    };
    let collection = match &*operation {
        "UPDATE" => words.next(),
        "SELECT" | "INSERT" | "DELETE" | "REPLACE" | "MERGE" | "WITH" => {
            words.find(is_keyword).and_then(|_| words.next())
        }
        _ => None,
    };
    let collection = collection.map(|name| name.replace(['"', '`', '[', ']'], ""));
    (operation, collection.filter(|name| !name.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_replaced_and_names_and_placeholders_are_kept() {
        for (text, expected) in [
            ("SELECT 1", "SELECT ?"),
            (
                "SELECT a1, $1\n  FROM t2\n WHERE b = 'it''s' AND c > 1.5e3",
                "SELECT a1, $1 FROM t2 WHERE b = ? AND c > ?",
            ),
            (
                "INSERT INTO t VALUES (?, ?1, 'x')",
                "INSERT INTO t VALUES (?, ?1, ?)",
            ),
            ("SELECT 'unfinished", "SELECT ?"),
        ] {
            assert_eq!(without_literals(text), expected, "{text}");
        }
    }

    #[test]
    fn a_statement_has_an_operation_and_often_a_table() {
        for (text, operation, collection) in [
            ("select id from \"orders\" where a = $1", "SELECT", Some("orders")),
            (
                "INSERT INTO shop.orders(item) VALUES (?)",
                "INSERT",
                Some("shop.orders"),
            ),
            ("UPDATE `orders` SET a = ?", "UPDATE", Some("orders")),
            ("DELETE FROM orders;", "DELETE", Some("orders")),
            ("SELECT count(*)", "SELECT", None),
            ("PRAGMA foreign_keys = ON", "PRAGMA", None),
            ("", "", None),
        ] {
            let found = operation_and_collection(text);
            assert_eq!((&*found.0, found.1.as_deref()), (operation, collection), "{text}");
        }
    }
}
