//! The layer of this crate for a `tracing` subscriber: spans go to the recorder, events to the log output and
//! the logger. Its filter applies `RUST_LOG` to events only, and turns off the spans of transports.

use std::sync::{Arc, Once};

use otlp_recorder::SpanLayer;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer};

use crate::logs::{self, LogEvents};
use crate::sqlx;

/// Prefixes of targets whose spans describe the internals of a transport or a runtime.
const QUIET_TARGETS: [&str; 13] = [
    "h2::",
    "hyper",
    "opentelemetry",
    "otlp_recorder",
    "quinn",
    "reqwest::",
    "rmcp::",
    "rustls",
    "tokio::",
    "tokio_util::",
    "tonic::",
    "tower::",
    "want",
];

/// Most verbose level of the spans that are recorded. Spans of tower-http and others have this level.
const DEFAULT_SPAN_LEVEL: LevelFilter = LevelFilter::DEBUG;

/// Returns the filter of spans: the defaults, overridden by `directives`, such as `info,my_crate=trace,h2=debug`.
pub(crate) fn span_filter(directives: &str) -> Result<Targets, ParseError> {
    let quiet = QUIET_TARGETS.map(|target| (target, LevelFilter::OFF));
    // An empty directive would set the default level to ERROR.
    let own: Targets = if directives.is_empty() {
        Targets::new()
    } else {
        directives.parse()?
    };
    let default_level = own.default_level().unwrap_or(DEFAULT_SPAN_LEVEL);
    let mut filter = Targets::new().with_targets(quiet).with_default(default_level);
    // `h2=debug` must override the longer and thus more specific `h2::=off`.
    filter.extend(own.iter().map(|(target, level)| (format!("{target}::"), level)));
    filter.extend(own);
    Ok(filter)
}

/// Records spans and logs events.
#[derive(Debug)]
pub(crate) struct TelemetryLayer {
    pub(crate) spans: SpanLayer,
    pub(crate) logs: LogEvents,
    /// Warnings to be logged before the first event.
    pub(crate) warnings: Vec<String>,
    /// Level of the events of the `log` crate to forward from the first span or event on; a program that installs
    /// the subscriber with the feature `tracing-log` of tracing-subscriber forwards them itself.
    pub(crate) log_level: Option<LevelFilter>,
    pub(crate) first: Once,
    /// `db.system.name` of the statements of sqlx; `None` if they have no spans.
    pub(crate) sqlx_system: Option<&'static str>,
    pub(crate) log_filter: Arc<EnvFilter>,
}

impl TelemetryLayer {
    /// Completes the set-up of [`TelemetryBuilder::build`](crate::TelemetryBuilder::build), once the subscriber is in use.
    fn begin(&self) {
        self.first.call_once(|| {
            if let Some(level) = self.log_level {
                // Fails if the program forwards the events, or has another use for them.
                let _ = logs::bridge_log(level);
            }
            self.warnings.iter().for_each(|warning| self.logs.warn(warning));
        });
    }
}

impl<S> Layer<S> for TelemetryLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, new: &Attributes<'_>, id: &Id, cx: Context<'_, S>) {
        self.begin();
        self.spans.on_new_span(new, id, cx);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, cx: Context<'_, S>) {
        self.spans.on_record(id, values, cx);
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, cx: Context<'_, S>) {
        self.spans.on_follows_from(id, follows, cx);
    }

    fn on_event(&self, event: &Event<'_>, cx: Context<'_, S>) {
        self.begin();
        if let Some(system) = self.sqlx_system
            && sqlx::is_statement(event.metadata())
        {
            sqlx::record(event, system);
            // The filter lets these events through for the sake of their spans, even if they are not logged.
            if !Filter::<S>::enabled(&*self.log_filter, event.metadata(), &cx) {
                return;
            }
        }
        self.logs.add(event, &cx);
        self.spans.on_event(event, cx);
    }

    fn on_enter(&self, id: &Id, cx: Context<'_, S>) {
        self.spans.on_enter(id, cx);
    }

    fn on_exit(&self, id: &Id, cx: Context<'_, S>) {
        self.spans.on_exit(id, cx);
    }

    fn on_close(&self, id: Id, cx: Context<'_, S>) {
        self.spans.on_close(id, cx);
    }
}

/// The filter of [`TelemetryLayer`].
#[derive(Debug)]
pub(crate) struct TelemetryFilter {
    pub(crate) spans: Targets,
    pub(crate) logs: Arc<EnvFilter>,
    pub(crate) has_sqlx: bool,
}

impl TelemetryFilter {
    fn is_statement(&self, metadata: &Metadata<'_>) -> bool {
        self.has_sqlx && sqlx::is_statement(metadata)
    }
}

impl<S> Filter<S> for TelemetryFilter
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn enabled(&self, metadata: &Metadata<'_>, cx: &Context<'_, S>) -> bool {
        if metadata.is_span() {
            Filter::<S>::enabled(&self.spans, metadata, cx)
        } else {
            self.is_statement(metadata) || Filter::<S>::enabled(&*self.logs, metadata, cx)
        }
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        // `RUST_LOG` may select events by their spans, so its filter must know all callsites.
        let of_logs = Filter::<S>::callsite_enabled(&*self.logs, metadata);
        if metadata.is_span() {
            Filter::<S>::callsite_enabled(&self.spans, metadata)
        } else if self.is_statement(metadata) {
            Interest::always()
        } else {
            of_logs
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let spans = Filter::<S>::max_level_hint(&self.spans)?;
        Some(spans.max(Filter::<S>::max_level_hint(&*self.logs)?))
    }

    fn on_new_span(&self, new: &Attributes<'_>, id: &Id, cx: Context<'_, S>) {
        Filter::<S>::on_new_span(&*self.logs, new, id, cx);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, cx: Context<'_, S>) {
        Filter::<S>::on_record(&*self.logs, id, values, cx);
    }

    fn on_enter(&self, id: &Id, cx: Context<'_, S>) {
        Filter::<S>::on_enter(&*self.logs, id, cx);
    }

    fn on_exit(&self, id: &Id, cx: Context<'_, S>) {
        Filter::<S>::on_exit(&*self.logs, id, cx);
    }

    fn on_close(&self, id: Id, cx: Context<'_, S>) {
        Filter::<S>::on_close(&*self.logs, id, cx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_transports_are_off_unless_they_are_turned_on() {
        let filter = span_filter("").unwrap();
        let debug = tracing::Level::DEBUG;
        for (target, enabled) in [
            ("h2::client", false),
            ("hyper_util::client::legacy", false),
            ("tower::buffer::worker", false),
            ("tower_http::trace::make_span", true),
            ("reqwest_tracing::reqwest_otel_span_builder", true),
            ("shop::orders", true),
        ] {
            assert_eq!(filter.would_enable(target, &debug), enabled, "{target}");
        }
        let filter = span_filter("info,h2=debug,shop=trace").unwrap();
        assert!(filter.would_enable("h2::client", &debug));
        assert!(!filter.would_enable("other", &debug));
        assert!(filter.would_enable("shop", &tracing::Level::TRACE));
        assert!(span_filter("shop=often").is_err());
    }
}
