//! Metric points grouped by series. The oldest points of all series are evicted first. A series is removed with its last
//! point, so series without updates disappear.

use std::{
    collections::VecDeque,
    mem::{size_of, take},
    ops::Range,
};

use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    metrics::v1::{
        DataPointFlags, Exemplar, ExponentialHistogram, Gauge, Histogram, Metric, ResourceMetrics, Sum,
        Summary, metric::Data,
    },
};
use prost::Message as _;

use super::{
    budget::{Evict, Room, max_item},
    instrument::Instrument,
    intern::{InternId, Interner},
    memory,
    points::{Point, PointValue},
    series::{MAX_EXEMPLARS, MAX_POINTS, Series, encode_sorted},
    source::Source,
    totals::Totals,
};
use crate::export::points;

/// Maximum number of points of a series that are compared with a new one to find a repeat.
const MAX_COMPARED: usize = 64;

/// Store of metric points.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    limit: usize,
    /// Every point holds a reference to its series.
    series: Interner<Box<Series>>,
    /// Series of every point in order of arrival, with stale entries for points that their series evicted.
    order: VecDeque<InternId>,
    pub(crate) points: usize,
    pub(crate) sources: Interner<Source>,
    pub(crate) instruments: Interner<Instrument>,
    pub(crate) evicted: u64,
    /// Number of points that were received before, for example because their sender resent a request.
    pub(crate) repeated: u64,
    /// Number of points rejected as too large or without a value.
    pub(crate) refused: u64,
}

impl Metrics {
    /// Creates a store whose limit applies to all signals together.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    /// Inserts points that arrived at `now`, and evicts the oldest beyond `room`.
    pub(crate) fn insert(&mut self, request: Vec<ResourceMetrics>, now: u64, room: Room) {
        let allowance = max_item(self.limit);
        for group in request {
            let resource = group.resource.as_ref();
            for scope_group in group.scope_metrics {
                let scope = scope_group.scope.as_ref();
                let Some(source) = Source::intern(&mut self.sources, resource, scope, allowance) else {
                    self.refused += scope_group.metrics.iter().map(points).sum::<usize>() as u64;
                    continue;
                };
                for metric in scope_group.metrics {
                    self.insert_metric(metric, source, now, room);
                }
                self.sources.release(source);
            }
        }
    }

    fn insert_metric(&mut self, mut metric: Metric, source: InternId, now: u64, room: Room) {
        let texts = metric.name.len() + metric.unit.len() + metric.description.len();
        if texts > max_item(self.limit) {
            self.refused += points(&metric) as u64;
            return;
        }
        let Some(data) = metric.data.take() else {
            return;
        };
        let instrument = Instrument::intern(&mut self.instruments, &mut self.sources, &metric, &data, source);
        // The point types have the same fields but no trait in common, hence the macro. Fields that are
        // stored elsewhere are taken out of the encoding.
        macro_rules! insert_each {
            ($point:ident in $points:expr, $exemplars:expr, $value:expr) => {
                for mut $point in $points {
                    let totals = Totals::from(&$point);
                    let is_empty = $point.flags & DataPointFlags::NoRecordedValueMask as u32 != 0;
                    let attributes = take(&mut $point.attributes);
                    let exemplars = $exemplars;
                    let time = take(&mut $point.time_unix_nano);
                    let start = take(&mut $point.start_time_unix_nano);
                    let value = Option::<PointValue>::from($value).filter(|_| !is_empty);
                    let point = value.map(|value| Point {
                        time,
                        start,
                        received_at: now,
                        value,
                    });
                    let inserted = point.and_then(|point| {
                        self.insert_point(instrument, attributes, point, totals, exemplars)
                    });
                    if inserted.is_none() {
                        self.refused += 1;
                    }
                    room.make(self);
                }
            };
        }
        match data {
            Data::Gauge(Gauge { data_points }) | Data::Sum(Sum { data_points, .. }) => {
                insert_each!(point in data_points, take(&mut point.exemplars), PointValue::number(&point));
            }
            Data::Histogram(Histogram { data_points, .. }) => {
                insert_each!(point in data_points, take(&mut point.exemplars), PointValue::encode(&point));
            }
            Data::ExponentialHistogram(ExponentialHistogram { data_points, .. }) => {
                insert_each!(point in data_points, take(&mut point.exemplars), PointValue::encode(&point));
            }
            Data::Summary(Summary { data_points }) => {
                insert_each!(point in data_points, Vec::new(), PointValue::encode(&point));
            }
        }
        Instrument::release(&mut self.instruments, &mut self.sources, instrument);
    }

    /// Inserts a point; returns `None` if it is rejected.
    fn insert_point(
        &mut self,
        instrument: InternId,
        attributes: Vec<KeyValue>,
        point: Point,
        totals: Totals,
        exemplars: Vec<Exemplar>,
    ) -> Option<()> {
        let is_delta = self.instruments.get(instrument).is_delta;
        let attributes = encode_sorted(attributes);
        let allowance = max_item(self.limit);
        if memory::shared(attributes.len()) + point.heap_bytes() > allowance {
            return None;
        }
        let make = || {
            self.instruments.retain(instrument);
            Box::new(Series::new(instrument, &attributes))
        };
        let id = self.series.intern(
            &(instrument, &attributes),
            |series| series.instrument == instrument && *series.attributes == *attributes,
            make,
        );
        if self.series.get(id).has(&point, MAX_COMPARED) {
            self.series.release(id);
            self.repeated += 1;
            return Some(());
        }
        let evicted = self.series.update(id, |series| {
            let before = series.points.len();
            // Points are evicted before the push, because the allocation would not shrink afterwards.
            while series.points.len() >= MAX_POINTS {
                series.pop();
                series.stale_entries += 1;
            }
            let evicted = before - series.points.len();
            series.push(point);
            if is_delta {
                series.totals.add(totals);
            } else {
                series.totals = totals;
            }
            for exemplar in exemplars.into_iter().filter(|exemplar| exemplar.value.is_some()) {
                if memory::heap(exemplar.encoded_len()) <= allowance / MAX_EXEMPLARS {
                    series.push_exemplar(exemplar.encode_to_vec().into());
                }
            }
            evicted
        });
        for _ in 0..evicted {
            self.series.release(id);
        }
        self.evicted += evicted as u64;
        self.points = self.points + 1 - evicted;
        memory::grow(&mut self.order);
        self.order.push_back(id);
        if self.order.len() > 2 * self.points + 1024 {
            let series = &mut self.series;
            self.order
                .retain(|id| !series.update(*id, |series| series.take_stale_entry()));
        }
        Some(())
    }

    /// Removes all points; returns their number.
    pub(crate) fn clear(&mut self) -> u64 {
        let emptied = Self {
            evicted: self.evicted,
            repeated: self.repeated,
            refused: self.refused,
            ..Self::new(self.limit)
        };
        std::mem::replace(self, emptied).points as u64
    }

    pub(crate) fn len(&self) -> usize {
        self.series().count()
    }

    pub(crate) fn series(&self) -> impl Iterator<Item = &Series> {
        self.series.iter().map(|series| &**series)
    }

    /// Returns the series in a part of the table of series, and whether the table ends there.
    pub(crate) fn series_in(&self, part: Range<usize>) -> (impl Iterator<Item = &Series>, bool) {
        let is_last = part.end >= self.series.slots();
        let slots = self.series.slot_values().skip(part.start).take(part.len());
        (slots.flatten().map(|series| &**series), is_last)
    }

    pub(crate) fn instrument(&self, series: &Series) -> &Instrument {
        self.instruments.get(series.instrument)
    }

    pub(crate) fn source(&self, series: &Series) -> &Source {
        self.sources.get(self.instrument(series).source)
    }
}

impl Evict for Metrics {
    fn bytes(&self) -> usize {
        self.series.bytes()
            + self.order.capacity() * size_of::<InternId>()
            + self.sources.bytes()
            + self.instruments.bytes()
    }

    fn oldest(&self) -> Option<u64> {
        let series = self.series.get(*self.order.front()?);
        Some(series.points.front()?.received_at)
    }

    fn evict_oldest(&mut self) {
        while let Some(id) = self.order.pop_front() {
            if self.series.update(id, |series| series.take_stale_entry()) {
                continue;
            }
            self.series.update(id, |series| {
                series.pop();
                series.shrink();
            });
            self.points -= 1;
            self.evicted += 1;
            if let Some(last) = self.series.release(id) {
                Instrument::release(&mut self.instruments, &mut self.sources, last.instrument);
            }
            if self.order.capacity() > 4 * self.order.len() + 64 {
                self.order.shrink_to(2 * self.order.len());
            }
            return;
        }
    }
}
