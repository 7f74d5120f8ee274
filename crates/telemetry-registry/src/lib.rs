//! The telemetry registry, `crates/otel-service/registry`: reads it, resolves it against the names of the
//! OpenTelemetry semantic conventions, generates Rust constants and a document from it, and checks telemetry
//! that tests receive over OTLP. Only tests and `scripts/telemetry-registry` use this crate.

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

/// Returns the folder of the registry.
pub(crate) fn folder() -> PathBuf {
    crates().join("otel-service/registry")
}

/// Returns the path and the expected content of each generated file.
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
    this.parent().expect("the crate is in a folder of the workspace")
}
