//! Metric points grouped by series. Above the memory limit, the oldest points of all series are evicted
//! first, and a series is removed with its last point, so that series without updates disappear.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher as _, RandomState},
    mem::size_of,
};

use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    metrics::v1::{DataPointFlags, Exemplar, Gauge, Metric, ResourceMetrics, Sum, metric::Data},
};

use super::{
    instrument::Instrument,
    intern::{InternId, Interner},
    memory,
    points::{Point, StoredExemplar},
    series::{MAX_EXEMPLARS, MAX_POINTS, Series, encode_sorted},
    source::Source,
};

/// A single series may use this fraction of the limit (1/16).
const SERIES_LIMIT_DIVISOR: usize = 16;

/// Store of metric points with a memory limit.
#[derive(Debug)]
pub(crate) struct Metrics {
    limit: usize,
    /// Indexed by series number; unused numbers are `None`.
    series: Vec<Option<Box<Series>>>,
    free: Vec<u32>,
    by_hash: HashMap<u64, u32>,
    hasher: RandomState,
    /// Series number of every point, in order of arrival.
    order: VecDeque<u32>,
    points: usize,
    series_bytes: usize,
    pub(crate) sources: Interner<Source>,
    pub(crate) instruments: Interner<Instrument>,
    pub(crate) evicted: u64,
    /// Number of points rejected because they had no value or were too large.
    pub(crate) refused: u64,
}

impl Metrics {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            series: Vec::new(),
            free: Vec::new(),
            by_hash: HashMap::new(),
            hasher: RandomState::new(),
            order: VecDeque::new(),
            points: 0,
            series_bytes: 0,
            sources: Interner::default(),
            instruments: Interner::default(),
            evicted: 0,
            refused: 0,
        }
    }

    /// Inserts points that arrived at `now`.
    pub(crate) fn insert(&mut self, request: Vec<ResourceMetrics>, now: u64) {
        for from_resource in request {
            for from_scope in from_resource.scope_metrics {
                let source = Source::intern(
                    &mut self.sources,
                    from_resource.resource.as_ref(),
                    from_scope.scope.as_ref(),
                    self.limit / SERIES_LIMIT_DIVISOR,
                );
                let Some(source) = source else {
                    self.refused += from_scope.metrics.len() as u64;
                    continue;
                };
                for metric in from_scope.metrics {
                    self.insert_metric(metric, source, now);
                }
                self.sources.release(source);
            }
        }
    }

    fn insert_metric(&mut self, mut metric: Metric, source: InternId, now: u64) {
        let Some(data) = metric.data.take() else {
            return;
        };
        let texts = metric.name.len() + metric.unit.len() + metric.description.len();
        if texts > self.limit / SERIES_LIMIT_DIVISOR / 4 {
            self.refused += count_points(&data) as u64;
            return;
        }
        let instrument = Instrument::intern(&mut self.instruments, &mut self.sources, &metric, &data, source);
        let mut insert = |attributes, flags: u32, point: Option<Point>, exemplars: &[Exemplar]| {
            let is_empty = flags & DataPointFlags::NoRecordedValueMask as u32 != 0;
            let inserted = point
                .filter(|_| !is_empty)
                .and_then(|point| self.insert_point(instrument, attributes, point, exemplars));
            if inserted.is_none() {
                self.refused += 1;
            }
            self.evict();
        };
        match data {
            Data::Gauge(Gauge { data_points }) | Data::Sum(Sum { data_points, .. }) => {
                for point in data_points {
                    insert(
                        point.attributes.clone(),
                        point.flags,
                        Point::number(&point, now),
                        &point.exemplars,
                    );
                }
            }
            Data::Histogram(histogram) => {
                for point in histogram.data_points {
                    let parsed = Point::histogram(&point, now);
                    insert(point.attributes, point.flags, Some(parsed), &point.exemplars);
                }
            }
            Data::ExponentialHistogram(histogram) => {
                for point in histogram.data_points {
                    let parsed = Point::exponential(&point, now);
                    insert(point.attributes, point.flags, Some(parsed), &point.exemplars);
                }
            }
            Data::Summary(summary) => {
                for point in summary.data_points {
                    let parsed = Point::summary(&point, now);
                    insert(point.attributes, point.flags, Some(parsed), &[]);
                }
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
        exemplars: &[Exemplar],
    ) -> Option<()> {
        let attributes = encode_sorted(attributes);
        let allowance = self.limit / SERIES_LIMIT_DIVISOR;
        if memory::shared(attributes.len()) + point.heap_bytes() > allowance / 4 {
            return None;
        }
        let number = self.number(instrument, &attributes);
        let series = self.series.get_mut(number as usize)?.as_mut()?;
        let before = series.bytes();
        let points = series.points.len();
        // Evict before the push: removing a point afterwards would not shrink the allocation.
        while series.points.len() >= MAX_POINTS
            || (series.points.len() > 1 && series.bytes() + series.bytes_for(&point) > allowance)
        {
            series.pop();
            series.stale_entries += 1;
            self.evicted += 1;
        }
        series.push(point);
        for exemplar in exemplars.iter().filter_map(StoredExemplar::new) {
            if exemplar.heap_bytes() <= allowance / (4 * MAX_EXEMPLARS) {
                series.push_exemplar(exemplar);
            }
        }
        self.points = self.points + series.points.len() - points;
        self.series_bytes = self.series_bytes + series.bytes() - before;
        memory::grow(&mut self.order);
        self.order.push_back(number);
        if self.order.len() > 2 * self.points + 1024 {
            self.drop_stale_entries();
        }
        Some(())
    }

    /// Returns the number of a series, and creates the series if necessary.
    fn number(&mut self, instrument: InternId, attributes: &[u8]) -> u32 {
        let hash = self.hasher.hash_one((instrument, attributes));
        let known = self.by_hash.get(&hash).copied();
        if let Some(number) = known
            && let Some(Some(series)) = self.series.get(number as usize)
            && series.instrument == instrument
            && *series.attributes == *attributes
        {
            return number;
        }
        self.instruments.retain(instrument);
        let series = Box::new(Series::new(hash, instrument, attributes));
        self.series_bytes += series.bytes();
        let number = self.free.pop().unwrap_or_else(|| {
            self.series.push(None);
            u32::try_from(self.series.len() - 1).expect("the memory limit allows far fewer than 2^32 series")
        });
        self.series[number as usize] = Some(series);
        self.by_hash.insert(hash, number);
        number
    }

    /// Removes the oldest points, and series without points, until the memory use is within the limit.
    fn evict(&mut self) {
        while self.bytes() > self.limit {
            let Some(number) = self.order.pop_front() else {
                break;
            };
            let slot = &mut self.series[number as usize];
            let Some(series) = slot else {
                continue;
            };
            if series.stale_entries > 0 {
                series.stale_entries -= 1;
                continue;
            }
            let before = series.bytes();
            series.pop();
            series.shrink();
            self.points -= 1;
            self.evicted += 1;
            self.series_bytes = self.series_bytes + series.bytes() - before;
            if series.points.is_empty()
                && let Some(removed) = slot.take()
            {
                self.remove(number, &removed);
            }
            if self.order.capacity() > 4 * self.order.len() + 64 {
                self.order.shrink_to(2 * self.order.len());
            }
        }
    }

    fn remove(&mut self, number: u32, series: &Series) {
        self.series_bytes -= series.bytes();
        self.free.push(number);
        if self.by_hash.get(&series.hash) == Some(&number) {
            self.by_hash.remove(&series.hash);
        }
        Instrument::release(&mut self.instruments, &mut self.sources, series.instrument);
        if self.by_hash.capacity() > 4 * self.by_hash.len() + 64 {
            self.by_hash.shrink_to(2 * self.by_hash.len());
        }
    }

    /// Removes points from `order` that were evicted from their series.
    fn drop_stale_entries(&mut self) {
        let series = &mut self.series;
        self.order.retain(|number| match &mut series[*number as usize] {
            Some(series) if series.stale_entries > 0 => {
                series.stale_entries -= 1;
                false
            }
            _ => true,
        });
    }

    /// Memory use in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.series_bytes
            + self.series.capacity() * size_of::<Option<Box<Series>>>()
            + self.free.capacity() * size_of::<u32>()
            + self.order.capacity() * size_of::<u32>()
            + memory::table::<(u64, u32)>(self.by_hash.capacity())
            + self.sources.bytes()
            + self.instruments.bytes()
    }

    pub(crate) fn len(&self) -> usize {
        self.series.len() - self.free.len()
    }

    pub(crate) fn points(&self) -> usize {
        self.points
    }

    /// Time of arrival of the oldest point.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.series()
            .filter_map(|series| Some(series.points.front()?.received_at))
            .min()
    }

    pub(crate) fn series(&self) -> impl Iterator<Item = &Series> {
        self.series.iter().flatten().map(|series| &**series)
    }

    pub(crate) fn instrument(&self, series: &Series) -> &Instrument {
        self.instruments.get(series.instrument)
    }

    pub(crate) fn source(&self, series: &Series) -> &Source {
        self.sources.get(self.instrument(series).source)
    }
}

fn count_points(data: &Data) -> usize {
    match data {
        Data::Gauge(gauge) => gauge.data_points.len(),
        Data::Sum(sum) => sum.data_points.len(),
        Data::Histogram(histogram) => histogram.data_points.len(),
        Data::ExponentialHistogram(histogram) => histogram.data_points.len(),
        Data::Summary(summary) => summary.data_points.len(),
    }
}
