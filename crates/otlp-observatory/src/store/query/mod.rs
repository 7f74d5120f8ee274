//! Query language of searches, such as `service=a !name~health status>=500 dur>100ms`. [`parse`] creates an
//! expression, which the matchers evaluate for the spans of a trace or for a log record. API.md documents the
//! language.

mod expression;
mod lexer;
mod parser;
mod records;
mod spans;
#[cfg(test)]
mod tests;
mod values;

pub(crate) use expression::{Query, Subject};
pub(crate) use parser::parse;
pub(super) use records::RecordMatcher;
pub(super) use spans::SpanMatcher;
pub(crate) use values::Completions;
pub(super) use values::{complete_records, complete_spans};
