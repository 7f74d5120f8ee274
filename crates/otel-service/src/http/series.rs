//! The instruments of HTTP requests. What is measured of a request is told apart by six properties; the series they lead
//! to in each instrument are looked up once for all, which is most of what measuring a request costs.

use std::borrow::Cow;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{BoundCounter, BoundUpDownCounter, Counter, Meter, UpDownCounter};
use opentelemetry::trace::SpanContext;

use super::route::Route;
use crate::failure::CANCELLED;
use crate::metrics::{Durations, Instruments, SECONDS, SERIES_LIMIT, Series, Table};
use crate::names::{attribute, metric};

/// `route` of a request that no route matches.
const UNMATCHED: &str = "unmatched";

/// What nginx logs for a client that went away; the closest there is to a status.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Known methods by the two schemes, and a few to spare.
const ACTIVE_LIMIT: usize = 32;

static INSTRUMENTS: Instruments<Http> = Instruments::new();

/// What tells the measurements of one request from those of another. All of it is of bounded variety.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Outcome {
    pub(super) method: &'static str,
    pub(super) scheme: &'static str,
    pub(super) version: &'static str,
    pub(super) route: Option<Route>,
    pub(super) status: Option<u16>,
    pub(super) error_type: Option<Cow<'static, str>>,
}

/// The instruments, once metrics are on.
pub(super) fn instruments() -> Option<&'static Http> {
    INSTRUMENTS.get(Http::new)
}

#[derive(Debug)]
pub(super) struct Http {
    requests: Counter<u64>,
    seconds: Durations,
    duration: Durations,
    active: UpDownCounter<i64>,
    answered: Table<Outcome, Answered>,
    being_answered: Table<(&'static str, &'static str), BoundUpDownCounter<i64>>,
}

/// The series of one outcome.
#[derive(Debug)]
struct Answered {
    requests: BoundCounter<u64>,
    seconds: Series,
    duration: Series,
}

impl Http {
    fn new(meter: &Meter) -> Self {
        Self {
            requests: meter
                .u64_counter(metric::HTTP_REQUESTS_TOTAL)
                .with_unit("{request}")
                .with_description("HTTP requests by method, route and status.")
                .build(),
            seconds: Durations::new(
                meter,
                metric::HTTP_REQUEST_DURATION_SECONDS,
                "Duration of HTTP requests by method, route and status.",
                &SECONDS,
            ),
            duration: Durations::new(
                meter,
                "http.server.request.duration",
                "Duration of HTTP server requests.",
                &SECONDS,
            ),
            active: meter
                .i64_up_down_counter("http.server.active_requests")
                .with_unit("{request}")
                .with_description("HTTP server requests that are being answered.")
                .build(),
            answered: Table::new(SERIES_LIMIT),
            being_answered: Table::new(ACTIVE_LIMIT),
        }
    }

    /// Counts a request as being answered. The same change the other way round must follow, through what this returns.
    pub(super) fn begin(&'static self, method: &'static str, scheme: &'static str) -> Active {
        let bind = || {
            self.active.bind(&[
                KeyValue::new("http.request.method", method),
                KeyValue::new("url.scheme", scheme),
            ])
        };
        let counter = match self.being_answered.get(&(method, scheme), bind) {
            Some(counter) => Cow::Borrowed(counter),
            None => Cow::Owned(bind()),
        };
        counter.add(1);
        Active(counter)
    }

    /// Records a request that took so many seconds and whose span is `span`.
    pub(super) fn record(&self, outcome: &Outcome, seconds: f64, span: &SpanContext) {
        let bind = || Answered {
            requests: self.requests.bind(&outcome.plain()),
            seconds: self.seconds.series(&outcome.plain()),
            duration: self.duration.series(&outcome.conventional()),
        };
        if let Some(series) = self.answered.get(outcome, bind) {
            series.requests.add(1);
            series.seconds.record(seconds, span);
            series.duration.record(seconds, span);
        } else {
            let plain = outcome.plain();
            self.requests.add(1, &plain);
            self.seconds.record(seconds, &plain, span);
            self.duration.record(seconds, &outcome.conventional(), span);
        }
    }
}

/// A request that counts as being answered until this is dropped.
#[derive(Debug)]
pub(super) struct Active(Cow<'static, BoundUpDownCounter<i64>>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

impl Outcome {
    /// The attributes of `http_requests_total` and `http_request_duration_seconds`.
    fn plain(&self) -> [KeyValue; 3] {
        let route = match &self.route {
            Some(route) => KeyValue::new(attribute::ROUTE, route.value()),
            None => KeyValue::new(attribute::ROUTE, UNMATCHED),
        };
        // These metrics have no place for an answer that was not given.
        let status = i64::from(self.status.unwrap_or(match self.error_type.as_deref() {
            Some(CANCELLED) => CLIENT_CLOSED_REQUEST,
            _ => 500,
        }));
        [
            KeyValue::new(attribute::METHOD, self.method),
            route,
            KeyValue::new(attribute::STATUS, status),
        ]
    }

    /// The attributes of `http.server.request.duration`.
    fn conventional(&self) -> Vec<KeyValue> {
        let mut attributes = vec![
            KeyValue::new("http.request.method", self.method),
            KeyValue::new("url.scheme", self.scheme),
            KeyValue::new("network.protocol.version", self.version),
        ];
        if let Some(route) = &self.route {
            attributes.push(KeyValue::new("http.route", route.value()));
        }
        if let Some(status) = self.status {
            attributes.push(KeyValue::new("http.response.status_code", i64::from(status)));
        }
        if let Some(error_type) = &self.error_type {
            attributes.push(KeyValue::new("error.type", error_type.clone()));
        }
        attributes
    }
}
