//! The request metrics. [`Measured`] is a drop guard: however a request ends, its duration is recorded once and
//! `http.server.active_requests` goes back down.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use ::http::StatusCode;
use ::http::request::Parts;
use opentelemetry::trace::SpanContext;

use super::attributes;
use super::series::{Active, Http, Outcome, instruments};
use crate::failure::Fault;

/// `error.type` of a request whose client, or time-out, did not wait for the answer.
pub(super) const CANCELLED: &str = "cancelled";

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
    pub(super) fn start(parts: &Parts, route: Option<Arc<str>>, span: &SpanContext) -> Self {
        let outcome = Outcome {
            method: attributes::method(&parts.method),
            scheme: attributes::scheme(parts),
            version: attributes::version(parts.version),
            route,
            status: None,
            error_type: Some(Cow::Borrowed(CANCELLED)),
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

    pub(super) fn failed(&mut self, error_type: Cow<'static, str>) {
        self.outcome.status = Some(500);
        self.outcome.error_type = Some(error_type);
    }

    /// Whether the request was answered or has failed.
    pub(super) fn is_over(&self) -> bool {
        self.outcome.status.is_some()
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
