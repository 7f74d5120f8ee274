//! `/` and `/map`: aggregates of a time window that ends now.

use super::{
    answer::json,
    page::{Explorer, Page},
    parameters::Parameters,
    refusal::Refusal,
};
use crate::store::now;

/// Default window: five minutes, in nanoseconds.
const WINDOW: u64 = 300_000_000_000;

pub(super) const OVERVIEW: Page = Page {
    parameters: &["window"],
    is_time_dependent: true,
    compute: overview,
};

pub(super) const MAP: Page = Page {
    parameters: &["window"],
    is_time_dependent: true,
    compute: map,
};

fn overview(explorer: &Explorer, parameters: &Parameters) -> Result<Vec<u8>, Refusal> {
    let window = parameters.window()?.unwrap_or(WINDOW);
    let generation = explorer.store.generation();
    json(generation, explorer.store.overview(window, now()))
}

fn map(explorer: &Explorer, parameters: &Parameters) -> Result<Vec<u8>, Refusal> {
    let window = parameters.window()?.unwrap_or(WINDOW);
    let generation = explorer.store.generation();
    json(generation, explorer.store.map(window, now()))
}
