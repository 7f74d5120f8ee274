//! The instruments of HTTP requests. Six properties of a request select its time series in each instrument;
//! the series are looked up once per combination, because the look-up is most of the cost of recording a
//! request.

use std::borrow::Cow;

use opentelemetry::metrics::{BoundCounter, BoundUpDownCounter, Counter, UpDownCounter};
use opentelemetry::trace::SpanContext;
use opentelemetry::{KeyValue, StringValue};
use otlp_recorder::{DurationHistogram, DurationSeries, Table};

use crate::failure::CANCELLED;
use crate::metrics::{InstrumentFactory, Instruments, SECONDS, SERIES_LIMIT, python_names};
use crate::names::{attribute, metric};
use crate::recorder::OWN;

/// Value of `route` for a request that no route matches.
const UNMATCHED: &str = "unmatched";

/// Status that nginx logs when the client closed the connection; no standard status fits.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Maximum number of series of `http.server.active_requests`, more than the default methods times two schemes.
const ACTIVE_LIMIT: usize = 32;

static INSTRUMENTS: Instruments<Http> = Instruments::new();

/// Properties of a request that select its time series. Each has a bounded number of values.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Labels {
    pub(super) method: &'static str,
    pub(super) scheme: &'static str,
    pub(super) version: &'static str,
    /// Template of the route, such as `/articles/{slug}`; clones share the text.
    pub(super) route: Option<StringValue>,
    pub(super) status: Option<u16>,
    pub(super) error_type: Option<Cow<'static, str>>,
}

/// Returns the instruments, or `None` while metrics are disabled.
pub(super) fn instruments() -> Option<&'static Http> {
    INSTRUMENTS.get(&OWN, Http::new)
}

#[derive(Debug)]
pub(super) struct Http {
    /// `http_requests_total` and `http_request_duration_seconds`; `None` without [`python_names`].
    plain: Option<(Counter<u64>, DurationHistogram)>,
    duration: DurationHistogram,
    active: UpDownCounter<i64>,
    finished_series: Table<Labels, FinishedSeries>,
    active_series: Table<(&'static str, &'static str), BoundUpDownCounter<i64>>,
}

/// The series of finished requests with the same labels.
#[derive(Debug)]
struct FinishedSeries {
    plain: Option<(BoundCounter<u64>, DurationSeries)>,
    duration: DurationSeries,
}

impl Http {
    fn new(factory: &InstrumentFactory<'_>) -> Self {
        let meter = factory.meter();
        let plain = || {
            let requests = meter
                .u64_counter(metric::HTTP_REQUESTS_TOTAL)
                .with_unit("{request}")
                .with_description("HTTP requests by method, route and status.")
                .build();
            let seconds = factory.durations(
                metric::HTTP_REQUEST_DURATION_SECONDS,
                "Duration of HTTP requests by method, route and status.",
                &SECONDS,
            );
            (requests, seconds)
        };
        Self {
            plain: python_names().then(plain),
            duration: factory.durations(
                "http.server.request.duration",
                "Duration of HTTP server requests.",
                &SECONDS,
            ),
            active: meter
                .i64_up_down_counter("http.server.active_requests")
                .with_unit("{request}")
                .with_description("Number of active HTTP server requests.")
                .build(),
            finished_series: Table::new(SERIES_LIMIT),
            active_series: Table::new(ACTIVE_LIMIT),
        }
    }

    /// Increments `http.server.active_requests`, and returns the counter to decrement at the end of the request.
    pub(super) fn begin(&'static self, method: &'static str, scheme: &'static str) -> Active {
        let bind = || {
            self.active.bind(&[
                KeyValue::new("http.request.method", method),
                KeyValue::new("url.scheme", scheme),
            ])
        };
        let counter = match self.active_series.get(&(method, scheme), bind) {
            Some(counter) => Cow::Borrowed(counter),
            None => Cow::Owned(bind()),
        };
        counter.add(1);
        counter
    }

    /// Records a finished request: its duration in seconds, and its span for exemplars.
    pub(super) fn record(&self, labels: &Labels, seconds: f64, span: &SpanContext) {
        let bind = || FinishedSeries {
            plain: self.plain.as_ref().map(|(requests, seconds)| {
                let plain = labels.plain();
                (requests.bind(&plain), seconds.series(&plain))
            }),
            duration: self.duration.series(&labels.conventional()),
        };
        if let Some(series) = self.finished_series.get(labels, bind) {
            if let Some((requests, plain)) = &series.plain {
                requests.add(1);
                plain.record(seconds, span);
            }
            series.duration.record(seconds, span);
        } else {
            if let Some((requests, plain)) = &self.plain {
                let attributes = labels.plain();
                requests.add(1, &attributes);
                plain.record(seconds, &attributes, span);
            }
            self.duration.record(seconds, &labels.conventional(), span);
        }
    }
}

/// A series of `http.server.active_requests`.
pub(super) type Active = Cow<'static, BoundUpDownCounter<i64>>;

impl Labels {
    /// Returns the attributes of `http_requests_total` and `http_request_duration_seconds`.
    fn plain(&self) -> [KeyValue; 3] {
        let route = match &self.route {
            Some(route) => KeyValue::new(attribute::ROUTE, route.clone()),
            None => KeyValue::new(attribute::ROUTE, UNMATCHED),
        };
        // These metrics require a status, even when no response was sent.
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

    /// Returns the attributes of `http.server.request.duration`.
    fn conventional(&self) -> Vec<KeyValue> {
        let mut attributes = vec![
            KeyValue::new("http.request.method", self.method),
            KeyValue::new("url.scheme", self.scheme),
            KeyValue::new("network.protocol.version", self.version),
        ];
        if let Some(route) = &self.route {
            attributes.push(KeyValue::new("http.route", route.clone()));
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
