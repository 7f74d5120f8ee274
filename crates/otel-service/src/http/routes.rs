//! The routes of the service: the name and the attributes that all spans of a route share are made once.

use std::sync::LazyLock;

use ::http::request::Parts;
use opentelemetry::StringValue;
use otlp_recorder::{PrewrittenAttributes, Table};

use super::attributes;
use crate::metrics::SERIES_LIMIT;

/// Maximum number of combinations of method, scheme and version for each route.
const VARIANTS: usize = 16;

static ROUTES: LazyLock<Table<String, Route>> = LazyLock::new(|| Table::new(SERIES_LIMIT));

/// A route of the service.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) template: StringValue,
    /// Shared properties, keyed by method, scheme and version.
    variants: Table<(&'static str, &'static str, &'static str), Shared>,
}

/// Properties that the spans of a route share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) name: String,
    pub(super) attributes: PrewrittenAttributes,
}

/// Returns the route of `template`, or `None` if there are too many.
pub(super) fn route(template: &str) -> Option<&'static Route> {
    ROUTES.get(template, || Route {
        template: template.to_owned().into(),
        variants: Table::new(VARIANTS),
    })
}

impl Route {
    /// Returns what the spans of requests like `parts` share, or `None` if there are too many kinds of requests.
    pub(super) fn shared(&self, parts: &Parts) -> Option<&Shared> {
        let variant = (
            attributes::method(&parts.method),
            attributes::scheme(parts),
            attributes::version(parts.version),
        );
        self.variants.get(&variant, || Shared {
            name: attributes::span_name(&parts.method, Some(self.template.as_str())).into_owned(),
            attributes: PrewrittenAttributes::new(),
        })
    }
}
