//! The file `.env`: loads its variables into the environment, and remembers their lines for messages.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// The variables of `.env` that were not in the environment before.
#[derive(Debug, Default)]
pub struct Dotenv {
    path: PathBuf,
    /// Line of each variable.
    lines: BTreeMap<String, usize>,
    /// Problems that do not prevent the program from running.
    pub warnings: Vec<String>,
}

/// Error for a file that cannot be used. The message does not quote the file, which may contain secrets.
#[derive(Debug, thiserror::Error)]
pub enum DotenvError {
    #[error(".env: cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(".env: line {line} of {} {problem}", path.display())]
    Line {
        path: PathBuf,
        line: usize,
        problem: &'static str,
    },
}

const NO_ASSIGNMENT: &str = "is not of the form NAME=value";
const UNQUOTED: &str =
    "cannot be parsed; put quotes around a value that contains blanks, quotes or backslashes";
const UNSET: &str = "refers to a variable that is not set; write ${NAME} if the name contains an underscore, and \
                     put single quotes around a value that contains a dollar sign";

impl Dotenv {
    /// Loads `.env` from `folder` or its nearest ancestor that has such a file. Variables of the environment take
    /// precedence.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or a line cannot be parsed.
    pub fn load(folder: &Path) -> Result<Self, DotenvError> {
        let mut paths = folder.ancestors().map(|folder| folder.join(".env"));
        let Some(path) = paths.find(|path| path.is_file()) else {
            return Ok(Self::default());
        };
        let read = |source| DotenvError::Read {
            path: path.clone(),
            source,
        };
        let text = std::fs::read_to_string(&path).map_err(read)?;
        let is_set = |name: &str| std::env::var_os(name).is_some();
        let mut file = Self::parse(&path, &text, is_set)?;
        file.lines.retain(|name, _| !is_set(name));
        match dotenvy::from_read(with_line_feed(&text).as_bytes()) {
            Err(dotenvy::Error::Io(source)) => Err(read(source)),
            // `parse` has reported every other error.
            _ => Ok(file),
        }
    }

    fn parse(path: &Path, text: &str, is_set: impl Fn(&str) -> bool) -> Result<Self, DotenvError> {
        // Written by some editors on Windows.
        let text = &with_line_feed(text.strip_prefix('\u{feff}').unwrap_or(text));
        let (mut lines, mut warnings) = (BTreeMap::new(), Vec::new());
        let lines_read = Cell::new(0);
        let mut read_before = 0;
        for item in dotenvy::from_read_iter(LineReader::new(text, &lines_read)) {
            let skipped = text.lines().skip(read_before);
            let skipped = skipped.take_while(|line| matches!(line.trim().chars().next(), None | Some('#')));
            let start = read_before + skipped.count();
            read_before = lines_read.get();
            let statement: Vec<_> = text.lines().take(read_before).skip(start).collect();
            let problem = match item {
                Err(_) if statement.first().is_none_or(|line| !line.contains('=')) => Some(NO_ASSIGNMENT),
                Err(_) => Some(UNQUOTED),
                Ok(_) => references(&statement.join("\n"))
                    .iter()
                    .any(|name| !is_set(name) && !lines.contains_key(*name))
                    .then_some(UNSET),
            };
            if let Some(problem) = problem {
                return Err(DotenvError::Line {
                    path: path.to_owned(),
                    line: start + 1,
                    problem,
                });
            }
            let Ok((name, _)) = item else { continue };
            match lines.get(&name) {
                Some(first) => warnings.push(format!(
                    "{name} is in lines {first} and {} of {}; the first one applies",
                    start + 1,
                    path.display()
                )),
                None => _ = lines.insert(name, start + 1),
            }
        }
        Ok(Self {
            path: path.to_owned(),
            lines,
            warnings,
        })
    }

    /// Returns the place of a variable's value, for messages; `None` if the value is not from the file.
    #[must_use]
    pub fn place(&self, variable: &str) -> Option<String> {
        let line = self.lines.get(variable)?;
        Some(format!("line {line} of {}", self.path.display()))
    }
}

/// Ends a last line that has no line feed. Otherwise dotenvy rejects it if it ends with a blank.
fn with_line_feed(text: &str) -> String {
    format!("{text}\n")
}

/// Returns the names of the variables that a line refers to as `$NAME` or `${NAME}`.
fn references(statement: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    let (mut quote, mut characters) = (None, statement.char_indices());
    while let Some((at, character)) = characters.next() {
        match (character, quote) {
            ('#', None) if statement[..at].ends_with(char::is_whitespace) => break,
            ('\\', None | Some('"')) => _ = characters.next(),
            ('\'' | '"', None) => quote = Some(character),
            (_, Some(open)) if open == character => quote = None,
            ('$', None | Some('"')) => {
                let rest = &statement[at + 1..];
                // dotenvy ends a name without braces at an underscore, and knows no default values.
                let (name, length) = match rest.strip_prefix('{') {
                    Some(name) => (name, name.find('}')),
                    None => (rest, rest.find(|c: char| !c.is_alphanumeric())),
                };
                names.insert(&name[..length.unwrap_or(name.len())]);
            }
            _ => {}
        }
    }
    names.remove("");
    names
}

/// Reader of a text that returns at most one line per read, and counts the lines. A buffer in front therefore never
/// holds the next line.
struct LineReader<'a> {
    rest: &'a [u8],
    read: &'a Cell<usize>,
}

impl<'a> LineReader<'a> {
    fn new(text: &'a str, read: &'a Cell<usize>) -> Self {
        Self {
            rest: text.as_bytes(),
            read,
        }
    }
}

impl Read for LineReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let line_feed = self.rest.iter().position(|byte| *byte == b'\n');
        let line = line_feed.map_or(self.rest.len(), |at| at + 1);
        let (part, rest) = self.rest.split_at(line.min(buffer.len()));
        buffer[..part.len()].copy_from_slice(part);
        self.rest = rest;
        if part.ends_with(b"\n") || (rest.is_empty() && !part.is_empty()) {
            self.read.set(self.read.get() + 1);
        }
        Ok(part.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Dotenv, DotenvError> {
        Dotenv::parse(Path::new("/x/.env"), text, |name| name == "HOME")
    }

    #[test]
    fn each_variable_has_the_line_in_which_it_starts() {
        let text = "\u{feff}# comment\r\nPORT=8000\r\n\r\n  export HOST = 'a b' # note\r\nLONG=\"1\n2\"\nLAST=$PORT${HOME}";
        let file = parse(text).unwrap();
        for (name, line) in [("PORT", 2), ("HOST", 4), ("LONG", 5), ("LAST", 7)] {
            assert_eq!(
                file.place(name),
                Some(format!("line {line} of /x/.env")),
                "{name}"
            );
        }
        assert_eq!(file.place("COMMENT"), None);
        assert_eq!(file.warnings, [""; 0]);
    }

    #[test]
    fn a_line_that_cannot_be_used_is_reported_by_its_number_without_its_text() {
        for (text, line, problem) in [
            ("A=1\nhunter2\n", 2, NO_ASSIGNMENT),
            ("A=1\n\n#\nB=x hunter2\nC=3\n", 4, UNQUOTED),
            ("A=1\nA=1\nB=O'hunter2\nC=3\n", 3, UNQUOTED),
            ("A=C:\\hunter2", 1, UNQUOTED),
            ("A=1\r\nB=\"hunter2\r\n", 2, UNQUOTED),
            ("A=1\nB=$hunter2\n", 2, UNSET),
            ("A=\"x ${hunter2} y\"\n", 1, UNSET),
            ("A=$B\nB=1", 1, UNSET),
            ("B_C=1\nA=$B_C", 2, UNSET),
            ("A=${HOME:-hunter2}", 1, UNSET),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert_eq!(
                error,
                format!(".env: line {line} of /x/.env {problem}"),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_blank_at_the_end_of_the_file_is_ignored() {
        for text in ["A=1 ", "A=1\n ", "A=1\n\t"] {
            let file = parse(text).unwrap();
            assert_eq!(file.place("A").as_deref(), Some("line 1 of /x/.env"), "{text:?}");
        }
    }

    #[test]
    fn a_dollar_sign_that_is_literal_refers_to_no_variable() {
        for text in ["A='$B'", "A=\\$B", "A=\"\\$B\"", "A=1 # costs $B", "A=5$"] {
            assert!(parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_repeated_variable_causes_a_warning() {
        let warnings = parse("A=1\nB=2\nA=3\n").unwrap().warnings;
        assert_eq!(
            warnings,
            ["A is in lines 1 and 3 of /x/.env; the first one applies"]
        );
    }
}
