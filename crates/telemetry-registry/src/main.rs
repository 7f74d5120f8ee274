//! Writes the files that are generated from the telemetry registry.

use anyhow::Context as _;
use telemetry_registry::{Registry, generated};

fn main() -> anyhow::Result<()> {
    for (path, text) in generated(&Registry::load()?) {
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
