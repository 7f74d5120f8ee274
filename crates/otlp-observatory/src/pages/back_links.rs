//! `/traces/{trace_id}/links`: spans of other traces that link to a trace.

use serde::Serialize;

use super::{error::PageError, explorer::Explorer, parameters::Parameters};
use crate::store::BackLink;

#[derive(Serialize)]
pub(super) struct BackLinks {
    linked_from: Vec<BackLink>,
}

pub(super) fn list(explorer: &Explorer, parameters: &mut Parameters) -> Result<BackLinks, PageError> {
    let id = parameters.trace_id()?.ok_or(PageError::NoPage)?;
    parameters.finish()?;
    let linked_from = explorer.store.back_links(id);
    Ok(BackLinks { linked_from })
}
