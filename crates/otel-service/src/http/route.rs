//! The route of a request.

use std::sync::Arc;

use opentelemetry::StringValue;

/// Template of a route, such as `/articles/{slug}`; clones share the text.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Route(Arc<str>);

impl Route {
    pub(super) fn new(template: &str) -> Self {
        Self(template.into())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the value of `http.route`.
    pub(super) fn value(&self) -> StringValue {
        Arc::clone(&self.0).into()
    }
}
