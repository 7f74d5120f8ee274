//! Combines the series of an instrument by attributes: sums, averages or maxima at each time.

use std::collections::HashMap;

use opentelemetry_proto::tonic::common::v1::KeyValue;

use super::{
    Source,
    aliases::Key,
    bins::{Bins, Times},
    fair_lock::FairLock,
    histogram::Distribution,
    metrics::Metrics,
    number::Number,
    readings::{Sample, SampleValue},
    selection::{Query, SeriesDescriptor, by_size},
    series::{decode_attributes, encode_sorted},
    totals::Totals,
};

/// Combination of the values of several series.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Aggregate {
    Sum,
    #[serde(rename = "avg")]
    Average,
    Max,
}

/// Combination of series by the values of attributes.
#[derive(Clone, Debug)]
pub(crate) struct Grouping {
    /// Attributes of the series or of their resources; without one, all series are combined.
    pub(crate) keys: Vec<String>,
    pub(crate) aggregate: Aggregate,
}

/// Series with the same values of the attributes of a grouping.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) attributes: Vec<KeyValue>,
    /// Number of series.
    pub(crate) series: usize,
    pub(crate) totals: Totals,
    pub(crate) samples: Vec<Sample>,
}

/// Group before its samples are combined.
#[derive(Clone, Debug)]
struct Members {
    series: usize,
    sum: Totals,
    values: Values,
    is_counter: bool,
    steps: Vec<Step>,
}

/// Values of a group at one time.
#[derive(Clone, Debug, Default)]
struct Step {
    rates: Values,
    values: Values,
    observed: Option<Box<Distribution>>,
}

/// Combination of numbers.
#[derive(Clone, Debug, Default)]
struct Values {
    count: usize,
    combined: Option<Number>,
}

impl Grouping {
    /// Returns the number of groups, and the `limit` largest with their samples.
    pub(super) fn largest(
        &self,
        metrics: &FairLock<Metrics>,
        query: &Query<'_>,
        limit: usize,
    ) -> (usize, Vec<Group>) {
        let keys: Vec<_> = self.keys.iter().map(|key| Key::new(key)).collect();
        let mut times = Times::default();
        let mut groups: HashMap<Vec<u8>, Members> = HashMap::new();
        query.visit(metrics, |metrics, series| {
            times.add(series.points.iter().map(|point| point.time), &query.window);
            let key = self.key(
                &keys,
                &decode_attributes(&series.attributes),
                metrics.source(series),
            );
            let members = groups.entry(key).or_default();
            members.series += 1;
            members.sum.add(series.totals);
            members.values.add(series.totals.value, self.aggregate);
        });
        let found = groups.len();
        let mut groups: Vec<_> = groups.into_iter().collect();
        let size = |(_, members): &(_, Members)| members.totals(self.aggregate);
        groups.sort_by(|a, b| by_size(&size(a), &size(b)).then_with(|| a.0.cmp(&b.0)));
        groups.truncate(limit);

        // Only the steps of the largest groups are computed, because there may be as many groups as series.
        let bins = times.bins();
        let order: Vec<_> = groups.iter().map(|(key, _)| key.clone()).collect();
        let mut groups: HashMap<_, _> = groups.into_iter().collect();
        query.visit_samples(metrics, |series| {
            let SeriesDescriptor { source, .. } = &series.descriptor;
            let key = self.key(&keys, &series.descriptor.attributes(), source);
            if let Some(members) = groups.get_mut(&key) {
                members.add(&series.samples, self.aggregate, &bins);
            }
        });
        let largest = order.into_iter().filter_map(|key| {
            let members = groups.remove(&key)?;
            Some(Group {
                attributes: decode_attributes(&key),
                series: members.series,
                totals: members.totals(self.aggregate),
                samples: members.samples(self.aggregate, &bins),
            })
        });
        (found, largest.collect())
    }

    /// Returns the attributes of the group of a series, encoded.
    fn key(&self, keys: &[Key], attributes: &[KeyValue], source: &Source) -> Vec<u8> {
        let resource = source.resource();
        let values = self.keys.iter().zip(keys).filter_map(|(name, key)| {
            let mut values = key.values(attributes).chain(key.values(&resource));
            Some(KeyValue {
                key: name.clone(),
                value: Some(values.next()?.into_owned()),
                ..KeyValue::default()
            })
        });
        encode_sorted(values.collect())
    }
}

impl Default for Members {
    fn default() -> Self {
        Self {
            series: 0,
            sum: Totals::EMPTY,
            values: Values::default(),
            is_counter: false,
            steps: Vec::new(),
        }
    }
}

impl Members {
    fn totals(&self, aggregate: Aggregate) -> Totals {
        Totals {
            value: self.values.get(aggregate).unwrap_or(Number::ZERO),
            ..self.sum
        }
    }

    /// Adds the samples of a series. A series that is one step late keeps its last value, but observations count
    /// only once.
    fn add(&mut self, samples: &[Sample], aggregate: Aggregate, bins: &Bins) {
        self.steps.resize(bins.count, Step::default());
        let mut newest: Vec<Option<&SampleValue>> = vec![None; bins.count];
        for sample in samples {
            newest[bins.index(sample.time)] = Some(&sample.value);
            if let SampleValue::Histogram { observed, .. } = &sample.value {
                match &mut self.steps[bins.index(sample.time)].observed {
                    Some(sum) => sum.merge(observed),
                    empty => *empty = Some(Box::new(observed.clone())),
                }
            }
        }
        for (index, step) in self.steps.iter_mut().enumerate() {
            let previous = index.checked_sub(1).and_then(|previous| newest[previous]);
            match newest[index].or(previous) {
                Some(SampleValue::Counter { rate, value }) => {
                    self.is_counter = true;
                    step.values.add(*value, aggregate);
                    if let Some(rate) = rate {
                        step.rates.add(Number::from(*rate), aggregate);
                    }
                }
                Some(SampleValue::Value(value)) => step.values.add(*value, aggregate),
                _ => {}
            }
        }
    }

    fn samples(self, aggregate: Aggregate, bins: &Bins) -> Vec<Sample> {
        let samples = self.steps.into_iter().enumerate().filter_map(|(index, step)| {
            let value = match step.observed {
                Some(observed) => SampleValue::Histogram {
                    rate: Some(observed.count as f64 / bins.seconds()),
                    observed: *observed,
                },
                None if self.is_counter => SampleValue::Counter {
                    rate: step.rates.get(aggregate).map(Number::to_f64),
                    value: step.values.get(aggregate)?,
                },
                None => SampleValue::Value(step.values.get(aggregate)?),
            };
            Some(Sample {
                time: bins.time(index),
                value,
            })
        });
        samples.collect()
    }
}

impl Values {
    fn add(&mut self, value: Number, aggregate: Aggregate) {
        self.count += 1;
        self.combined = Some(match self.combined {
            None => value,
            Some(combined) if aggregate == Aggregate::Max => {
                if value.to_f64() > combined.to_f64() {
                    value
                } else {
                    combined
                }
            }
            Some(combined) => combined.plus(value),
        });
    }

    fn get(&self, aggregate: Aggregate) -> Option<Number> {
        let combined = self.combined?;
        match aggregate {
            Aggregate::Average => Some(Number::from(combined.to_f64() / self.count as f64)),
            Aggregate::Sum | Aggregate::Max => Some(combined),
        }
    }
}
