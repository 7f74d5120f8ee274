//! The request metrics. [`Measured`] is a drop guard: however a request ends, its duration is recorded once and
//! `http.server.active_requests` goes back down.

use std::borrow::Cow;
use std::time::Instant;

use ::http::StatusCode;
use ::http::request::Parts;
use opentelemetry::trace::SpanContext;

use super::attributes;
use super::route::Route;
use super::series::{Active, Http, Outcome, instruments};
use crate::failure::Fault;

/// A request being measured.
#[derive(Debug)]
pub(super) struct Measured {
    instruments: Option<(&'static Http, Active)>,
    started: Instant,
    outcome: Outcome,
    /// What exemplars lead to; it has ended when the request is recorded.
    span: SpanContext,
}

impl Measured {
    pub(super) fn start(parts: &Parts, route: Option<Route>, span: &SpanContext) -> Self {
        let outcome = Outcome {
            method: attributes::method(&parts.method),
            scheme: attributes::scheme(parts),
            version: attributes::version(parts.version),
            route,
            status: None,
            error_type: None,
        };
        Self {
            instruments: instruments().map(|http| (http, http.begin(outcome.method, outcome.scheme))),
            started: Instant::now(),
            outcome,
            span: span.clone(),
        }
    }

    pub(super) fn answered(&mut self, status: StatusCode, fault: Option<&Fault>) {
        self.outcome.status = Some(status.as_u16());
        self.outcome.error_type = status.is_server_error().then(|| match fault {
            Some(fault) => fault.error_type.clone(),
            None => Cow::Owned(status.as_str().to_owned()),
        });
    }

    /// Keeps why the request ended without its answer; false when an earlier failure is known already.
    pub(super) fn failed(&mut self, error_type: &'static str) -> bool {
        let error = &mut self.outcome.error_type;
        if error.is_some() {
            return false;
        }
        *error = Some(Cow::Borrowed(error_type));
        true
    }

    /// Whether answers with this status have no body, whatever the service gives them (RFC 9110).
    pub(super) fn is_bodiless(&self, status: StatusCode) -> bool {
        status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || self.outcome.method == "HEAD"
            || self.outcome.method == "CONNECT" && status.is_success()
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        if let Some((http, active)) = self.instruments.take() {
            drop(active);
            http.record(&self.outcome, self.started.elapsed().as_secs_f64(), &self.span);
        }
    }
}
