//! Business spans: `article.create`, `user.login` and their like, around a piece of asynchronous work.

use std::future::Future;

use opentelemetry::trace::{FutureExt, SpanBuilder, SpanKind, TraceContextExt};
use opentelemetry::{Context, KeyValue};

use crate::context;
use crate::failure::{Failure, record_failure};

/// A span that is yet to start. It starts when [`Span::run`] is first polled.
///
/// ```no_run
/// # use std::convert::Infallible;
/// # async fn example() -> Result<u32, Infallible> {
/// use telemetry::{KeyValue, Span};
///
/// Span::internal("article.create")
///     .attribute(KeyValue::new("user.id", 7))
///     .run(async { Ok::<u32, Infallible>(42) })
///     .await
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a span records nothing until it runs something"]
pub struct Span {
    name: &'static str,
    attributes: Vec<KeyValue>,
    parent: Option<Context>,
}

impl Span {
    /// A span of kind internal.
    pub fn internal(name: &'static str) -> Span {
        Span {
            name,
            attributes: Vec::new(),
            parent: None,
        }
    }

    /// Adds an attribute that is known before the work starts; later ones go through [`crate::set_attribute`].
    pub fn attribute(mut self, attribute: KeyValue) -> Span {
        self.attributes.push(attribute);
        self
    }

    /// Puts the span below `parent` and not below the span in force.
    pub fn parent(mut self, parent: Context) -> Span {
        self.parent = Some(parent);
        self
    }

    /// Runs `work` inside the span. An error that is a [`Failure`] sets the status Error and records the exception;
    /// otherwise the status stays unset. A dropped future ends the span.
    ///
    /// # Errors
    /// Those of `work`.
    pub async fn run<T, E: Failure>(self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let cx = self.start();
        let result = work.with_context(cx.clone()).await;
        if let Err(error) = &result {
            record_failure(&cx, error);
        }
        cx.span().end();
        result
    }

    fn start(self) -> Context {
        let builder = SpanBuilder::from_name(self.name)
            .with_kind(SpanKind::Internal)
            .with_attributes(self.attributes);
        match &self.parent {
            Some(parent) => context::start(builder, parent),
            None => Context::map_current(|current| context::start(builder, current)),
        }
    }
}
