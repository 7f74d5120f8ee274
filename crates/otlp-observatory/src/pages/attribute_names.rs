//! `/attribute-names`: attributes with several names, which searches in the pages treat as one.

use serde::Serialize;

use super::{error::PageError, explorer::Explorer, parameters::Parameters};
use crate::store::attribute_names;

#[derive(Serialize)]
pub(super) struct List {
    names: Vec<&'static [&'static str]>,
}

pub(super) fn list(_: &Explorer, parameters: &mut Parameters) -> Result<List, PageError> {
    parameters.finish()?;
    let names = attribute_names().collect();
    Ok(List { names })
}
