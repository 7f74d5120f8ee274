//! The context in environment variables, for child processes (OpenTelemetry specification, "Environment Variables as
//! Context Propagation Carriers").

use opentelemetry::{Context, global};

use crate::config;
use crate::context::{extract_context, inject_context};

/// Returns the variables that carry the current context to a child process, such as `TRACEPARENT` and `BAGGAGE`.
///
/// ```no_run
/// use otel_service::context_variables;
///
/// let child = std::process::Command::new("backup").envs(context_variables()).spawn()?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn context_variables() -> Vec<(String, String)> {
    let headers = inject_context().into_iter();
    headers.map(|(name, value)| (variable(&name), value)).collect()
}

/// Returns a context with the remote parent in the environment of this process, or an empty context.
///
/// Spans are children of it only if it is used, such as with [`Span::parent`](crate::Span::parent).
pub fn environment_context() -> Context {
    let names: Vec<String> = global::get_text_map_propagator(|propagator| {
        let fields = propagator.fields();
        fields.map(str::to_owned).collect()
    });
    let values = names.iter().map(|name| config::environment(&variable(name)));
    let values: Vec<String> = values.map(Option::unwrap_or_default).collect();
    let pairs = names
        .iter()
        .map(String::as_str)
        .zip(values.iter().map(String::as_str));
    extract_context(pairs.filter(|(_, value)| !value.is_empty()))
}

/// Returns the variable of a header: in upper case, with underscores for other characters than letters and digits.
fn variable(header: &str) -> String {
    let upper = header.chars().map(|character| match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' => character.to_ascii_uppercase(),
        _ => '_',
    });
    let name: String = upper.collect();
    match name.starts_with(|first: char| first.is_ascii_digit()) {
        true => format!("_{name}"),
        false => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_a_variable_of_allowed_characters() {
        for (header, expected) in [
            ("traceparent", "TRACEPARENT"),
            ("x-b3-traceid", "X_B3_TRACEID"),
            ("1st.käse", "_1ST_K_SE"),
        ] {
            assert_eq!(variable(header), expected);
        }
    }
}
