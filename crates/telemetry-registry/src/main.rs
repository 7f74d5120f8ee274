//! Writes what is made from the telemetry registry.

use anyhow::Context as _;
use telemetry_registry::{Registry, generated};

fn main() -> anyhow::Result<()> {
    for (path, text) in generated(&Registry::load()?) {
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}
