//! Spans around work, such as `order.create`.

use std::borrow::Cow;
use std::fmt::Display;
use std::future::Future;
use std::pin::pin;
use std::time::{Instant, SystemTime};

use opentelemetry::trace::{Link, SpanKind, TraceContextExt};
use opentelemetry::{Context, KeyValue};

use otlp_recorder::SpanStart;

use crate::context;
use crate::exceptions::Operation;
use crate::failure::{self, Failure, record_error_of, record_failure};
use crate::recorder;

/// Initial capacity, which suffices for the attributes of most spans.
const ATTRIBUTE_CAPACITY: usize = 8;

/// A span that starts when [`Span::run`] is first polled, or when [`Span::in_scope`] is called.
///
/// ```no_run
/// # use std::convert::Infallible;
/// # async fn example() -> Result<u32, Infallible> {
/// use otel_service::{KeyValue, Span};
///
/// Span::internal("order.create")
///     .attribute(KeyValue::new("user.id", "7"))
///     .run(async { Ok::<u32, Infallible>(42) })
///     .await
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a span records nothing until `run` is called"]
pub struct Span {
    name: Cow<'static, str>,
    kind: SpanKind,
    attributes: Vec<KeyValue>,
    links: Vec<Link>,
    since: Option<SystemTime>,
    parent: Option<Context>,
}

impl Span {
    /// Creates a span of kind internal.
    pub fn internal(name: impl Into<Cow<'static, str>>) -> Span {
        Self::new(name, SpanKind::Internal)
    }

    /// Creates a client span, for a call to another service. [`HttpClientLayer`](crate::HttpClientLayer) and
    /// [`Database`](crate::Database) create the spans of their calls themselves.
    pub fn client(name: impl Into<Cow<'static, str>>) -> Span {
        Self::new(name, SpanKind::Client)
    }

    /// Creates a span of any kind. Its name should have few values; identifiers belong in attributes.
    pub fn new(name: impl Into<Cow<'static, str>>, kind: SpanKind) -> Span {
        Span {
            name: name.into(),
            kind,
            attributes: Vec::new(),
            links: Vec::new(),
            since: None,
            parent: None,
        }
    }

    /// Adds an attribute that is known before the work starts. Prefer it to [`crate::set_attribute`], which is for
    /// later attributes: samplers see only the first ones.
    pub fn attribute(mut self, attribute: KeyValue) -> Span {
        if self.attributes.is_empty() {
            self.attributes.reserve(ATTRIBUTE_CAPACITY);
        }
        self.attributes.push(attribute);
        self
    }

    /// Sets the parent, which is the current span by default.
    pub fn parent(mut self, parent: Context) -> Span {
        self.parent = Some(parent);
        self
    }

    /// Adds links to the spans of `contexts`, such as the requests of a batch.
    ///
    /// Contexts that are not sampled are skipped; the span limits apply to the number of links.
    pub fn links<'a>(mut self, contexts: impl IntoIterator<Item = &'a Context>) -> Span {
        self.links
            .extend(contexts.into_iter().filter_map(context::link_to));
        self
    }

    /// Sets an earlier start time, for work that has already started.
    pub fn since(mut self, time: Instant) -> Span {
        self.since = SystemTime::now().checked_sub(time.elapsed());
        self
    }

    /// Runs `work` in the span.
    ///
    /// An error with an [`error_type`](Failure::error_type) sets the status Error and is recorded as the
    /// exception; otherwise the status remains unset. A dropped future ends the span with the `error.type`
    /// `cancelled`; a panic marks the span as failed.
    ///
    /// # Errors
    ///
    /// Returns the error of `work`.
    pub async fn run<T, E: Failure>(self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let record = |cx: &Context, error: &E| {
            record_failure(cx, Operation::Other, error);
        };
        self.run_with(work, record).await
    }

    /// Runs `work`, which returns any type of error, such as `anyhow::Error`, in the span.
    ///
    /// Every error sets the status Error and is recorded as the exception, with the name of its Rust type. Its
    /// message is `{error:#}`, which includes the causes of an `anyhow::Error`, and must not contain secrets.
    ///
    /// ```
    /// # async fn example() -> Result<(), std::num::ParseIntError> {
    /// let parse = async { "7".parse::<u32>() };
    /// otel_service::Span::internal("number.parse").run_any(parse).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the error of `work`.
    pub async fn run_any<T, E: Display>(self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        self.run_with(work, record_error_of).await
    }

    async fn run_with<T, E>(
        self,
        work: impl Future<Output = Result<T, E>>,
        record: impl FnOnce(&Context, &E),
    ) -> Result<T, E> {
        let mut running = Running {
            cx: self.start(),
            ended: false,
        };
        let result = context::within(&running.cx, pin!(work)).await;
        if let Err(error) = &result {
            record(&running.cx, error);
        }
        running.ended = true;
        result
    }

    /// Calls `work` in the span, for code that is not asynchronous. A panic marks the span as failed;
    /// [`record_error`](crate::record_error) records an error.
    ///
    /// ```
    /// use otel_service::{Span, record_error};
    ///
    /// let parse = || "seven".parse::<u32>().inspect_err(record_error);
    /// assert!(Span::internal("number.parse").in_scope(parse).is_err());
    /// ```
    pub fn in_scope<T>(self, work: impl FnOnce() -> T) -> T {
        let mut running = Running {
            cx: self.start(),
            ended: false,
        };
        let _attached = running.cx.clone().attach();
        let result = work();
        running.ended = true;
        result
    }

    fn start(self) -> Context {
        let start = SpanStart::new(self.name, self.kind)
            .links(&self.links)
            .time(self.since);
        let start = |parent: &Context| {
            recorder::service().start(parent, start, |into| {
                self.attributes.iter().for_each(|attribute| into.set(attribute));
            })
        };
        match &self.parent {
            Some(parent) => start(parent),
            None => Context::map_current(start),
        }
    }
}

/// Guard that ends the span on drop.
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
