//! Writes the files that are generated from a telemetry registry. The argument is the path of its layout.

use std::env;
use std::path::Path;

use anyhow::Context as _;
use telemetry_registry::{Layout, Registry, generated};

fn main() -> anyhow::Result<()> {
    let path = env::args().nth(1).context("the path of the layout is missing")?;
    let layout = Layout::read(Path::new(&path))?;
    for (path, text) in generated(&layout, &Registry::load(&layout)?) {
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
