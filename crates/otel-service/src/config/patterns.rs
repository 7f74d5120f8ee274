//! Patterns of names, with `*` for any characters and `?` for one.

/// Names to include and names to exclude.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Patterns {
    /// `None` includes all names.
    pub(crate) included: Option<Vec<String>>,
    pub(crate) excluded: Vec<String>,
}

impl Patterns {
    /// Whether `name` is included and not excluded.
    pub(crate) fn includes(&self, name: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, name));
        self.included.as_deref().is_none_or(any) && !any(&self.excluded)
    }
}

/// Whether `name` as a whole matches `pattern`.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut position) = (0, 0);
    // The last asterisk, and the end of the characters that it covers.
    let mut star = None;
    while position < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, position));
                at += 1;
            }
            Some(&expected) if expected == '?' || expected == name[position] => {
                at += 1;
                position += 1;
            }
            _ => {
                let Some((asterisk, covered)) = star else {
                    return false;
                };
                star = Some((asterisk, covered + 1));
                (at, position) = (asterisk + 1, covered + 1);
            }
        }
    }
    pattern[at..].iter().all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asterisks_and_question_marks_are_wildcards() {
        for (pattern, name, expected) in [
            ("a", "a", true),
            ("a", "A", false),
            ("a", "ab", false),
            ("*", "", true),
            ("?", "", false),
            ("a.*", "a.b.c", true),
            ("a.?", "a.bc", false),
            ("*b*d", "abcd", true),
            ("*b*d", "abce", false),
            ("a**c", "ac", true),
            ("*ab", "aab", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        let patterns = Patterns {
            included: Some(vec!["service*".to_owned()]),
            excluded: vec!["service.x".to_owned()],
        };
        assert!(patterns.includes("service.name"));
        assert!(!patterns.includes("service.x") && !patterns.includes("host"));
    }
}
