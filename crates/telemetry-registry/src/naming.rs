//! Rules of the semantic conventions for names: their format, their namespace, and that no name is both a value and the
//! namespace of others.

use std::collections::BTreeSet;

/// Namespaces in use, and the names that the rules do not apply to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Naming {
    /// Proper prefixes of the declared attributes.
    pub(crate) namespaces: BTreeSet<String>,
    /// Names that a contract fixes.
    pub(crate) contract: BTreeSet<String>,
}

impl Naming {
    pub(crate) fn add(&mut self, name: &str) {
        let ends = name.match_indices('.').map(|(end, _)| name[..end].to_owned());
        self.namespaces.extend(ends);
    }

    /// Returns the violations of the name of an attribute: a malformed name, and one that others begin with.
    pub(crate) fn violations(&self, name: &str) -> Vec<String> {
        let mut violations = Vec::new();
        if !self.contract.contains(name) && !is_well_formed(name) {
            violations.push(format!("the name {name} is malformed"));
        }
        if self.namespaces.contains(name) {
            violations.push(format!("the name {name} is a namespace too"));
        }
        violations
    }

    /// Returns the problem of a name without a namespace.
    pub(crate) fn without_namespace(&self, name: &str) -> Option<String> {
        let is_bare = !name.contains('.') && !self.contract.contains(name);
        is_bare.then(|| format!("the name {name} has no namespace"))
    }
}

/// Whether a name consists of words of lower-case letters and digits, joined by `.` and `_`.
pub(crate) fn is_well_formed(name: &str) -> bool {
    let is_word = |word: &str| {
        let mut bytes = word.bytes();
        !word.is_empty() && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    name.starts_with(|first: char| first.is_ascii_lowercase()) && name.split(['.', '_']).all(is_word)
}
