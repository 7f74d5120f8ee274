//! Rust constants of the names that we declare. Upstream's have none: they are written where they are used, and tests
//! find the wrong ones.

use std::fmt::Write as _;

use crate::registry::Registry;

/// What belongs to the service alone and not to the crate that others may use as well.
const OF_THE_SERVICE: [&str; 3] = ["articles", "job", "users"];

/// One file of constants.
pub(crate) struct Output {
    /// Below `crates`.
    pub(crate) path: &'static str,
    of_the_service: bool,
}

pub(crate) const OUTPUTS: [Output; 2] = [
    Output {
        path: "otel-service/src/names.rs",
        of_the_service: false,
    },
    Output {
        path: "pressroom/src/names.rs",
        of_the_service: true,
    },
];

impl Output {
    pub(crate) fn text(&self, registry: &Registry) -> String {
        let mut text = String::from(
            "//! The names of our own telemetry, for use where it is made. Written by `scripts/telemetry-registry` from\n\
             //! `crates/otel-service/registry`; change them there.\n",
        );
        let attributes = registry.attributes.iter().map(|(name, attribute)| {
            let about = format!("{} Its type is {}.", attribute.brief, attribute.value_type);
            (attribute.concern.as_str(), name.as_str(), about)
        });
        self.module(&mut text, "attribute", "Attributes.", attributes);
        let events = registry
            .events
            .iter()
            .map(|(name, event)| (event.concern.as_str(), name.as_str(), event.brief.clone()));
        self.module(&mut text, "event", "Events.", events);
        let metrics = registry.metrics.iter().map(|(name, metric)| {
            let about = format!(
                "{} A {} in {}.",
                metric.brief,
                metric.instrument.as_str(),
                unit(&metric.unit)
            );
            (metric.concern.as_str(), name.as_str(), about)
        });
        self.module(&mut text, "metric", "Metrics.", metrics);
        let spans = registry.spans.iter().filter_map(|span| match &span.names[..] {
            [name] if !name.contains('{') => {
                let about = format!("{} Its kind is {}.", span.brief, span.kind.as_str());
                Some((span.concern.as_str(), name.as_str(), about))
            }
            _ => None,
        });
        self.module(&mut text, "span", "Spans, where they have one name.", spans);
        text
    }

    /// `names` are each the concern, the name and what is to be said of it.
    fn module<'a>(
        &self,
        text: &mut String,
        module: &str,
        about: &str,
        names: impl Iterator<Item = (&'a str, &'a str, String)>,
    ) {
        let mut ours: Vec<_> = names
            // The fields of log events are words in a macro, which takes no constants.
            .filter(|(concern, name, _)| *concern != "logs" || name.starts_with("otel"))
            .filter(|(concern, ..)| OF_THE_SERVICE.contains(concern) == self.of_the_service)
            .collect();
        if ours.is_empty() {
            return;
        }
        ours.sort();
        ours.sort_by_key(|(_, name, _)| *name);
        put(text, format_args!("\n/// {about}\npub mod {module} {{\n"));
        for (index, (_, name, about)) in ours.iter().enumerate() {
            if index > 0 {
                text.push('\n');
            }
            for line in wrapped(about, 100) {
                put(text, format_args!("    /// {line}\n"));
            }
            put(
                text,
                format_args!("    pub const {}: &str = \"{name}\";\n", constant(name)),
            );
        }
        text.push_str("}\n");
    }
}

fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments)
        .expect("writing to a String cannot fail");
}

fn unit(unit: &str) -> String {
    match unit {
        "s" => "seconds".to_owned(),
        other => format!("`{other}`"),
    }
}

/// `article.slug` as `ARTICLE_SLUG`, `otelTraceID` as `OTEL_TRACE_ID`.
fn constant(name: &str) -> String {
    let mut constant = String::with_capacity(name.len() + 4);
    let mut after_lower_case = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() && after_lower_case {
            constant.push('_');
        }
        after_lower_case = c.is_ascii_lowercase();
        constant.push(if c.is_ascii_alphanumeric() {
            c.to_ascii_uppercase()
        } else {
            '_'
        });
    }
    constant
}

/// The words of `text` in lines of at most `width` characters.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::constant;

    #[test]
    fn a_constant_has_the_names_words() {
        for (name, expected) in [
            ("article.slug", "ARTICLE_SLUG"),
            ("http_requests_total", "HTTP_REQUESTS_TOTAL"),
            ("otelTraceID", "OTEL_TRACE_ID"),
        ] {
            assert_eq!(constant(name), expected);
        }
    }
}
