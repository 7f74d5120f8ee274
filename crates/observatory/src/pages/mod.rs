//! The explorer: pages for a browser, and the same as JSON for everyone else, under the same addresses.

use std::sync::Arc;

use axum::Router;

use crate::store::Store;

/// All routes of the explorer.
pub(crate) fn router(_store: Arc<Store>) -> Router {
    Router::new()
}
