//! Where in the code an event is from: `code.file.path`, `code.line.number`, `code.function.name`. `tracing` knows file
//! and line; the function is known of events that [`crate::info!`] and its like make, which give it as a field. An
//! event's own fields of these names win.

use opentelemetry::logs::AnyValue;
use tracing::Metadata;

use super::fields::Fields;

pub(super) const FILE: &str = "code.file.path";
pub(super) const LINE: &str = "code.line.number";
pub(super) const FUNCTION: &str = "code.function.name";

/// What is known of an event's place.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Place {
    pub(super) file: Option<String>,
    pub(super) line: Option<i64>,
    pub(super) function: Option<String>,
}

impl Place {
    /// The place of an event. Takes the fields that tell it.
    pub(super) fn of(metadata: &Metadata<'_>, fields: &mut Fields) -> Self {
        let text = |value| match value {
            AnyValue::String(text) => Some(String::from(text)),
            _ => None,
        };
        let file = fields.take(FILE).and_then(text);
        let file = file.or_else(|| metadata.file().map(str::to_owned));
        let line = match fields.take(LINE) {
            Some(AnyValue::Int(line)) => Some(line),
            _ => metadata.line().map(i64::from),
        };
        Self {
            file: file.map(|file| within_crates(&file).to_owned()),
            line,
            function: fields.take(FUNCTION).and_then(text),
        }
    }
}

/// A source file's path without the place where the building machine keeps its dependencies.
fn within_crates(file: &str) -> &str {
    let Some((_, in_registry)) = file.split_once("/registry/src/") else {
        return file;
    };
    in_registry.split_once('/').map_or(in_registry, |(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_building_machines_folders_are_not_told() {
        let path = "/home/x/.cargo/registry/src/index-123/redis-1.0.0/src/lib.rs";
        assert_eq!(within_crates(path), "redis-1.0.0/src/lib.rs");
        assert_eq!(within_crates("crates/app/src/lib.rs"), "crates/app/src/lib.rs");
    }
}
