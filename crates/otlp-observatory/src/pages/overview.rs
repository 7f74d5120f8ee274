//! `/` and `/map`: what happened in a window of time up to now.

use super::{Explorer, Page, Refusal, answer::json, parameters::Parameters};
use crate::store::now;

/// The window unless one is given: five minutes.
const WINDOW: u64 = 300_000_000_000;

pub(super) const OVERVIEW: Page = Page {
    takes: &["window"],
    by_the_clock: true,
    answer: overview,
};

pub(super) const MAP: Page = Page {
    takes: &["window"],
    by_the_clock: true,
    answer: map,
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
