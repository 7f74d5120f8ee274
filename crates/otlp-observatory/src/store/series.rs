//! A series: the points of an instrument for one set of attributes, with the exemplars that came with them, both bounded.

use std::{collections::VecDeque, mem::size_of, sync::Arc};

use opentelemetry_proto::tonic::common::v1::{KeyValue, KeyValueList};
use prost::Message as _;

use super::{
    intern::Shared,
    memory,
    points::{KeptExemplar, Point},
};

/// How many points a series keeps: two hours of one every ten seconds.
pub(super) const MAX_POINTS: usize = 720;

/// How many exemplars a series keeps.
pub(super) const MAX_EXEMPLARS: usize = 64;

/// The points of an instrument for one set of attributes.
#[derive(Debug)]
pub(crate) struct Series {
    pub(super) hash: u64,
    pub(super) instrument: Shared,
    /// Sorted by key, in OTLP's protobuf.
    pub(super) attributes: Arc<[u8]>,
    pub(crate) points: VecDeque<Point>,
    pub(crate) exemplars: VecDeque<KeptExemplar>,
    /// Points that left while they still stand in the order of all.
    pub(super) gone: usize,
    /// Whether points left: what the first one is to be compared with is not known then.
    pub(crate) is_cut: bool,
    content_bytes: usize,
}

impl Series {
    pub(super) fn new(hash: u64, instrument: Shared, attributes: &[u8]) -> Self {
        Self {
            hash,
            instrument,
            attributes: attributes.into(),
            points: VecDeque::new(),
            exemplars: VecDeque::new(),
            gone: 0,
            is_cut: false,
            content_bytes: memory::shared(attributes.len()),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        memory::heap(size_of::<Self>())
            + memory::heap(self.points.capacity() * size_of::<Point>())
            + memory::heap(self.exemplars.capacity() * size_of::<KeptExemplar>())
            + self.content_bytes
    }

    pub(super) fn push(&mut self, point: Point) {
        self.content_bytes += point.heap_bytes();
        memory::grow(&mut self.points);
        self.points.push_back(point);
    }

    pub(super) fn pop(&mut self) {
        if let Some(point) = self.points.pop_front() {
            self.content_bytes -= point.heap_bytes();
            self.is_cut = true;
        }
    }

    /// What it takes to push `point`.
    pub(super) fn bytes_for(&self, point: &Point) -> usize {
        let more = memory::growth(&self.points) * size_of::<Point>();
        point.heap_bytes() + more
    }

    /// Gives back what points took that left.
    pub(super) fn shrink(&mut self) {
        if self.points.capacity() > self.points.len() / 4 * 5 + 8 {
            self.points.shrink_to_fit();
        }
    }

    pub(super) fn push_exemplar(&mut self, exemplar: KeptExemplar) {
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
}

/// Attributes in the order of their keys, so that the same set is the same series whatever order it came in.
pub(super) fn encode_sorted(mut attributes: Vec<KeyValue>) -> Vec<u8> {
    attributes.sort_by(|a, b| a.key.cmp(&b.key));
    KeyValueList { values: attributes }.encode_to_vec()
}

/// What [`encode_sorted`] made.
pub(super) fn decode_attributes(encoded: &[u8]) -> Vec<KeyValue> {
    KeyValueList::decode(encoded).unwrap_or_default().values
}
