//! The route of a request. Programs have few of them, so those seen first are kept for as long as the process lives, with
//! the names of their spans: copies of such text cost nothing, neither here nor on the thread that exports.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use opentelemetry::StringValue;

use super::attributes::METHODS;
use crate::metrics::{SERIES_LIMIT, Table};

/// What is kept of a route: its template, and a span's name for each of [`METHODS`].
type Known = (&'static str, &'static [&'static str]);

static KNOWN: LazyLock<Table<String, Known>> = LazyLock::new(|| Table::new(SERIES_LIMIT));

/// A route's template, as `/articles/{slug}`.
#[derive(Clone, Debug)]
pub(super) struct Route {
    template: StringValue,
    /// By method; empty for what came after the limit.
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

    /// The value of `http.route`; its copies share the text.
    pub(super) fn value(&self) -> StringValue {
        self.template.clone()
    }

    /// `{METHOD} {route}`, for one of [`METHODS`].
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

/// Never freed, and so for a bounded table only.
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
    fn a_route_is_the_same_kept_or_not() {
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
    fn a_kept_route_is_made_once() {
        let names = |route: Route| route.names.as_ptr();
        assert_eq!(names(Route::of("/kept")), names(Route::of("/kept")));
    }
}
