//! The telemetry registry, `crates/otel-service/registry`: read, resolved against the names of the OpenTelemetry semantic
//! conventions, turned into Rust constants and a document, and compared with what tests receive over OTLP. No program
//! depends on this crate; tests do, and `scripts/telemetry-registry`.

mod check;
mod constants;
mod declaration;
mod document;
mod finding;
mod prometheus;
mod registry;
mod resolution;
mod upstream;
mod value;

use std::path::{Path, PathBuf};

pub use finding::{Finding, Problem};
pub use registry::{Registry, RegistryError};

/// Where the registry lies.
pub(crate) fn folder() -> PathBuf {
    crates().join("otel-service/registry")
}

/// What is made from the registry: each file's path and what it has to contain.
pub fn generated(registry: &Registry) -> Vec<(PathBuf, String)> {
    let mut files: Vec<_> = constants::OUTPUTS
        .iter()
        .map(|output| (crates().join(output.path), output.text(registry)))
        .collect();
    files.push((crates().join("../docs/telemetry.md"), document::text(registry)));
    files
}

fn crates() -> &'static Path {
    let this = Path::new(env!("CARGO_MANIFEST_DIR"));
    this.parent()
        .expect("a crate of the workspace has a folder above it")
}
