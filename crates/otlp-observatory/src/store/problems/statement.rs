//! Statements without their values, so that equal statements are recognised.

/// Maximum length of a statement in bytes; the rest is ignored.
const MAX_BYTES: usize = 1_000;

/// Replaces numbers, quoted texts and parameters by `?`, and lists of them by one.
pub(super) fn normalize(statement: &str) -> String {
    let end = statement.floor_char_boundary(MAX_BYTES);
    let mut letters = statement[..end].chars().peekable();
    let mut result = String::new();
    while let Some(letter) = letters.next() {
        let is_in_word = result.ends_with(|last: char| last.is_alphanumeric() || last == '_');
        match letter {
            '\'' => {
                // A doubled quote is part of the text.
                while let Some(next) = letters.next() {
                    if next == '\'' && letters.next_if_eq(&'\'').is_none() {
                        break;
                    }
                }
                push_value(&mut result);
            }
            '0'..='9' if !is_in_word => {
                while letters
                    .next_if(|next| next.is_alphanumeric() || *next == '.')
                    .is_some()
                {}
                push_value(&mut result);
            }
            '$' | ':' | '@'
                if letters.peek().is_some_and(|next| next.is_alphanumeric()) && !result.ends_with(':') =>
            {
                while letters
                    .next_if(|next| next.is_alphanumeric() || *next == '_')
                    .is_some()
                {}
                push_value(&mut result);
            }
            '%' if letters.next_if_eq(&'s').is_some() => push_value(&mut result),
            '?' => push_value(&mut result),
            blank if blank.is_whitespace() => {
                if !result.is_empty() && !result.ends_with(' ') {
                    result.push(' ');
                }
            }
            other => result.push(other),
        }
    }
    result.trim_end().to_owned()
}

/// Appends `?`, unless it continues a list of values.
fn push_value(result: &mut String) {
    let before = result.trim_end();
    if let Some(list) = before.strip_suffix(',')
        && list.trim_end().ends_with('?')
    {
        result.truncate(list.trim_end().len());
        return;
    }
    result.push('?');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_differ_in_values_are_equal() {
        for (statement, expected) in [
            (
                "SELECT *  FROM author\n WHERE id = 42",
                "SELECT * FROM author WHERE id = ?",
            ),
            (
                "select * from t1 where a = 'it''s' and b=1.5e3",
                "select * from t1 where a = ? and b=?",
            ),
            (
                "SELECT a FROM b WHERE c = $1 AND d = :name",
                "SELECT a FROM b WHERE c = ? AND d = ?",
            ),
            (
                "SELECT a::text FROM b WHERE c = %s",
                "SELECT a::text FROM b WHERE c = ?",
            ),
            ("x IN (1, 2,3)", "x IN (?)"),
            ("x IN (?, ?, ?)", "x IN (?)"),
            ("VALUES ('a', 'b')", "VALUES (?)"),
            ("GET user:42", "GET user?"),
            ("it's not closed", "it?"),
            ("", ""),
        ] {
            assert_eq!(normalize(statement), expected, "{statement}");
        }
        assert!(normalize(&"é".repeat(MAX_BYTES)).len() <= MAX_BYTES);
    }
}
