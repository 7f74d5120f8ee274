//! The metrics of one request.

use std::borrow::Cow;
use std::time::Instant;

use ::http::request::Parts;
use ::http::{Method, StatusCode};
use opentelemetry::StringValue;
use opentelemetry::trace::SpanContext;

use super::attributes;
use super::series::{Active, Http, Labels, instruments};
use crate::failure::ServerError;

/// The metrics of a request in progress.
#[derive(Debug)]
pub(super) struct Measured {
    instruments: Option<(&'static Http, Active)>,
    started: Instant,
    method: Method,
    labels: Labels,
    /// Span that exemplars refer to. The span may have ended before the metrics are recorded.
    span: SpanContext,
}

impl Measured {
    pub(super) fn start(parts: &Parts, route: Option<StringValue>, span: &SpanContext) -> Self {
        let labels = Labels {
            method: attributes::method(&parts.method),
            scheme: attributes::scheme(parts),
            version: attributes::version(parts.version),
            route,
            status: None,
            error_type: None,
        };
        Self {
            instruments: instruments().map(|http| (http, http.begin(labels.method, labels.scheme))),
            started: Instant::now(),
            method: parts.method.clone(),
            labels,
            span: span.clone(),
        }
    }

    /// Sets the status of the response. Returns whether the response is sent without a body, even if the
    /// service provides one (RFC 9110).
    pub(super) fn responded(&mut self, status: StatusCode, fault: Option<&ServerError>) -> bool {
        self.labels.status = Some(status.as_u16());
        self.labels.error_type = status.is_server_error().then(|| match fault {
            Some(fault) => fault.error_type.clone(),
            None => Cow::Owned(status.as_str().to_owned()),
        });
        status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || self.method == Method::HEAD
            || self.method == Method::CONNECT && status.is_success()
    }

    /// Sets the error type of the request; returns false if an earlier failure has set one.
    pub(super) fn failed(&mut self, error_type: &'static str) -> bool {
        let error = &mut self.labels.error_type;
        if error.is_some() {
            return false;
        }
        *error = Some(Cow::Borrowed(error_type));
        true
    }

    /// Records the duration and decrements `http.server.active_requests`.
    pub(super) fn record(self) {
        if let Some((http, active)) = self.instruments {
            active.add(-1);
            http.record(&self.labels, self.started.elapsed().as_secs_f64(), &self.span);
        }
    }
}
