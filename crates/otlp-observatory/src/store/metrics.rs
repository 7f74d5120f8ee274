//! Points of metrics by series, oldest points first out. A series lives as long as a point of it is kept, so those that are
//! not updated any more leave by themselves, and none loses its history to others while it is younger than theirs.

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
    intern::{Interner, Shared},
    memory,
    origin::Origin,
    points::{KeptExemplar, Point},
    series::{MAX_EXEMPLARS, MAX_POINTS, Series, encode_sorted},
};

/// One series may take this part of the limit.
const SHARE_OF_ONE: usize = 16;

/// What is kept of metrics, within a limit.
#[derive(Debug)]
pub(crate) struct Metrics {
    limit: usize,
    series: Vec<Option<Box<Series>>>,
    free: Vec<u32>,
    by_hash: HashMap<u64, u32>,
    hasher: RandomState,
    /// The series of every point, as they came.
    order: VecDeque<u32>,
    points: usize,
    series_bytes: usize,
    pub(crate) origins: Interner<Origin>,
    pub(crate) instruments: Interner<Instrument>,
    pub(crate) evicted: u64,
    /// Without a value, or too large alone.
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
            origins: Interner::default(),
            instruments: Interner::default(),
            evicted: 0,
            refused: 0,
        }
    }

    /// Keeps what came at `now`.
    pub(crate) fn insert(&mut self, request: Vec<ResourceMetrics>, now: u64) {
        for from_resource in request {
            for from_scope in from_resource.scope_metrics {
                let origin = Origin::intern(
                    &mut self.origins,
                    from_resource.resource.as_ref(),
                    from_scope.scope.as_ref(),
                    self.limit / SHARE_OF_ONE,
                );
                let Some(origin) = origin else {
                    self.refused += from_scope.metrics.len() as u64;
                    continue;
                };
                for metric in from_scope.metrics {
                    self.keep_metric(metric, origin, now);
                }
                self.origins.release(origin);
            }
        }
    }

    fn keep_metric(&mut self, mut metric: Metric, origin: Shared, now: u64) {
        let Some(data) = metric.data.take() else {
            return;
        };
        let texts = metric.name.len() + metric.unit.len() + metric.description.len();
        if texts > self.limit / SHARE_OF_ONE / 4 {
            self.refused += points_of(&data) as u64;
            return;
        }
        let instrument = Instrument::intern(&mut self.instruments, &mut self.origins, &metric, &data, origin);
        let mut keep = |attributes, flags: u32, point: Option<Point>, exemplars: &[Exemplar]| {
            let is_empty = flags & DataPointFlags::NoRecordedValueMask as u32 != 0;
            let kept = point
                .filter(|_| !is_empty)
                .and_then(|point| self.keep(instrument, attributes, point, exemplars));
            if kept.is_none() {
                self.refused += 1;
            }
            self.evict();
        };
        match data {
            Data::Gauge(Gauge { data_points }) | Data::Sum(Sum { data_points, .. }) => {
                for point in data_points {
                    keep(
                        point.attributes.clone(),
                        point.flags,
                        Point::number(&point, now),
                        &point.exemplars,
                    );
                }
            }
            Data::Histogram(histogram) => {
                for point in histogram.data_points {
                    let kept = Point::histogram(&point, now);
                    keep(point.attributes, point.flags, Some(kept), &point.exemplars);
                }
            }
            Data::ExponentialHistogram(histogram) => {
                for point in histogram.data_points {
                    let kept = Point::exponential(&point, now);
                    keep(point.attributes, point.flags, Some(kept), &point.exemplars);
                }
            }
            Data::Summary(summary) => {
                for point in summary.data_points {
                    let kept = Point::summary(&point, now);
                    keep(point.attributes, point.flags, Some(kept), &[]);
                }
            }
        }
        Instrument::release(&mut self.instruments, &mut self.origins, instrument);
    }

    fn keep(
        &mut self,
        instrument: Shared,
        attributes: Vec<KeyValue>,
        point: Point,
        exemplars: &[Exemplar],
    ) -> Option<()> {
        let attributes = encode_sorted(attributes);
        let allowance = self.limit / SHARE_OF_ONE;
        if memory::shared(attributes.len()) + point.heap_bytes() > allowance / 4 {
            return None;
        }
        let number = self.number(instrument, &attributes);
        let place = self.series.get_mut(number as usize)?;
        let series = place.as_mut()?;
        let before = series.bytes();
        let points = series.points.len();
        // Before there is a need to grow: what is allocated does not shrink by taking one out.
        while series.points.len() >= MAX_POINTS
            || (series.points.len() > 1 && series.bytes() + series.bytes_for(&point) > allowance)
        {
            series.pop();
            series.gone += 1;
            self.evicted += 1;
        }
        series.push(point);
        for exemplar in exemplars.iter().filter_map(KeptExemplar::new) {
            if exemplar.heap_bytes() <= allowance / (4 * MAX_EXEMPLARS) {
                series.push_exemplar(exemplar);
            }
        }
        self.points = self.points + series.points.len() - points;
        self.series_bytes = self.series_bytes + series.bytes() - before;
        memory::grow(&mut self.order);
        self.order.push_back(number);
        if self.order.len() > 2 * self.points + 1024 {
            self.forget_gone();
        }
        Some(())
    }

    /// The number of a series, which is begun when it is not there.
    fn number(&mut self, instrument: Shared, attributes: &[u8]) -> u32 {
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
            u32::try_from(self.series.len() - 1).expect("limits are far below four billion series")
        });
        self.series[number as usize] = Some(series);
        self.by_hash.insert(hash, number);
        number
    }

    /// Lets the oldest points go until the limit is kept, and series with their last.
    fn evict(&mut self) {
        while self.bytes() > self.limit {
            let Some(number) = self.order.pop_front() else {
                break;
            };
            let place = &mut self.series[number as usize];
            let Some(series) = place else {
                continue;
            };
            if series.gone > 0 {
                series.gone -= 1;
                continue;
            }
            let before = series.bytes();
            series.pop();
            series.shrink();
            self.points -= 1;
            self.evicted += 1;
            self.series_bytes = self.series_bytes + series.bytes() - before;
            if series.points.is_empty()
                && let Some(last) = place.take()
            {
                self.remove(number, &last);
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
        Instrument::release(&mut self.instruments, &mut self.origins, series.instrument);
        if self.by_hash.capacity() > 4 * self.by_hash.len() + 64 {
            self.by_hash.shrink_to(2 * self.by_hash.len());
        }
    }

    /// Takes points that left their series out of the order of all.
    fn forget_gone(&mut self) {
        let series = &mut self.series;
        self.order.retain(|number| match &mut series[*number as usize] {
            Some(series) if series.gone > 0 => {
                series.gone -= 1;
                false
            }
            _ => true,
        });
    }

    /// All that is taken, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.series_bytes
            + self.series.capacity() * size_of::<Option<Box<Series>>>()
            + self.free.capacity() * size_of::<u32>()
            + self.order.capacity() * size_of::<u32>()
            + memory::table::<(u64, u32)>(self.by_hash.capacity())
            + self.origins.bytes()
            + self.instruments.bytes()
    }

    pub(crate) fn len(&self) -> usize {
        self.series.len() - self.free.len()
    }

    pub(crate) fn points(&self) -> usize {
        self.points
    }

    /// When the oldest point came.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.series()
            .filter_map(|series| Some(series.points.front()?.came))
            .min()
    }

    pub(crate) fn series(&self) -> impl Iterator<Item = &Series> {
        self.series.iter().flatten().map(|series| &**series)
    }

    pub(crate) fn instrument(&self, series: &Series) -> &Instrument {
        self.instruments.get(series.instrument)
    }

    pub(crate) fn origin(&self, series: &Series) -> &Origin {
        self.origins.get(self.instrument(series).origin)
    }
}

fn points_of(data: &Data) -> usize {
    match data {
        Data::Gauge(gauge) => gauge.data_points.len(),
        Data::Sum(sum) => sum.data_points.len(),
        Data::Histogram(histogram) => histogram.data_points.len(),
        Data::ExponentialHistogram(histogram) => histogram.data_points.len(),
        Data::Summary(summary) => summary.data_points.len(),
    }
}
