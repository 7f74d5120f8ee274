//! What is encoded, on its way: entries are appended to a [`Batch`] as the bytes that they are in a request, and a [`Frame`]
//! puts the outer messages around them. Spans and log records share both but for their fields.

use std::sync::Arc;

use opentelemetry::InstrumentationScope;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope as ProtoScope;
use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
use opentelemetry_sdk::Resource;
use prost::Message;
use prost::bytes::Bytes;

use super::queue::{Entries, Queue};
use super::tidy::Tidy;
use super::wire::{Wire, field_length};
use crate::SCOPE;

/// The most scopes, and the most bytes of each, whose memory a batch keeps for the next one.
const KEPT_SCOPES: usize = 4;
const KEPT_BYTES: usize = 1024 * 1024;

/// So many bytes before the entries of a scope are left for what a request begins with: the resource, which has a dozen or
/// two attributes, and the scope.
const HEADROOM: usize = 4 * 1024;

/// The field of a `ScopeSpans` with its spans, and of a `ScopeLogs` with its log records.
const ENTRIES: u32 = 2;

/// Encoded entries by scope.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Those of this crate's own scope, which are nearly all spans: nothing is looked up for them.
    own: Grouped,
    others: Vec<ScopeEntries>,
    entries: usize,
}

/// The entries of one scope, as a `ScopeSpans` or `ScopeLogs` has them, after [`HEADROOM`]; nothing when there are none.
#[derive(Debug, Default)]
struct Grouped(Wire);

/// Those of another scope.
#[derive(Debug)]
struct ScopeEntries {
    scope: InstrumentationScope,
    /// Where the name is not the scope's own.
    name: Option<String>,
    entries: Grouped,
}

impl Batch {
    /// Adds one entry of this crate's own scope: a span, encoded, in pieces; each is moved here from where it was written.
    pub(super) fn add(&mut self, entry: &[&[u8]]) {
        self.own.add(entry);
        self.entries += 1;
    }

    /// Adds one entry of `scope`, which goes by `name` where there is one: a span or a log record, encoded, in pieces.
    pub(super) fn add_of(&mut self, scope: &InstrumentationScope, name: Option<&str>, entry: &[&[u8]]) {
        let place = self.others.iter().rposition(|known| known.is_of(scope, name));
        let place = place.unwrap_or_else(|| {
            self.others.push(ScopeEntries {
                scope: scope.clone(),
                name: name.map(str::to_owned),
                entries: Grouped::default(),
            });
            self.others.len() - 1
        });
        self.others[place].entries.add(entry);
        self.entries += 1;
    }

    fn grouped(&self, place: Place) -> &Grouped {
        match place {
            Place::Own => &self.own,
            Place::Other(place) => &self.others[place].entries,
        }
    }

    /// The scopes that have entries.
    fn used(&self) -> Vec<Place> {
        let all = [Place::Own]
            .into_iter()
            .chain((0..self.others.len()).map(Place::Other));
        all.filter(|place| !self.grouped(*place).bytes().is_empty())
            .collect()
    }
}

/// Where in a batch a scope is.
#[derive(Clone, Copy, Debug)]
enum Place {
    Own,
    Other(usize),
}

impl Grouped {
    fn add(&mut self, entry: &[&[u8]]) {
        if self.0.length() == 0 {
            self.0.fields(&[0; HEADROOM]);
        }
        self.0.message_of(ENTRIES, entry);
    }

    fn bytes(&self) -> &[u8] {
        self.0.bytes().get(HEADROOM..).unwrap_or_default()
    }
}

impl Entries for Batch {
    fn count(&self) -> usize {
        self.entries
    }

    fn clear(&mut self) {
        self.entries = 0;
        self.own.0.clear(KEPT_BYTES);
        self.others.truncate(KEPT_SCOPES);
        for scope in &mut self.others {
            scope.entries.0.clear(KEPT_BYTES);
        }
    }
}

impl ScopeEntries {
    fn is_of(&self, scope: &InstrumentationScope, name: Option<&str>) -> bool {
        self.name.as_deref() == name && self.scope == *scope
    }
}

/// What is before the entries of a scope.
fn head_of(scope: &InstrumentationScope, name: Option<&str>) -> Wire {
    let name = name.map(|name| name.to_owned().into());
    let mut head = Wire::default();
    head.bytes_set(1, &ProtoScope::from((scope.clone(), name)).encode_to_vec());
    head.text(3, scope.schema_url().unwrap_or_default());
    head
}

/// What is the same in every request of a signal.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// What is before the scopes.
    head: Wire,
    own: InstrumentationScope,
}

impl Frame {
    pub(crate) fn new(resource: &Resource, tidy: Tidy) -> Self {
        let mut message = ProtoResource::from(resource);
        tidy.resource(&mut message);
        let mut head = Wire::default();
        head.bytes_set(1, &message.encode_to_vec());
        head.text(3, resource.schema_url().unwrap_or_default());
        let own = InstrumentationScope::builder(SCOPE).build();
        Self { head, own }
    }

    /// The `ExportTraceServiceRequest` or `ExportLogsServiceRequest` with the entries of `batch`, whose memory goes back to
    /// `queue`: at once, or with the request. A batch of one scope, as most are, becomes the request where it is.
    pub(crate) fn request(&self, mut batch: Batch, queue: &Arc<Queue<Batch>>) -> Bytes {
        if let [place] = batch.used()[..] {
            let head = self.before(&batch, place);
            if let Some(start) = HEADROOM.checked_sub(head.length()) {
                let entries = match place {
                    Place::Own => &mut batch.own,
                    Place::Other(place) => &mut batch.others[place].entries,
                };
                entries.0.overwrite(start, &head);
                return Bytes::from_owner(Lent {
                    batch,
                    place,
                    start,
                    queue: Arc::clone(queue),
                });
            }
        }
        let request = self.copied(&batch);
        queue.recycle(batch);
        request
    }

    fn head_at(&self, batch: &Batch, place: Place) -> Wire {
        match place {
            Place::Own => head_of(&self.own, None),
            Place::Other(place) => {
                let ScopeEntries { scope, name, .. } = &batch.others[place];
                head_of(scope, name.as_deref())
            }
        }
    }

    /// What a request has before the entries of its only scope.
    fn before(&self, batch: &Batch, place: Place) -> Wire {
        let head = self.head_at(batch, place);
        let length = head.length() + batch.grouped(place).bytes().len();
        let mut before = Wire::default();
        self.begin(&mut before, field_length(2, length));
        before.head(2, length);
        before.append(&head);
        before
    }

    fn copied(&self, batch: &Batch) -> Bytes {
        let used = batch.used().into_iter();
        let scopes: Vec<(Wire, &[u8])> = used
            .map(|place| (self.head_at(batch, place), batch.grouped(place).bytes()))
            .collect();
        let length_of = |(head, entries): &(Wire, &[u8])| head.length() + entries.len();
        let length = scopes.iter().map(|scope| field_length(2, length_of(scope))).sum();
        let mut request = Wire::with_capacity(field_length(1, self.head.length() + length));
        self.begin(&mut request, length);
        for scope in &scopes {
            request.head(2, length_of(scope));
            request.append(&scope.0);
            request.fields(scope.1);
        }
        request.into_bytes().into()
    }

    /// Begins a request whose scopes take `length` bytes.
    fn begin(&self, request: &mut Wire, length: usize) {
        request.head(1, self.head.length() + length);
        request.append(&self.head);
    }
}

/// A batch that is a request. Whoever drops the last of it gives the memory back.
#[derive(Debug)]
struct Lent {
    batch: Batch,
    /// The scope that has entries, and where in its memory the request begins.
    place: Place,
    start: usize,
    queue: Arc<Queue<Batch>>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.batch.grouped(self.place).0.bytes()[self.start..]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.queue.recycle(std::mem::take(&mut self.batch));
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::Span;

    use super::*;

    const TIDY: Tidy = Tidy {
        masking: false,
        value_limit: None,
    };

    fn add(batch: &mut Batch, scope: &str, name: &str) {
        let span = Span {
            name: name.to_owned(),
            ..Span::default()
        };
        let encoded = span.encode_to_vec();
        let (first, last) = encoded.split_at(encoded.len() / 2);
        if scope == SCOPE {
            batch.add(&[first, last]);
        } else {
            let scope = InstrumentationScope::builder(scope.to_owned()).build();
            batch.add_of(&scope, None, &[first, last]);
        }
    }

    fn queue() -> Arc<Queue<Batch>> {
        Arc::new(Queue::new(100, 100))
    }

    /// The names of the scopes and of their spans.
    fn names(request: Bytes) -> Vec<(String, Vec<String>)> {
        let mut request = ExportTraceServiceRequest::decode(request).unwrap();
        let group = request.resource_spans.remove(0);
        let names = |spans: Vec<Span>| spans.into_iter().map(|span| span.name).collect();
        group
            .scope_spans
            .into_iter()
            .map(|scope| (scope.scope.unwrap().name, names(scope.spans)))
            .collect()
    }

    fn scope(name: &str, spans: &[&str]) -> (String, Vec<String>) {
        (
            name.to_owned(),
            spans.iter().map(|span| (*span).to_owned()).collect(),
        )
    }

    #[test]
    fn a_batch_that_is_used_again_has_nothing_of_the_last_one() {
        let frame = Frame::new(&Resource::builder_empty().build(), TIDY);
        let mut batch = Batch::default();
        for number in 0..2 * KEPT_SCOPES {
            add(&mut batch, &format!("scope {number}"), &"x".repeat(KEPT_BYTES));
        }
        add(&mut batch, SCOPE, "left behind");
        assert_eq!(batch.count(), 2 * KEPT_SCOPES + 1);
        batch.clear();
        assert_eq!(batch.count(), 0);
        assert!(batch.others.len() <= KEPT_SCOPES);
        let expected = [scope("scope 1", &["a", "c"]), scope("new", &["b"])];
        for (name, of_scope) in [("scope 1", "a"), ("new", "b"), ("scope 1", "c")] {
            add(&mut batch, name, of_scope);
        }
        assert_eq!(names(frame.request(batch, &queue())), expected);
        let mut batch = Batch::default();
        for (name, of_scope) in [("scope 1", "a"), (SCOPE, "own"), ("new", "b"), ("scope 1", "c")] {
            add(&mut batch, name, of_scope);
        }
        let [one, new] = expected;
        assert_eq!(
            names(frame.request(batch, &queue())),
            [scope(SCOPE, &["own"]), one, new]
        );
        assert_eq!(names(frame.request(Batch::default(), &queue())), []);
    }

    #[test]
    fn a_request_of_one_scope_is_what_a_copy_is_whatever_is_before_it() {
        for length in [0, 1, HEADROOM - 100, HEADROOM, 3 * HEADROOM] {
            let resource = Resource::builder_empty()
                .with_attribute(opentelemetry::KeyValue::new("of.some.length", "x".repeat(length)))
                .build();
            let frame = Frame::new(&resource, TIDY);
            for (entries, scope) in [
                (1, SCOPE),
                (1, "a scope"),
                (2, SCOPE),
                (500, SCOPE),
                (500, "a scope"),
            ] {
                let mut batch = Batch::default();
                (0..entries).for_each(|_| add(&mut batch, scope, "a span of some length"));
                let copied = frame.copied(&batch);
                assert_eq!(
                    frame.request(batch, &queue()),
                    copied,
                    "{length} {entries} {scope}"
                );
            }
        }
    }

    #[test]
    fn memory_comes_back_when_the_last_of_a_request_is_dropped() {
        let frame = Frame::new(&Resource::builder_empty().build(), TIDY);
        let queue = queue();
        let push = |scope| queue.push(|batch| add(batch, scope, "a span"));
        let taken = || queue.take().unwrap();
        push("first");
        let request = frame.request(taken(), &queue);
        let again = request.clone();
        drop(request);
        push("second");
        assert_eq!(names(again.clone()), [scope("first", &["a span"])]);
        drop(again);
        // The batch that took the first one's place while that was under way.
        assert_eq!(taken().others.len(), 1);
        push("third");
        let back = taken();
        let known: Vec<&str> = back.others.iter().map(|known| known.scope.name()).collect();
        assert_eq!(known, ["first", "third"]);
        assert_eq!(names(frame.request(back, &queue)), [scope("third", &["a span"])]);
    }
}
