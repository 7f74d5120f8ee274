//! Business spans: `article.create`, `user.login` and their like, around a piece of asynchronous work.

use std::future::Future;
use std::pin::pin;
use std::time::{Instant, SystemTime};

use opentelemetry::trace::{Link, SpanKind, TraceContextExt};
use opentelemetry::{Context, KeyValue};

use crate::context;
use crate::failure::{self, Failure, record_failure};
use crate::recording::Beginning;

/// Most spans have no more; growing would move the first ones.
const USUAL_ATTRIBUTES: usize = 8;

/// A span that is yet to start. It starts when [`Span::run`] is first polled.
///
/// ```no_run
/// # use std::convert::Infallible;
/// # async fn example() -> Result<u32, Infallible> {
/// use otel_service::{KeyValue, Span};
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
    links: Vec<Link>,
    since: Option<SystemTime>,
    parent: Option<Context>,
}

impl Span {
    /// A span of kind internal.
    pub fn internal(name: &'static str) -> Span {
        Span {
            name,
            attributes: Vec::new(),
            links: Vec::new(),
            since: None,
            parent: None,
        }
    }

    /// Adds an attribute that is known before the work starts; later ones go through [`crate::set_attribute`].
    pub fn attribute(mut self, attribute: KeyValue) -> Span {
        if self.attributes.is_empty() {
            self.attributes.reserve(USUAL_ATTRIBUTES);
        }
        self.attributes.push(attribute);
        self
    }

    /// Puts the span below `parent` and not below the span in force.
    pub fn parent(mut self, parent: Context) -> Span {
        self.parent = Some(parent);
        self
    }

    /// Links the span to the ones in force in `contexts`: those of the things that it works on together. Contexts that are
    /// not sampled are left out; the span limits bound how many links there may be.
    pub fn links<'a>(mut self, contexts: impl IntoIterator<Item = &'a Context>) -> Span {
        self.links.extend(contexts.into_iter().filter_map(context::link));
        self
    }

    /// Lets the span begin at `time` and not when it is first polled, for work that is known to be worth a span only when
    /// it is done.
    pub fn since(mut self, time: Instant) -> Span {
        self.since = SystemTime::now().checked_sub(time.elapsed());
        self
    }

    /// Runs `work` inside the span. An error that is a [`Failure`] sets the status Error and records the exception;
    /// otherwise the status stays unset. A dropped future ends the span with `error.type` `cancelled`, a panic marks it as
    /// failed.
    ///
    /// # Errors
    /// Those of `work`.
    pub async fn run<T, E: Failure>(self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let mut running = Running {
            cx: self.start(),
            ended: false,
        };
        let result = context::within(&running.cx, pin!(work)).await;
        if let Err(error) = &result {
            record_failure(&running.cx, error);
        }
        running.ended = true;
        result
    }

    fn start(self) -> Context {
        let Self {
            name,
            attributes,
            links,
            since,
            parent,
        } = self;
        let beginning = Beginning {
            links: &links,
            since,
            ..Beginning::new(name, SpanKind::Internal)
        };
        let start = |parent: &Context| {
            context::start(parent, beginning, |into| {
                attributes.iter().for_each(|attribute| into.set(attribute));
            })
        };
        match &parent {
            Some(parent) => start(parent),
            None => Context::map_current(start),
        }
    }
}

/// A span whose work is under way; it ends with it, however that is.
struct Running {
    cx: Context,
    ended: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            failure::record_unfinished(&self.cx);
        }
        self.cx.span().end();
    }
}
