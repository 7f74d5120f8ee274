//! The request metrics. [`Measured`] is a drop guard: however a request ends, its duration is recorded once and
//! `http.server.active_requests` goes back down.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use ::http::StatusCode;
use ::http::request::Parts;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, UpDownCounter};

use super::attributes;
use crate::failure::Fault;
use crate::metrics::{self, Instruments};

/// `route` of a request that no route matches.
const UNMATCHED: &str = "unmatched";

/// What nginx logs for a client that went away; the closest there is to a status.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// `error.type` of a request whose client, or time-out, did not wait for the answer.
pub(super) const CANCELLED: &str = "cancelled";

static INSTRUMENTS: Instruments<Http> = Instruments::new();

#[derive(Debug)]
struct Http {
    requests: Counter<u64>,
    seconds: Histogram<f64>,
    duration: Histogram<f64>,
    active: UpDownCounter<i64>,
}

fn instruments() -> Option<&'static Http> {
    INSTRUMENTS.get(|meter| Http {
        requests: meter
            .u64_counter("http_requests_total")
            .with_description("HTTP requests by method, route and status.")
            .build(),
        seconds: metrics::seconds(
            meter,
            "http_request_duration_seconds",
            "Duration of HTTP requests by method, route and status.",
        ),
        duration: metrics::seconds(
            meter,
            "http.server.request.duration",
            "Duration of HTTP server requests.",
        ),
        active: meter
            .i64_up_down_counter("http.server.active_requests")
            .with_unit("{request}")
            .with_description("HTTP server requests that are being answered.")
            .build(),
    })
}

/// A request being measured.
#[derive(Debug)]
pub(super) struct Measured {
    instruments: Option<&'static Http>,
    started: Instant,
    method: &'static str,
    scheme: &'static str,
    version: &'static str,
    route: Option<Arc<str>>,
    status: Option<u16>,
    error_type: Option<Cow<'static, str>>,
}

impl Measured {
    pub(super) fn start(parts: &Parts, route: Option<Arc<str>>) -> Self {
        let measured = Self {
            instruments: instruments(),
            started: Instant::now(),
            method: attributes::method(&parts.method),
            scheme: attributes::scheme(parts),
            version: attributes::version(parts.version),
            route,
            status: None,
            error_type: Some(Cow::Borrowed(CANCELLED)),
        };
        if let Some(instruments) = measured.instruments {
            instruments.active.add(1, &measured.of_active());
        }
        measured
    }

    pub(super) fn answered(&mut self, status: StatusCode, fault: Option<&Fault>) {
        self.status = Some(status.as_u16());
        self.error_type = status.is_server_error().then(|| match fault {
            Some(fault) => fault.error_type.clone(),
            None => Cow::Owned(status.as_str().to_owned()),
        });
    }

    pub(super) fn failed(&mut self, error_type: Cow<'static, str>) {
        self.status = Some(500);
        self.error_type = Some(error_type);
    }

    /// Whether the request was answered or has failed.
    pub(super) fn is_over(&self) -> bool {
        self.status.is_some()
    }

    fn of_active(&self) -> [KeyValue; 2] {
        [
            KeyValue::new("http.request.method", self.method),
            KeyValue::new("url.scheme", self.scheme),
        ]
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        let Some(instruments) = self.instruments else {
            return;
        };
        let seconds = self.started.elapsed().as_secs_f64();
        instruments.active.add(-1, &self.of_active());

        let route = match &self.route {
            Some(route) => KeyValue::new("route", attributes::route_value(route)),
            None => KeyValue::new("route", UNMATCHED),
        };
        let status = i64::from(self.status.unwrap_or(CLIENT_CLOSED_REQUEST));
        let plain = [
            KeyValue::new("method", self.method),
            route,
            KeyValue::new("status", status),
        ];
        instruments.requests.add(1, &plain);
        instruments.seconds.record(seconds, &plain);

        let mut conventional = Vec::with_capacity(6);
        conventional.extend(self.of_active());
        conventional.push(KeyValue::new("network.protocol.version", self.version));
        if let Some(route) = &self.route {
            conventional.push(KeyValue::new("http.route", attributes::route_value(route)));
        }
        if let Some(status) = self.status {
            conventional.push(KeyValue::new("http.response.status_code", i64::from(status)));
        }
        if let Some(error_type) = self.error_type.take() {
            conventional.push(KeyValue::new("error.type", error_type));
        }
        instruments.duration.record(seconds, &conventional);
    }
}
