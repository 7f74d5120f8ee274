//! The YAML of a configuration file as a tree of nodes with their lines. Scalars get their type from the YAML 1.2
//! core schema, after the substitution of environment variables. No message contains text of the file.

use std::collections::{BTreeSet, HashMap};

use granit_parser::{Event, Parser, ScalarStyle, Tag};

use super::substitution::substitute;

/// Maximum number of nodes, those that aliases repeat included.
const MAX_NODES: usize = 100_000;

/// Maximum depth of nested nodes.
const MAX_DEPTH: usize = 64;

/// A node and the line it starts on.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) content: Content,
    /// Number of nodes below this one, itself included.
    size: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    Null,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Mapping(Vec<(String, Node)>),
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.content == other.content
    }
}

impl Content {
    /// Returns the kind of value for a message.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean(_) => "a boolean",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Mapping(_) => "a mapping",
        }
    }

    /// Resolves the type of a plain scalar.
    fn of_plain(text: String) -> Self {
        match text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => return Self::Null,
            "true" | "True" | "TRUE" => return Self::Boolean(true),
            "false" | "False" | "FALSE" => return Self::Boolean(false),
            ".nan" | ".NaN" | ".NAN" => return Self::Float(f64::NAN),
            _ => {}
        }
        integer(&text)
            .map(Self::Integer)
            .or_else(|| float(&text).map(Self::Float))
            .unwrap_or(Self::Text(text))
    }
}

fn integer(text: &str) -> Option<i64> {
    let digits = |digits: &str, radix| {
        let valid = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
        valid.then(|| i64::from_str_radix(digits, radix).ok())?
    };
    match text.split_at_checked(2) {
        Some(("0x", rest)) => digits(rest, 16),
        Some(("0o", rest)) => digits(rest, 8),
        _ => text.parse().ok(),
    }
}

fn float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return Some(f64::INFINITY.copysign(if text.starts_with('-') { -1.0 } else { 1.0 }));
    }
    // The names of infinities and NaN that `f64` parses are strings in YAML.
    let is_number = unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.');
    is_number.then(|| text.parse().ok())?
}

/// A problem and its line.
pub(super) type Problem = (usize, String);

/// Parses the only document of `text`. Adds the names of the variables that it refers to to `names`.
pub(super) fn parse(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    names: &mut BTreeSet<String>,
) -> Result<Node, Problem> {
    let mut builder = Builder::default();
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) =
            event.map_err(|error| (error.marker().line(), format!("invalid YAML: {}", error.kind())))?;
        let line = span.start.line();
        let fail = |reason: &str| Err((line, reason.to_owned()));
        match event {
            Event::DocumentStart(..) => {
                documents += 1;
                if documents > 1 {
                    return fail("the file has several documents");
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = match tag.as_deref() {
                    None => style != ScalarStyle::Plain,
                    Some(tag) if is_string(tag) => true,
                    Some(_) => return fail("tags other than !!str are not supported"),
                };
                let content = if builder.expects_key() {
                    Content::Text(text.into_owned())
                } else {
                    let text = substitute(&text, lookup, names).map_err(|reason| (line, reason))?;
                    if is_text {
                        Content::Text(text)
                    } else {
                        Content::of_plain(text)
                    }
                };
                builder.add(Node::new(line, content), anchor)?;
            }
            Event::Alias(anchor) => builder.alias(line, anchor)?,
            Event::SequenceStart(_, anchor, tag) => {
                builder.open(Node::new(line, Content::List(Vec::new())), anchor, tag.as_deref())?;
            }
            Event::MappingStart(_, anchor, tag) => {
                builder.open(
                    Node::new(line, Content::Mapping(Vec::new())),
                    anchor,
                    tag.as_deref(),
                )?;
            }
            Event::SequenceEnd | Event::MappingEnd => builder.close()?,
            _ => {}
        }
    }
    builder.root.ok_or((1, "the file is empty".to_owned()))
}

fn is_string(tag: &Tag) -> bool {
    tag.to_string() == "tag:yaml.org,2002:str"
}

impl Node {
    pub(super) fn new(line: usize, content: Content) -> Self {
        Self {
            line,
            content,
            size: 1,
        }
    }
}

/// The nodes that are not complete yet.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

struct Open {
    node: Node,
    anchor: usize,
    key: Option<String>,
}

impl Builder {
    /// Whether the next node is the key of a mapping.
    fn expects_key(&self) -> bool {
        self.open
            .last()
            .is_some_and(|open| open.key.is_none() && matches!(open.node.content, Content::Mapping(_)))
    }

    fn open(&mut self, node: Node, anchor: usize, tag: Option<&Tag>) -> Result<(), Problem> {
        let line = node.line;
        if tag.is_some() {
            return Err((line, "tags other than !!str are not supported".to_owned()));
        }
        if self.expects_key() {
            return Err((line, "the key of a mapping is not a string".to_owned()));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err((
                line,
                format!("nodes are nested more than {MAX_DEPTH} levels deep"),
            ));
        }
        self.open.push(Open {
            node,
            anchor,
            key: None,
        });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Problem> {
        match self.open.pop() {
            Some(open) => self.add(open.node, open.anchor),
            None => Ok(()),
        }
    }

    fn alias(&mut self, line: usize, anchor: usize) -> Result<(), Problem> {
        let Some(mut node) = self.anchors.get(&anchor).cloned() else {
            return Err((line, "an alias refers to a node that contains it".to_owned()));
        };
        self.nodes += node.size;
        node.line = line;
        self.add(node, 0)
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Problem> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err((node.line, format!("the file has more than {MAX_NODES} nodes")));
        }
        if anchor != 0 {
            self.nodes += node.size;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        parent.node.size += node.size;
        match (&mut parent.node.content, parent.key.take()) {
            (Content::Mapping(entries), Some(key)) => entries.push((key, node)),
            (Content::Mapping(entries), None) => {
                let Content::Text(key) = node.content else {
                    return Err((node.line, "the key of a mapping is not a string".to_owned()));
                };
                if entries.iter().any(|(known, _)| *known == key) {
                    return Err((node.line, "a mapping has the same key twice".to_owned()));
                }
                parent.key = Some(key);
            }
            (Content::List(items), _) => items.push(node),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(yaml: &str, set: &[(&str, &str)]) -> Content {
        let lookup = |name: &str| {
            let found = set.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let root = parse(yaml, &lookup, &mut BTreeSet::new()).unwrap();
        let Content::Mapping(mut entries) = root.content else {
            panic!("{root:?}");
        };
        entries.remove(0).1.content
    }

    fn problem(yaml: &str) -> Problem {
        parse(yaml, &|_| Some("s3cret".to_owned()), &mut BTreeSet::new()).unwrap_err()
    }

    fn text(text: &str) -> Content {
        Content::Text(text.to_owned())
    }

    /// The table of the specification (configuration data model, "Environment variable substitution").
    #[test]
    fn types_are_resolved_after_the_substitution() {
        let set = [
            ("STRING_VALUE", "value"),
            ("BOOL_VALUE", "true"),
            ("INT_VALUE", "1"),
            ("FLOAT_VALUE", "1.1"),
            ("HEX_VALUE", "0xdeadbeef"),
            ("INVALID_MAP_VALUE", "value\nkey:value"),
            ("DO_NOT_REPLACE_ME", "Never use this value"),
            ("REPLACE_ME", "${DO_NOT_REPLACE_ME}"),
            ("VALUE_WITH_ESCAPE", "value$$"),
            ("EMPTY", ""),
        ];
        for (yaml, expected) in [
            ("key: ${STRING_VALUE}", text("value")),
            ("key: ${BOOL_VALUE}", Content::Boolean(true)),
            ("key: ${INT_VALUE}", Content::Integer(1)),
            ("key: ${FLOAT_VALUE}", Content::Float(1.1)),
            ("key: ${HEX_VALUE}", Content::Integer(3_735_928_559)),
            ("key: \"${STRING_VALUE}\"", text("value")),
            ("key: \"${BOOL_VALUE}\"", text("true")),
            ("key: \"${INT_VALUE}\"", text("1")),
            ("key: '${FLOAT_VALUE}'", text("1.1")),
            ("key: \"${HEX_VALUE}\"", text("0xdeadbeef")),
            ("key: ${env:STRING_VALUE}", text("value")),
            ("key: ${INVALID_MAP_VALUE}", text("value\nkey:value")),
            ("key: foo ${STRING_VALUE} ${FLOAT_VALUE}", text("foo value 1.1")),
            ("key: ${UNDEFINED_KEY}", Content::Null),
            ("key: ${EMPTY}", Content::Null),
            ("key: \"${UNDEFINED_KEY}\"", text("")),
            ("key: ${UNDEFINED_KEY:-fallback}", text("fallback")),
            ("key: ${EMPTY:-5}", Content::Integer(5)),
            ("key: ${env:UNDEFINED_KEY:-}", Content::Null),
            ("key: ${REPLACE_ME}", text("${DO_NOT_REPLACE_ME}")),
            ("key: ${UNDEFINED_KEY:-${STRING_VALUE}}", text("${STRING_VALUE}")),
            ("key: $${STRING_VALUE}", text("${STRING_VALUE}")),
            ("key: $$${STRING_VALUE}", text("$value")),
            ("key: $$$${STRING_VALUE}", text("$${STRING_VALUE}")),
            (
                "key: $${STRING_VALUE:-fallback}",
                text("${STRING_VALUE:-fallback}"),
            ),
            (
                "key: $${STRING_VALUE:-${STRING_VALUE}}",
                text("${STRING_VALUE:-value}"),
            ),
            (
                "key: ${UNDEFINED_KEY:-$${UNDEFINED_KEY}}",
                text("${UNDEFINED_KEY:-${UNDEFINED_KEY}}"),
            ),
            ("key: ${VALUE_WITH_ESCAPE}", text("value$$")),
            ("key: a $$ b", text("a $ b")),
            ("key: a $ b", text("a $ b")),
            ("key: |\n  ${INT_VALUE}\n", text("1\n")),
        ] {
            assert_eq!(value(yaml, &set), expected, "{yaml}");
        }
        let root = parse(
            "${STRING_VALUE}: value",
            &|_| Some("x".to_owned()),
            &mut BTreeSet::new(),
        )
        .unwrap();
        let Content::Mapping(entries) = root.content else {
            panic!("no mapping");
        };
        assert_eq!(entries[0].0, "${STRING_VALUE}");
    }

    #[test]
    fn plain_scalars_have_the_types_of_the_core_schema() {
        for (yaml, expected) in [
            ("k: 0o17", Content::Integer(15)),
            ("k: -3", Content::Integer(-3)),
            ("k: 0x", text("0x")),
            ("k: 1e3", Content::Float(1000.0)),
            ("k: -.inf", Content::Float(f64::NEG_INFINITY)),
            ("k: inf", text("inf")),
            ("k: nan", text("nan")),
            ("k: yes", text("yes")),
            ("k: 1.0.0", text("1.0.0")),
            ("k: !!str 1", text("1")),
            ("k: ~", Content::Null),
            ("k:", Content::Null),
            ("k: &a 1\nl: *a", Content::Integer(1)),
        ] {
            assert_eq!(value(yaml, &[]), expected, "{yaml}");
        }
    }

    #[test]
    fn a_problem_has_its_line_and_no_text_of_the_file() {
        for (yaml, line, reason) in [
            ("a: 1\nb: ${S3CRET:?error}", 2, "substitution"),
            ("a: 1\nb: ${1S3CRET}", 2, "substitution"),
            ("a: 1\nb: ${S3CRET $X}", 2, "substitution"),
            ("a: 1\nb: ${sys:S3CRET}", 2, "substitution"),
            ("a: 1\n\na: s3cret", 3, "same key"),
            ("a: [s3cret", 1, "invalid YAML"),
            ("a: !secret s3cret", 1, "tags"),
            ("a: 1\n---\nb: s3cret", 2, "documents"),
            ("? [s3cret]\n: 1", 1, "key"),
            ("a: *s3cret", 1, "invalid YAML"),
            ("# s3cret", 1, "empty"),
        ] {
            let (at, found) = problem(yaml);
            assert_eq!(at, line, "{yaml}: {found}");
            assert!(
                found.contains(reason) && !found.to_lowercase().contains("s3cret"),
                "{yaml}: {found}"
            );
        }
    }

    #[test]
    fn aliases_do_not_multiply_without_a_limit() {
        let mut yaml = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let below = format!("*a{}", level - 1);
            let list = vec![below; 10].join(", ");
            yaml.push_str(&format!("a{level}: &a{level} [{list}]\n"));
        }
        assert!(problem(&yaml).1.contains("nodes"));
        let mut nested = String::new();
        for depth in 0..100 {
            nested.push_str(&format!("{}a:\n", " ".repeat(depth)));
        }
        assert!(problem(&nested).1.contains("deep"));
    }
}
