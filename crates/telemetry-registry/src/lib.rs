//! The telemetry registry: reads the declarations of a project's telemetry, resolves them against the names
//! of the OpenTelemetry semantic conventions, generates Rust constants and a document from them, and checks
//! telemetry that tests receive over OTLP. The files are listed in a [`Layout`].

mod check;
mod constants;
mod declaration;
mod document;
mod error;
mod finding;
mod layout;
mod load;
mod naming;
mod prometheus;
mod registry;
mod resolution;
mod upstream;
mod value;

use std::path::PathBuf;

pub use error::RegistryError;
pub use finding::{Finding, Problem};
pub use layout::Layout;
pub use registry::Registry;

/// Returns the path and the expected content of each generated file.
pub fn generated(layout: &Layout, registry: &Registry) -> Vec<(PathBuf, String)> {
    let mut files: Vec<_> = layout
        .registries
        .iter()
        .enumerate()
        .map(|(index, declared)| {
            (
                declared.constants.clone(),
                constants::text(registry, index, &declared.visibility),
            )
        })
        .collect();
    files.push((
        layout.document.clone(),
        document::text(registry, &layout.introduction),
    ));
    files
}
