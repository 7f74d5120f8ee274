//! `/` and `/map`: aggregates of a time window that ends now.

use super::{error::PageError, explorer::Explorer, parameters::Parameters};
use crate::store::{Map, Overview, now};

pub(super) fn overview(explorer: &Explorer, parameters: &mut Parameters) -> Result<Overview, PageError> {
    let window = parameters.window()?;
    parameters.finish()?;
    Ok(explorer.store.overview(window, now()))
}

pub(super) fn map(explorer: &Explorer, parameters: &mut Parameters) -> Result<Map, PageError> {
    let window = parameters.window()?;
    let service = parameters.text("service")?;
    parameters.finish()?;
    Ok(explorer.store.map(window, now(), service.as_deref()))
}
