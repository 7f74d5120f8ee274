//! Series as OTLP metrics.

use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram,
    HistogramDataPoint, Metric, NumberDataPoint, Sum, Summary, SummaryDataPoint, metric::Data,
    number_data_point,
};
use prost::Message;

use super::{
    instrument::{Instrument, InstrumentType},
    number::Number,
    points::{Point, PointValue},
    series::{Series, decode_attributes},
};

impl Series {
    /// Returns the points as a metric. The last one has the exemplars of all, because points are stored without theirs.
    pub(super) fn to_metric(&self, instrument: &Instrument) -> Metric {
        let temporality = if instrument.is_delta {
            AggregationTemporality::Delta
        } else {
            AggregationTemporality::Cumulative
        } as i32;
        let attributes = decode_attributes(&self.attributes);
        let exemplars: Vec<Exemplar> = self
            .exemplars
            .iter()
            .filter_map(|exemplar| Exemplar::decode(&**exemplar).ok())
            .collect();
        // The point types have the same fields but no trait in common, hence the macro.
        macro_rules! points {
            ($decode:expr $(, $exemplars:ident)?) => {{
                let mut data_points = Vec::with_capacity(self.points.len());
                for stored in &self.points {
                    let mut point = $decode(stored);
                    point.attributes = attributes.clone();
                    point.start_time_unix_nano = stored.start;
                    point.time_unix_nano = stored.time;
                    data_points.push(point);
                }
                $(if let Some(last) = data_points.last_mut() {
                    last.$exemplars = exemplars;
                })?
                data_points
            }};
        }
        let data = match instrument.instrument_type {
            InstrumentType::Gauge => Data::Gauge(Gauge {
                data_points: points!(number, exemplars),
            }),
            kind @ (InstrumentType::Counter | InstrumentType::UpDownCounter) => Data::Sum(Sum {
                data_points: points!(number, exemplars),
                aggregation_temporality: temporality,
                is_monotonic: kind == InstrumentType::Counter,
            }),
            InstrumentType::Histogram => Data::Histogram(Histogram {
                data_points: points!(decoded::<HistogramDataPoint>, exemplars),
                aggregation_temporality: temporality,
            }),
            InstrumentType::ExponentialHistogram => Data::ExponentialHistogram(ExponentialHistogram {
                data_points: points!(decoded::<ExponentialHistogramDataPoint>, exemplars),
                aggregation_temporality: temporality,
            }),
            InstrumentType::Summary => Data::Summary(Summary {
                data_points: points!(decoded::<SummaryDataPoint>),
            }),
        };
        Metric {
            name: instrument.name.to_string(),
            unit: instrument.unit.to_string(),
            description: instrument.description.to_string(),
            data: Some(data),
            ..Metric::default()
        }
    }
}

fn number(point: &Point) -> NumberDataPoint {
    let value = point.value.as_number().map(|value| match value {
        Number::Integer(value) => number_data_point::Value::AsInt(value),
        Number::Double(value) => number_data_point::Value::AsDouble(value),
    });
    NumberDataPoint {
        value,
        ..NumberDataPoint::default()
    }
}

fn decoded<T: Message + Default>(point: &Point) -> T {
    match &point.value {
        PointValue::Encoded(encoded) => T::decode(&**encoded).unwrap_or_default(),
        PointValue::Number(_) => T::default(),
    }
}
