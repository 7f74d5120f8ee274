//! Points of metrics by series, oldest points first out. A series lives as long as a point of it is kept, so those that are
//! not updated any more leave by themselves, and none loses its history to others while it is younger than theirs.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher as _, RandomState},
    mem::size_of,
    sync::Arc,
};

use opentelemetry_proto::tonic::{
    common::v1::{KeyValue, KeyValueList},
    metrics::v1::{
        AggregationTemporality, DataPointFlags, Exemplar, Gauge, Metric, ResourceMetrics, Sum, metric,
    },
};
use prost::Message as _;

use super::{
    intern::{Footprint, Interner, Novelty, Shared},
    memory,
    origin::Origin,
    points::{KeptExemplar, Point},
};

/// How many points a series keeps: two hours of one every ten seconds.
const MAX_POINTS: usize = 720;

/// How many exemplars a series keeps.
const MAX_EXEMPLARS: usize = 64;

/// One series may take this part of the limit.
const SHARE_OF_ONE: usize = 16;

/// What an instrument measures, and how its points are to be read.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum InstrumentType {
    Counter,
    UpDownCounter,
    Gauge,
    Histogram,
    ExponentialHistogram,
    Summary,
}

/// An instrument of one origin.
#[derive(Clone, Debug)]
pub(crate) struct Instrument {
    origin: Shared,
    pub(crate) name: Arc<str>,
    pub(crate) unit: Arc<str>,
    pub(crate) description: Arc<str>,
    pub(crate) instrument_type: InstrumentType,
    /// Whether a point counts since the one before, not since the start.
    pub(crate) is_delta: bool,
}

/// The points of an instrument for one set of attributes.
#[derive(Debug)]
pub(crate) struct Series {
    hash: u64,
    instrument: Shared,
    /// Sorted by key, in OTLP's protobuf.
    attributes: Arc<[u8]>,
    pub(crate) points: VecDeque<Point>,
    pub(crate) exemplars: VecDeque<KeptExemplar>,
    /// Points that left while they still stand in the order of all.
    gone: usize,
    /// Whether points left: what the first one is to be compared with is not known then.
    pub(crate) is_cut: bool,
    content_bytes: usize,
}

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
                );
                for metric in from_scope.metrics {
                    self.keep_metric(metric, origin, now);
                }
                self.origins.release(origin);
            }
        }
    }

    fn keep_metric(&mut self, mut metric: Metric, origin: Shared, now: u64) {
        use InstrumentType as Type;
        let Some(data) = metric.data.take() else {
            return;
        };
        let delta = AggregationTemporality::Delta as i32;
        let (instrument_type, is_delta) = match &data {
            metric::Data::Gauge(_) => (Type::Gauge, false),
            metric::Data::Sum(sum) if sum.is_monotonic => {
                (Type::Counter, sum.aggregation_temporality == delta)
            }
            metric::Data::Sum(sum) => (Type::UpDownCounter, sum.aggregation_temporality == delta),
            metric::Data::Histogram(histogram) => {
                (Type::Histogram, histogram.aggregation_temporality == delta)
            }
            metric::Data::ExponentialHistogram(histogram) => (
                Type::ExponentialHistogram,
                histogram.aggregation_temporality == delta,
            ),
            metric::Data::Summary(_) => (Type::Summary, false),
        };
        let instrument = Instrument::intern(
            &mut self.instruments,
            &mut self.origins,
            &metric,
            origin,
            instrument_type,
            is_delta,
        );
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
            metric::Data::Gauge(Gauge { data_points }) | metric::Data::Sum(Sum { data_points, .. }) => {
                for point in data_points {
                    keep(
                        point.attributes.clone(),
                        point.flags,
                        Point::number(&point, now),
                        &point.exemplars,
                    );
                }
            }
            metric::Data::Histogram(histogram) => {
                for point in histogram.data_points {
                    let kept = Point::histogram(&point, now);
                    keep(point.attributes, point.flags, Some(kept), &point.exemplars);
                }
            }
            metric::Data::ExponentialHistogram(histogram) => {
                for point in histogram.data_points {
                    let kept = Point::exponential(&point, now);
                    keep(point.attributes, point.flags, Some(kept), &point.exemplars);
                }
            }
            metric::Data::Summary(summary) => {
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
        let series = Box::new(Series {
            hash,
            instrument,
            attributes: attributes.into(),
            points: VecDeque::new(),
            exemplars: VecDeque::new(),
            gone: 0,
            is_cut: false,
            content_bytes: memory::shared(attributes.len()),
        });
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

impl Series {
    fn bytes(&self) -> usize {
        memory::heap(size_of::<Self>())
            + memory::heap(self.points.capacity() * size_of::<Point>())
            + memory::heap(self.exemplars.capacity() * size_of::<KeptExemplar>())
            + self.content_bytes
    }

    fn push(&mut self, point: Point) {
        self.content_bytes += point.heap_bytes();
        memory::grow(&mut self.points);
        self.points.push_back(point);
    }

    fn pop(&mut self) {
        if let Some(point) = self.points.pop_front() {
            self.content_bytes -= point.heap_bytes();
            self.is_cut = true;
        }
    }

    /// What it takes to push `point`.
    fn bytes_for(&self, point: &Point) -> usize {
        let more = memory::growth(&self.points) * size_of::<Point>();
        point.heap_bytes() + more
    }

    /// Gives back what points took that left.
    fn shrink(&mut self) {
        if self.points.capacity() > self.points.len() / 4 * 5 + 8 {
            self.points.shrink_to_fit();
        }
    }

    fn push_exemplar(&mut self, exemplar: KeptExemplar) {
        // Senders of cumulative points repeat them until they have others.
        if self
            .exemplars
            .iter()
            .any(|known| known.encoded == exemplar.encoded)
        {
            return;
        }
        if self.exemplars.len() == MAX_EXEMPLARS
            && let Some(oldest) = self.exemplars.pop_front()
        {
            self.content_bytes -= oldest.heap_bytes();
        }
        self.content_bytes += exemplar.heap_bytes();
        memory::grow(&mut self.exemplars);
        self.exemplars.push_back(exemplar);
    }

    /// The attributes in OTLP's protobuf, cheap to take out.
    pub(crate) fn attributes(&self) -> Arc<[u8]> {
        self.attributes.clone()
    }
}

impl Instrument {
    fn intern(
        instruments: &mut Interner<Self>,
        origins: &mut Interner<Origin>,
        metric: &Metric,
        origin: Shared,
        instrument_type: InstrumentType,
        is_delta: bool,
    ) -> Shared {
        let key = (
            origin,
            &metric.name,
            &metric.unit,
            &metric.description,
            instrument_type,
            is_delta,
        );
        let same = |known: &Self| {
            let Self {
                origin,
                name,
                unit,
                description,
                instrument_type,
                is_delta,
            } = known;
            [&**name, &**unit, &**description] == [&*metric.name, &*metric.unit, &*metric.description]
                && (*origin, *instrument_type, *is_delta) == (key.0, key.4, key.5)
        };
        let make = || Self {
            origin,
            name: metric.name.as_str().into(),
            unit: metric.unit.as_str().into(),
            description: metric.description.as_str().into(),
            instrument_type,
            is_delta,
        };
        let (shared, novelty) = instruments.intern(&key, same, make);
        if novelty == Novelty::New {
            origins.retain(origin);
        }
        shared
    }

    /// One user of an instrument less.
    fn release(instruments: &mut Interner<Self>, origins: &mut Interner<Origin>, instrument: Shared) {
        if let Some(last) = instruments.release(instrument) {
            origins.release(last.origin);
        }
    }
}

impl Footprint for Instrument {
    fn heap_bytes(&self) -> usize {
        let texts = [&self.name, &self.unit, &self.description];
        texts.into_iter().map(|text| memory::shared(text.len())).sum()
    }
}

/// Attributes in the order of their keys, so that the same set is the same series whatever order it came in.
fn encode_sorted(mut attributes: Vec<KeyValue>) -> Vec<u8> {
    attributes.sort_by(|a, b| a.key.cmp(&b.key));
    KeyValueList { values: attributes }.encode_to_vec()
}

/// What [`encode_sorted`] made.
pub(crate) fn decode_attributes(encoded: &[u8]) -> Vec<KeyValue> {
    KeyValueList::decode(encoded).unwrap_or_default().values
}
