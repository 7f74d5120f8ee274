//! Number of the writes of one instance on one run of a server.

use std::sync::Arc;

/// Key and field that number the writes of an instance.
pub(super) struct Counter {
    pub key: Arc<str>,
    /// Identity of the server that a request is sent to.
    pub server: Arc<str>,
}
