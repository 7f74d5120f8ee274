//! Reads words, quoted texts and operators from the text of a query.

use crate::store::condition::Operator;

/// Reason a query is invalid.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{problem} at character {position}")]
pub(crate) struct QueryError {
    pub(super) problem: String,
    /// Number of the character at which the problem begins; the first is 1.
    pub(super) position: usize,
}

/// Position in the text of a query.
#[derive(Clone, Debug)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    /// Index of the next byte.
    at: usize,
}

/// Word or quoted text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) is_quoted: bool,
    pub(super) at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Returns the index of the next byte that is not a blank.
    pub(super) fn at(&mut self) -> usize {
        self.at = self.text.len() - self.rest().trim_start().len();
        self.at
    }

    pub(super) fn is_at_end(&mut self) -> bool {
        self.at() == self.text.len()
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Creates an error at a byte index.
    pub(super) fn error(&self, at: usize, problem: impl Into<String>) -> QueryError {
        QueryError {
            problem: problem.into(),
            position: self.text[..at].chars().count() + 1,
        }
    }

    /// Whether `symbol` comes next, after blanks.
    pub(super) fn peek(&mut self, symbol: char) -> bool {
        self.at();
        self.rest().starts_with(symbol)
    }

    /// Skips `symbol` if it comes next, after blanks.
    pub(super) fn take(&mut self, symbol: char) -> bool {
        let found = self.peek(symbol);
        if found {
            self.at += symbol.len_utf8();
        }
        found
    }

    /// Whether `keyword` comes next as a word of its own.
    pub(super) fn peek_keyword(&mut self, keyword: &str) -> bool {
        self.at();
        let rest = self.rest();
        let Some((word, after)) = rest.split_at_checked(keyword.len()) else {
            return false;
        };
        word.eq_ignore_ascii_case(keyword)
            && after
                .chars()
                .next()
                .is_none_or(|next| next.is_whitespace() || matches!(next, '(' | ')' | '!'))
            && self.operator_in(after.trim_start()).is_none()
    }

    pub(super) fn take_keyword(&mut self, keyword: &str) -> bool {
        let found = self.peek_keyword(keyword);
        if found {
            self.at += keyword.len();
        }
        found
    }

    fn operator_in(&self, rest: &str) -> Option<Operator> {
        Operator::at_start_of(rest)
    }

    /// Skips an operator that comes next, after blanks.
    pub(super) fn take_operator(&mut self) -> Option<Operator> {
        self.at();
        let operator = self.operator_in(self.rest())?;
        self.at += operator.symbol().len();
        Some(operator)
    }

    /// Reads a key or a text. A bare one ends at a blank, a parenthesis or an operator.
    pub(super) fn key(&mut self) -> Result<Word, QueryError> {
        let at = self.at();
        if let Some(quoted) = self.quoted()? {
            return Ok(quoted);
        }
        let ends = |(start, letter): &(usize, char)| {
            letter.is_whitespace()
                || matches!(letter, '(' | ')')
                || Operator::at_start_of(&self.rest()[*start..]).is_some()
        };
        let length = self.rest().char_indices().find(ends).map(|(start, _)| start);
        Ok(self.word(at, length))
    }

    /// Reads a value. A bare one ends at a blank, or at a closing parenthesis that it did not open.
    pub(super) fn value(&mut self) -> Result<Word, QueryError> {
        let at = self.at();
        if let Some(quoted) = self.quoted()? {
            let next = self.rest().chars().next();
            if next.is_some_and(|next| !next.is_whitespace() && next != ')') {
                return Err(self.error(self.at, "a blank is missing after the quoted value"));
            }
            return Ok(quoted);
        }
        let mut open = 0_usize;
        let ends = |(_, letter): &(usize, char)| {
            let closes = *letter == ')' && open == 0;
            match letter {
                '(' => open += 1,
                ')' => open = open.saturating_sub(1),
                _ => {}
            }
            closes || letter.is_whitespace()
        };
        let length = self.rest().char_indices().find(ends).map(|(start, _)| start);
        Ok(self.word(at, length))
    }

    fn word(&mut self, at: usize, length: Option<usize>) -> Word {
        self.at = length.map_or(self.text.len(), |length| at + length);
        Word {
            text: self.text[at..self.at].to_owned(),
            is_quoted: false,
            at,
        }
    }

    /// Reads a text in quotes, in which a backslash escapes the next character.
    fn quoted(&mut self) -> Result<Option<Word>, QueryError> {
        let at = self.at;
        let mut letters = self.rest().char_indices();
        let Some((_, quote @ ('"' | '\''))) = letters.next() else {
            return Ok(None);
        };
        let mut text = String::new();
        while let Some((index, letter)) = letters.next() {
            if letter == quote {
                self.at = at + index + 1;
                return Ok(Some(Word {
                    text,
                    is_quoted: true,
                    at,
                }));
            }
            let escaped = (letter == '\\').then(|| letters.next()).flatten();
            text.push(escaped.map_or(letter, |(_, escaped)| escaped));
        }
        Err(self.error(at, "this quote is not closed"))
    }
}
