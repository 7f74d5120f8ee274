//! The variables of the HTTP instrumentation.

use http::{HeaderName, Method};

use super::variables::Variables;
use crate::http_settings::{HttpSettings, Pattern, SideSettings};

pub(super) fn settings(variables: &mut Variables<'_>) -> HttpSettings {
    let known_methods = known_methods(variables);
    let mut side = |side| SideSettings {
        known_methods: known_methods.clone(),
        request_headers: headers(side, "REQUEST", variables),
        response_headers: headers(side, "RESPONSE", variables),
    };
    HttpSettings {
        server: side("SERVER"),
        client: side("CLIENT"),
        excluded_paths: excluded_paths(variables),
    }
}

/// Returns the methods in the variable, which replace the default.
fn known_methods(variables: &mut Variables<'_>) -> Option<Vec<String>> {
    let name = "OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS";
    let methods = list(name, "HTTP methods", is_method, variables);
    (!methods.is_empty()).then_some(methods)
}

fn headers(side: &str, message: &str, variables: &mut Variables<'_>) -> Vec<Pattern> {
    let name = format!("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_{side}_{message}");
    let entries = list(&name, "names of headers", is_header, variables);
    entries.iter().map(|entry| header(entry)).collect()
}

pub(super) fn is_method(text: &str) -> bool {
    Method::from_bytes(text.as_bytes()).is_ok()
}

/// Whether `text` is the name of a header. `*` is allowed in names.
pub(super) fn is_header(text: &str) -> bool {
    HeaderName::from_bytes(text.as_bytes()).is_ok()
}

pub(super) fn header(name: &str) -> Pattern {
    Pattern::new(&name.to_ascii_lowercase())
}

/// Returns the patterns of excluded paths. An entry that does not start with `/` may match any part of the path.
fn excluded_paths(variables: &mut Variables<'_>) -> Vec<Pattern> {
    let name = "OTEL_INSTRUMENTATION_HTTP_EXCLUDED_URLS";
    // Only the path counts, because a client can send any host and query, to leave no span.
    let is_path = |entry: &str| !entry.contains("://") && !entry.contains('?');
    let entries = list(name, "paths", is_path, variables);
    let patterns = entries.iter().map(|entry| match entry.starts_with('/') {
        true => Pattern::new(entry),
        false => Pattern::new(&format!("*{entry}*")),
    });
    patterns.collect()
}

/// Returns the valid entries of a comma-separated list, with a warning about others.
fn list(
    name: &str,
    items: &str,
    is_valid: impl Fn(&str) -> bool,
    variables: &mut Variables<'_>,
) -> Vec<String> {
    let text = variables.text(name).unwrap_or_default();
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let (valid, invalid): (Vec<&str>, Vec<&str>) = entries.partition(|entry| is_valid(entry));
    if !invalid.is_empty() {
        variables.warn(format!(
            "{name} has entries that are not {items} ({}); they are ignored",
            invalid.len()
        ));
    }
    valid.into_iter().map(str::to_owned).collect()
}
