//! Metric series: the points and exemplars of an instrument for one set of attributes, both limited in
//! number.

use std::{collections::VecDeque, mem::size_of, sync::Arc};

use opentelemetry_proto::tonic::common::v1::{KeyValue, KeyValueList};
use prost::Message as _;

use super::{
    intern::{Footprint, InternId},
    memory,
    points::Point,
    totals::Totals,
};

/// Maximum number of points per series: two hours at one point every ten seconds.
pub(super) const MAX_POINTS: usize = 720;

/// Maximum number of exemplars per series.
pub(super) const MAX_EXEMPLARS: usize = 64;

/// Points and exemplars of an instrument for one set of attributes.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(super) instrument: InternId,
    /// Sorted by key, in OTLP's protobuf encoding.
    pub(super) attributes: Arc<[u8]>,
    pub(crate) points: VecDeque<Point>,
    /// Exemplars in OTLP's protobuf encoding.
    pub(crate) exemplars: VecDeque<Box<[u8]>>,
    /// Number of evicted points that `Metrics::order` still lists.
    pub(super) stale_entries: usize,
    /// Whether points were evicted, so that the predecessor of the first point is unknown.
    pub(crate) is_truncated: bool,
    pub(crate) totals: Totals,
    content_bytes: usize,
}

impl Series {
    pub(super) fn new(instrument: InternId, attributes: &[u8]) -> Self {
        Self {
            instrument,
            attributes: attributes.into(),
            points: VecDeque::new(),
            exemplars: VecDeque::new(),
            stale_entries: 0,
            is_truncated: false,
            totals: Totals::EMPTY,
            content_bytes: memory::shared(attributes.len()),
        }
    }

    pub(super) fn push(&mut self, point: Point) {
        self.content_bytes += point.heap_bytes();
        memory::grow(&mut self.points);
        self.points.push_back(point);
    }

    pub(super) fn pop(&mut self) {
        if let Some(point) = self.points.pop_front() {
            self.content_bytes -= point.heap_bytes();
            self.is_truncated = true;
        }
    }

    /// Returns a copy without the first `count` points.
    pub(super) fn without_first(&self, count: usize) -> Self {
        Self {
            instrument: self.instrument,
            attributes: self.attributes.clone(),
            points: self.points.range(count..).cloned().collect(),
            exemplars: self.exemplars.clone(),
            is_truncated: self.is_truncated || count > 0,
            ..*self
        }
    }

    /// Whether one of the newest `compared` points equals `point`. Points without a timestamp are never equal.
    pub(super) fn has(&self, point: &Point, compared: usize) -> bool {
        let newest = self.points.iter().rev().take(compared);
        let mut not_older = newest.take_while(|known| known.time >= point.time);
        point.time != 0
            && not_older.any(|known| {
                known.time == point.time && known.start == point.start && known.value == point.value
            })
    }

    /// Releases the memory of evicted points.
    pub(super) fn shrink(&mut self) {
        if self.points.capacity() > self.points.len() / 4 * 5 + 8 {
            self.points.shrink_to_fit();
        }
    }

    /// Decrements the number of stale entries; returns false if there are none.
    pub(super) fn take_stale_entry(&mut self) -> bool {
        let is_stale = self.stale_entries > 0;
        self.stale_entries -= usize::from(is_stale);
        is_stale
    }

    pub(super) fn push_exemplar(&mut self, exemplar: Box<[u8]>) {
        // Senders of cumulative points repeat each exemplar until a newer one replaces it.
        if self.exemplars.contains(&exemplar) {
            return;
        }
        if self.exemplars.len() == MAX_EXEMPLARS
            && let Some(oldest) = self.exemplars.pop_front()
        {
            self.content_bytes -= memory::heap(oldest.len());
        }
        self.content_bytes += memory::heap(exemplar.len());
        memory::grow(&mut self.exemplars);
        self.exemplars.push_back(exemplar);
    }
}

impl Footprint for Box<Series> {
    fn heap_bytes(&self) -> usize {
        memory::heap(size_of::<Series>())
            + memory::heap(self.points.capacity() * size_of::<Point>())
            + memory::heap(self.exemplars.capacity() * size_of::<Box<[u8]>>())
            + self.content_bytes
    }
}

/// Encodes attributes sorted by key, so that the order chosen by the sender does not matter.
pub(super) fn encode_sorted(mut attributes: Vec<KeyValue>) -> Vec<u8> {
    attributes.sort_by(|a, b| a.key.cmp(&b.key));
    KeyValueList { values: attributes }.encode_to_vec()
}

/// Decodes the result of [`encode_sorted`].
pub(super) fn decode_attributes(encoded: &[u8]) -> Vec<KeyValue> {
    KeyValueList::decode(encoded).unwrap_or_default().values
}
