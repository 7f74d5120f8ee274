//! The recorder of the process and its instrumentation scopes.

use std::sync::OnceLock;

use opentelemetry::metrics::Meter;
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, InstrumentationScope, global};
use otlp_recorder::{Attributes, Recorder, SpanStart, Tracer};

use crate::names::SCHEMA_URL;
use crate::untraced::{is_untraced, passed_on};

static RECORDER: OnceLock<Recorder> = OnceLock::new();

/// Scope of the spans and instruments of the service.
static SERVICE: OnceLock<Instrumentation> = OnceLock::new();

/// Scope of this crate.
pub(crate) static OWN: Instrumentation =
    Instrumentation::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")).with_schema_url(SCHEMA_URL);

/// Installs the recorder of the process. Later calls have no effect.
pub(crate) fn install(recorder: Recorder) {
    RECORDER.get_or_init(|| recorder);
}

/// Sets the scope of the service. Later calls have no effect.
pub(crate) fn install_service(name: &'static str, version: &'static str) {
    SERVICE.get_or_init(|| Instrumentation::new(name, version).with_schema_url(SCHEMA_URL));
}

/// Returns the scope of the service, or the scope of this crate before [`crate::init`].
pub(crate) fn service() -> &'static Instrumentation {
    SERVICE.get().unwrap_or(&OWN)
}

/// Whether spans get ids.
pub(crate) fn is_installed() -> bool {
    RECORDER.get().is_some()
}

/// Whether spans are exported.
pub(crate) fn is_exporting() -> bool {
    RECORDER.get().is_some_and(Recorder::is_exporting)
}

/// An instrumentation scope: the name, version and schema URL of a library. Each library that creates spans or
/// instruments declares its scope as a static.
///
/// ```
/// use opentelemetry::trace::{SpanKind, TraceContextExt};
/// use otel_service::Context;
/// use otel_service::instrumentation::{Instrumentation, SpanStart};
/// # use otel_service::opentelemetry;
///
/// static CACHE: Instrumentation = Instrumentation::new("my-cache", "1.0.0");
///
/// let lookup = SpanStart::new("cache.lookup", SpanKind::Client);
/// let cx = CACHE.start(&Context::current(), lookup, |attributes| {
///     attributes.literal("cache.name", "articles");
///     attributes.number("cache.keys", 3);
/// });
/// cx.span().end();
/// ```
#[derive(Debug)]
pub struct Instrumentation {
    name: &'static str,
    version: &'static str,
    schema_url: Option<&'static str>,
    tracer: OnceLock<Tracer>,
}

impl Instrumentation {
    /// Returns the scope of a library.
    #[must_use]
    pub const fn new(name: &'static str, version: &'static str) -> Self {
        Self {
            name,
            version,
            schema_url: None,
            tracer: OnceLock::new(),
        }
    }

    /// Sets the URL of the schema that the names of the library follow, such as
    /// `https://opentelemetry.io/schemas/1.44.0`.
    #[must_use]
    pub const fn with_schema_url(mut self, url: &'static str) -> Self {
        self.schema_url = Some(url);
        self
    }

    /// Starts a child of the span in `parent` and returns its context.
    ///
    /// `describe` sets the attributes; it is called only if the span is recorded. Before [`crate::init`], while
    /// telemetry is disabled, and if spans are not recorded in `parent`, returns `parent` with a span that has
    /// the same ids and records nothing.
    pub fn start(
        &self,
        parent: &Context,
        start: SpanStart<'_>,
        describe: impl FnOnce(&mut Attributes),
    ) -> Context {
        match RECORDER.get() {
            Some(recorder) if !is_untraced(parent) => {
                let tracer = self.tracer.get_or_init(|| recorder.tracer(self.scope()));
                parent.with_span(tracer.start(parent, start, describe))
            }
            _ => passed_on(parent),
        }
    }

    /// Returns the meter of the library. Before [`crate::init`] it records nothing.
    pub fn meter(&self) -> Meter {
        global::meter_with_scope(self.scope())
    }

    fn scope(&self) -> InstrumentationScope {
        let scope = InstrumentationScope::builder(self.name).with_version(self.version);
        match self.schema_url {
            Some(url) => scope.with_schema_url(url).build(),
            None => scope.build(),
        }
    }
}
