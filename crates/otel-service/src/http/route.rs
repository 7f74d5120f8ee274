//! The route of a request. A program has few routes, so the first ones seen are kept until the process exits, together
//! with the names of their spans: cloning static text allocates nothing, here or on the export thread.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use opentelemetry::StringValue;

use super::attributes::METHODS;
use crate::metrics::{SERIES_LIMIT, Table};

/// Template of a known route, and a span name for each of [`METHODS`].
type Known = (&'static str, &'static [&'static str]);

static KNOWN: LazyLock<Table<String, Known>> = LazyLock::new(|| Table::new(SERIES_LIMIT));

/// Template of a route, such as `/articles/{slug}`.
#[derive(Clone, Debug)]
pub(super) struct Route {
    template: StringValue,
    /// Span names in the order of [`METHODS`]; empty for routes beyond the limit.
    names: &'static [&'static str],
}

impl Route {
    pub(super) fn of(template: &str) -> Self {
        match KNOWN.get(template, || keep(template)) {
            Some(&(template, names)) => Self {
                template: template.into(),
                names,
            },
            None => Self {
                template: Arc::<str>::from(template).into(),
                names: &[],
            },
        }
    }

    /// Returns the value of `http.route`; clones share the text.
    pub(super) fn value(&self) -> StringValue {
        self.template.clone()
    }

    /// Returns `{METHOD} {route}` for one of [`METHODS`].
    pub(super) fn span_name(&self, method: &'static str) -> Cow<'static, str> {
        let known = METHODS.iter().position(|known| *known == method);
        match known.and_then(|known| self.names.get(known)) {
            Some(name) => Cow::Borrowed(name),
            None => name(method, self.template.as_str()).into(),
        }
    }
}

fn name(method: &str, template: &str) -> String {
    [method, " ", template].concat()
}

/// Leaks the texts of a route; only for a table with a limit.
fn keep(template: &str) -> Known {
    let names: Vec<&'static str> = METHODS
        .iter()
        .map(|method| &*name(method, template).leak())
        .collect();
    (template.to_owned().leak(), names.leak())
}

impl PartialEq for Route {
    fn eq(&self, other: &Self) -> bool {
        self.template == other.template
    }
}

impl Eq for Route {}

impl Hash for Route {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.template.as_str().hash(hasher);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_route_equals_one_that_is_not_kept() {
        let kept = Route::of("/articles/{slug}");
        let other = Route {
            template: Arc::<str>::from("/articles/{slug}").into(),
            names: &[],
        };
        assert_eq!(kept, other);
        for method in METHODS {
            assert_eq!(kept.span_name(method), format!("{method} /articles/{{slug}}"));
            assert_eq!(kept.span_name(method), other.span_name(method));
        }
        assert_eq!(kept.value(), other.value());
    }

    #[test]
    fn a_kept_route_is_stored_once() {
        let names = |route: Route| route.names.as_ptr();
        assert_eq!(names(Route::of("/kept")), names(Route::of("/kept")));
    }
}
