//! `/problems`: errors, repeated and slow operations, and traces that contradict themselves.

use super::{error::PageError, explorer::Explorer, parameters::Parameters};
use crate::store::{ProblemKind, ProblemSearch, Problems, now};

pub(super) fn problems(explorer: &Explorer, parameters: &mut Parameters) -> Result<Problems, PageError> {
    let search = ProblemSearch {
        since: parameters.since()?,
        service: parameters.text("service")?,
        kind: parameters.parsed("kind", "is not a kind of problem", ProblemKind::parse)?,
        limit: parameters.limit()?,
    };
    parameters.finish()?;
    Ok(explorer.store.problems(&search, now()))
}
