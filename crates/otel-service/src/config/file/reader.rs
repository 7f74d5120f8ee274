//! Typed access to the nodes of a configuration file. Every property is taken by name; those left over are refused.
//! Problems are collected, with the path and the line of the property and without its value.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::yaml::{Content, Node, Problem};

/// The problems found so far.
pub(super) type Problems = RefCell<Vec<Problem>>;

/// A node and its path.
#[derive(Clone, Debug)]
pub(super) struct Value<'a> {
    node: &'a Node,
    pub(super) path: String,
    problems: &'a Problems,
}

/// A mapping whose properties are taken one by one. When it is dropped, those left over are refused.
#[derive(Debug)]
pub(super) struct Section<'a> {
    path: String,
    line: usize,
    left: Vec<(&'a str, &'a Node)>,
    problems: &'a Problems,
}

impl<'a> Value<'a> {
    pub(super) fn root(node: &'a Node, problems: &'a Problems) -> Self {
        Self {
            node,
            path: String::new(),
            problems,
        }
    }

    /// Reports that the value cannot be used.
    pub(super) fn refuse(&self, reason: &str) {
        let message = match self.path.as_str() {
            "" => reason.to_owned(),
            path => format!("{path}: {reason}"),
        };
        self.problems.borrow_mut().push((self.node.line, message));
    }

    fn expected(&self, kind: &str) {
        let hint = match (&self.node.content, kind) {
            (Content::Boolean(_) | Content::Integer(_) | Content::Float(_), "a string") => {
                "; put it in quotes"
            }
            _ => "",
        };
        self.refuse(&format!(
            "must be {kind}, but is {}{hint}",
            self.node.content.kind()
        ));
    }

    pub(super) fn is_null(&self) -> bool {
        self.node.content == Content::Null
    }

    /// Returns the properties; null has none.
    pub(super) fn section(self) -> Section<'a> {
        let left = match &self.node.content {
            Content::Mapping(entries) => entries.iter().map(|(key, node)| (key.as_str(), node)).collect(),
            Content::Null => Vec::new(),
            _ => {
                self.expected("a mapping");
                Vec::new()
            }
        };
        Section {
            path: self.path,
            line: self.node.line,
            left,
            problems: self.problems,
        }
    }

    /// Returns the elements of a list, which must not be empty.
    pub(super) fn items(&self) -> Vec<Value<'a>> {
        let items = self.possibly_no_items();
        if matches!(&self.node.content, Content::List(items) if items.is_empty()) {
            self.refuse("must not be an empty list");
        }
        items
    }

    pub(super) fn possibly_no_items(&self) -> Vec<Value<'a>> {
        let Content::List(items) = &self.node.content else {
            self.expected("a list");
            return Vec::new();
        };
        let item = |(index, node)| Value {
            node,
            path: format!("{}[{index}]", self.path),
            problems: self.problems,
        };
        items.iter().enumerate().map(item).collect()
    }

    pub(super) fn text(&self) -> Option<String> {
        let Content::Text(text) = &self.node.content else {
            self.expected("a string");
            return None;
        };
        Some(text.clone())
    }

    /// Returns the strings of a list.
    pub(super) fn texts(&self) -> Vec<String> {
        self.items().iter().filter_map(Value::text).collect()
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        let Content::Boolean(value) = self.node.content else {
            self.expected("a boolean");
            return None;
        };
        Some(value)
    }

    pub(super) fn any_integer(&self) -> Option<i64> {
        let Content::Integer(value) = self.node.content else {
            self.expected("an integer");
            return None;
        };
        Some(value)
    }

    pub(super) fn integer(&self, range: RangeInclusive<i64>) -> Option<i64> {
        let value = self.any_integer()?;
        if !range.contains(&value) {
            self.refuse(&format!("must be from {} to {}", range.start(), range.end()));
        }
        range.contains(&value).then_some(value)
    }

    pub(super) fn number(&self) -> Option<f64> {
        match self.node.content {
            Content::Float(value) => Some(value),
            Content::Integer(value) => Some(value as f64),
            _ => {
                self.expected("a number");
                None
            }
        }
    }

    /// Returns a number from 0 to 1.
    pub(super) fn ratio(&self) -> Option<f64> {
        let ratio = self.number()?;
        let is_valid = (0.0..=1.0).contains(&ratio);
        if !is_valid {
            self.refuse("must be from 0 to 1");
        }
        is_valid.then_some(ratio)
    }

    /// Returns the choice that the string selects.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        let chosen = choices.iter().find(|(name, _)| *name == text);
        if chosen.is_none() {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            self.refuse(&format!("must be one of {}", names.join(", ")));
        }
        chosen.map(|(_, value)| *value)
    }
}

impl<'a> Section<'a> {
    /// Takes a property; `None` if it is not set or null.
    pub(super) fn get(&mut self, name: &str) -> Option<Value<'a>> {
        self.take(name).filter(|value| !value.is_null())
    }

    /// Takes a property; `None` if it is not set.
    pub(super) fn take(&mut self, name: &str) -> Option<Value<'a>> {
        let index = self.left.iter().position(|(key, _)| *key == name)?;
        let (_, node) = self.left.remove(index);
        Some(self.value(name, node))
    }

    /// Takes a property that must be set.
    pub(super) fn required(&mut self, name: &str) -> Option<Value<'a>> {
        let value = self.get(name);
        if value.is_none() {
            let path = self.path_of(name);
            self.problems
                .borrow_mut()
                .push((self.line, format!("{path}: is required")));
        }
        value
    }

    /// Takes the properties of a section whose only property selects a component. Returns its name and its
    /// configuration, which may be null.
    pub(super) fn component(mut self) -> Option<(&'a str, Value<'a>)> {
        if let [(name, node)] = self.left[..] {
            self.left.clear();
            return Some((name, self.value(name, node)));
        }
        let path = if self.path.is_empty() {
            "the file"
        } else {
            &self.path
        };
        self.problems
            .borrow_mut()
            .push((self.line, format!("{path}: must have exactly one property")));
        self.left.clear();
        None
    }

    /// Refuses a property that the schema defines.
    pub(super) fn refuse(&mut self, name: &str) {
        if let Some(value) = self.get(name) {
            value.refuse("is not supported");
        }
    }

    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.get(name)?.text()
    }

    pub(super) fn boolean(&mut self, name: &str) -> Option<bool> {
        self.get(name)?.boolean()
    }

    pub(super) fn count(&mut self, name: &str, range: RangeInclusive<i64>) -> Option<usize> {
        usize::try_from(self.get(name)?.integer(range)?).ok()
    }

    /// Takes a number of milliseconds up to one hour. Zero means one millisecond.
    pub(super) fn delay(&mut self, name: &str) -> Option<Duration> {
        let milliseconds = self.count(name, 0..=HOUR)?;
        Some(Duration::from_millis(milliseconds.max(1) as u64))
    }

    /// Takes a time-out in milliseconds. Zero, which means no limit, means one hour, as every longer time does.
    pub(super) fn timeout(&mut self, name: &str) -> Option<Duration> {
        let milliseconds = match self.count(name, 0..=i64::MAX)? {
            0 => HOUR as u64,
            milliseconds => milliseconds as u64,
        };
        Some(Duration::from_millis(milliseconds.min(HOUR as u64)))
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    fn value(&self, name: &str, node: &'a Node) -> Value<'a> {
        Value {
            node,
            path: self.path_of(name),
            problems: self.problems,
        }
    }
}

/// One hour in milliseconds, the maximum of every duration.
const HOUR: i64 = 3_600_000;

impl Drop for Section<'_> {
    fn drop(&mut self) {
        for (name, node) in std::mem::take(&mut self.left) {
            self.value(name, node).refuse("is not a known property");
        }
    }
}
