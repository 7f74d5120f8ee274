//! Problems of connection pools, from the metrics of the semantic conventions.

use opentelemetry_proto::tonic::common::v1::KeyValue;

use super::groups::{Groups, Kind, Occurrence};
use crate::store::{aliases::Key, readings::SampleValue, selection::SeriesSamples, source::text_of};

/// Instruments that are inspected, under their current and older names.
pub(in crate::store) const INSTRUMENTS: [&str; 4] = [
    "db.client.connection.timeouts",
    "db.client.connections.timeouts",
    "db.client.connection.wait_time",
    "db.client.connections.wait_time",
];

/// Maximum number of series of each instrument.
pub(in crate::store) const MAX_SERIES: usize = 100;

/// 95th percentile of the waits between two points, from which they are a problem, in nanoseconds.
const LONG_WAIT: f64 = 50e6;

/// Inspects a series of one of [`INSTRUMENTS`]. An occurrence is a period between two points.
pub(super) fn inspect(series: &SeriesSamples, groups: &mut Groups) {
    let attributes = series.descriptor.attributes();
    let pool = pool_name(&attributes);
    let nanoseconds = match &*series.descriptor.instrument.unit {
        "ms" => 1e6,
        _ => 1e9,
    };
    for sample in &series.samples {
        let (kind, subject, wait) = match &sample.value {
            SampleValue::Counter { rate: Some(rate), .. } if *rate > 0.0 => {
                let subject = format!("requests for a connection of {pool} timed out");
                (Kind::PoolExhausted, subject, 0.0)
            }
            SampleValue::Histogram { observed, .. } => {
                let [wait] = observed.quantiles([0.95]);
                let wait = wait.map_or(0.0, |wait| wait.value * nanoseconds);
                if wait < LONG_WAIT {
                    continue;
                }
                let subject = format!("requests waited for a connection of {pool}");
                (Kind::PoolWait, subject, wait)
            }
            _ => continue,
        };
        groups.add(Occurrence {
            kind,
            service: series.descriptor.source.service.clone(),
            subject,
            count: 1,
            time: sample.time,
            // The conversion saturates.
            total: wait as u64,
            max: wait as u64,
            trace: None,
            span: None,
        });
    }
}

fn pool_name(attributes: &[KeyValue]) -> String {
    let key = Key::new("db.client.connection.pool.name");
    let mut values = key.values(attributes);
    let named = values.next().and_then(|value| {
        let attribute = KeyValue {
            value: Some(value.into_owned()),
            ..KeyValue::default()
        };
        text_of(&attribute).map(|name| format!("the pool {name}"))
    });
    named.unwrap_or_else(|| "the pool".to_owned())
}
