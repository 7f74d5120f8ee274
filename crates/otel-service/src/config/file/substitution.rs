//! Substitution of environment variables in scalars, as the configuration data model of the specification defines it:
//! `${NAME}`, `${env:NAME}`, `${NAME:-default}`, and `$$` for a dollar sign.

use std::collections::BTreeSet;

/// Replaces the references in `text`, and adds the names of the variables to `names`.
///
/// Values are inserted as they are: references in them have no effect.
pub(super) fn substitute(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    names: &mut BTreeSet<String>,
) -> Result<String, String> {
    let mut output = String::with_capacity(text.len());
    for (index, part) in text.split("$$").enumerate() {
        if index > 0 {
            output.push('$');
        }
        let mut rest = part;
        while let Some((before, after)) = rest.split_once("${") {
            output.push_str(before);
            let Some((reference, remaining)) = after.split_once('}').filter(|(inner, _)| !inner.is_empty())
            else {
                output.push_str("${");
                rest = after;
                continue;
            };
            let (name, default) = parse(reference).ok_or(
                "invalid substitution reference; use ${NAME}, ${env:NAME} or ${NAME:-default}, and $$ for a dollar sign",
            )?;
            names.insert(name.to_owned());
            let value = lookup(name).filter(|value| !value.is_empty());
            output.push_str(value.as_deref().unwrap_or(default));
            rest = remaining;
        }
        output.push_str(rest);
    }
    Ok(output)
}

/// Returns the name and the default of a reference.
fn parse(reference: &str) -> Option<(&str, &str)> {
    let reference = reference
        .strip_prefix("env:")
        .filter(|name| !name.starts_with('-'))
        .unwrap_or(reference);
    let (name, default) = reference.split_once(":-").unwrap_or((reference, ""));
    let is_start = |first: char| first.is_ascii_alphabetic() || first == '_';
    let is_name = name.starts_with(is_start)
        && name
            .chars()
            .all(|character| is_start(character) || character.is_ascii_digit());
    (is_name && !default.contains('\n')).then_some((name, default))
}
