//! Names in the sources are declared, including those of events that no test causes: the fields of log
//! events, and literal names of attributes, spans and instruments.
#![cfg(test)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use telemetry_registry::{Layout, Registry};

static LAYOUT: LazyLock<Layout> = LazyLock::new(|| {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../config/telemetry-registry.yaml"
    );
    Layout::read(Path::new(path)).unwrap()
});

const LEVELS: [&str; 6] = ["error!(", "warn!(", "info!(", "debug!(", "trace!(", "event!("];
/// Suffixes of functions that take the name of an instrument, alone or after the meter.
const INSTRUMENTS: [&str; 6] = [
    "counter(",
    "gauge(",
    "histogram(",
    "durations(",
    " seconds(",
    " count(",
];

/// Returns the source files of the project's crates without tests and comments.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut folders: Vec<PathBuf> = LAYOUT.sources().iter().map(|source| root.join(source)).collect();
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("tests.rs")
            {
                let text = fs::read_to_string(&path).unwrap();
                let program = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
                let lines = program
                    .lines()
                    .filter(|line| !line.trim_start().starts_with("//"));
                sources.push((path, lines.collect::<Vec<_>>().join("\n")));
            }
        }
    }
    sources
}

/// Splits the text up to the closing bracket at commas outside of nested brackets and strings.
fn arguments(text: &str) -> Vec<String> {
    let (mut arguments, mut depth, mut quoted, mut escaped) = (vec![String::new()], 0_u32, false, false);
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '(' | '[' | '{' if !quoted => depth += 1,
            ')' | ']' | '}' if !quoted && depth == 0 => break,
            ')' | ']' | '}' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                arguments.push(String::new());
                continue;
            }
            _ => {}
        }
        arguments.last_mut().unwrap().push(c);
    }
    arguments
        .iter()
        .map(|argument| argument.trim().to_owned())
        .collect()
}

/// Returns the text after each occurrence of each of `starts`.
fn behind<'a>(text: &'a str, starts: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    starts.iter().flat_map(move |start| {
        text.match_indices(start)
            .map(move |(index, start)| &text[index + start.len()..])
    })
}

/// Returns the text of a string literal.
fn literal(argument: &str) -> Option<&str> {
    argument.strip_prefix('"')?.strip_suffix('"')
}

/// Returns the names of the fields of an event.
fn fields(arguments: &[String]) -> Vec<&str> {
    arguments
        .iter()
        .take_while(|argument| !argument.starts_with('"'))
        .filter(|argument| !argument.starts_with("target:") && !argument.starts_with("name:"))
        .filter(|argument| !argument.contains("Level::"))
        .filter(|argument| !argument.is_empty() && !argument.starts_with('$'))
        .map(|argument| {
            let name = argument
                .split_once(" = ")
                .map_or(argument.as_str(), |(name, _)| name);
            match name.trim_start_matches(['%', '?']) {
                // Logged under the name of the conventions.
                "error" => "exception.message",
                name => name,
            }
        })
        .collect()
}

#[test]
fn every_name_in_the_sources_is_declared() {
    let registry = Registry::load(&LAYOUT).unwrap();
    let (mut undeclared, mut seen) = (BTreeSet::new(), [0; 4]);
    for (path, text) in sources() {
        let mut look = |index: usize, kind: &str, name: &str, declared: bool| {
            seen[index] += 1;
            if !declared {
                undeclared.insert(format!("{}: {kind} {name}", path.display()));
            }
        };
        for rest in behind(&text, &LEVELS) {
            for name in fields(&arguments(rest)) {
                look(0, "field", name, registry.declares_attribute(name));
            }
        }
        for rest in behind(
            &text,
            &["KeyValue::new(", "into.text(", "into.literal(", "into.number("],
        ) {
            if let Some(name) = literal(&arguments(rest)[0]) {
                look(1, "attribute", name, registry.declares_attribute(name));
            }
        }
        for rest in behind(&text, &["Span::internal(", "Beginning::new("]) {
            if let Some(name) = literal(&arguments(rest)[0]) {
                look(2, "span", name, registry.declares_span(name));
            }
        }
        for rest in behind(&text, &INSTRUMENTS) {
            let given = arguments(rest);
            let has_meter = matches!(given[0].as_str(), "meter" | "&runtime");
            let name = given.get(usize::from(has_meter)).and_then(|name| literal(name));
            // Names in capitals are environment variables.
            if let Some(name) = name.filter(|name| name.contains(char::is_lowercase)) {
                look(3, "metric", name, registry.declares_metric(name));
            }
        }
    }
    assert_eq!(undeclared, BTreeSet::new());
    // Guards against patterns that no longer match the sources.
    assert!(seen[0] > 100 && seen[1] > 20 && seen[3] > 5, "{seen:?}");
}

#[test]
fn fields_are_found_in_every_syntax() {
    let found =
        arguments(r#"target: "t", count = f(1, "a,b"), %error, ?list, lone, article.id = 7, "said {}", x)"#);
    assert_eq!(
        fields(&found),
        ["count", "exception.message", "list", "lone", "article.id"]
    );
}
