//! What is encoded, on its way: entries are appended to a [`Batch`] as the bytes that they are in a request, and a [`Frame`]
//! puts the outer messages around them. Spans and log records share both but for their fields.

use opentelemetry::InstrumentationScope;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope as ProtoScope;
use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
use opentelemetry_sdk::Resource;
use prost::Message;
use prost::bytes::Bytes;

use super::queue::Entries;
use super::tidy::Tidy;
use super::wire::{Wire, field_length};

/// The most scopes, and the most bytes of each, whose memory a batch keeps for the next one.
const KEPT_SCOPES: usize = 4;
const KEPT_BYTES: usize = 1024 * 1024;

/// Encoded entries by scope.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    scopes: Vec<ScopeEntries>,
    entries: usize,
}

/// The entries of one scope, as a `ScopeSpans` or `ScopeLogs` has them.
#[derive(Debug)]
struct ScopeEntries {
    scope: InstrumentationScope,
    /// Where the name is not the scope's own.
    name: Option<String>,
    wire: Wire,
}

impl Batch {
    /// Adds one entry of `scope`, which goes by `name` where there is one. `entry` is the field of a `ScopeSpans` or
    /// `ScopeLogs`, encoded.
    pub(super) fn add(&mut self, scope: &InstrumentationScope, name: Option<&str>, entry: &Wire) {
        let place = self.scopes.iter().rposition(|known| known.is_of(scope, name));
        let place = place.unwrap_or_else(|| {
            self.scopes.push(ScopeEntries {
                scope: scope.clone(),
                name: name.map(str::to_owned),
                wire: Wire::default(),
            });
            self.scopes.len() - 1
        });
        self.scopes[place].wire.append(entry);
        self.entries += 1;
    }
}

impl Entries for Batch {
    fn count(&self) -> usize {
        self.entries
    }

    fn clear(&mut self) {
        self.entries = 0;
        self.scopes.truncate(KEPT_SCOPES);
        for scope in &mut self.scopes {
            scope.wire.clear(KEPT_BYTES);
        }
    }
}

impl ScopeEntries {
    fn is_of(&self, scope: &InstrumentationScope, name: Option<&str>) -> bool {
        self.name.as_deref() == name && self.scope == *scope
    }

    /// What is before the entries.
    fn head(&self) -> Wire {
        let name = self.name.clone().map(Into::into);
        let mut head = Wire::default();
        head.bytes_set(1, &ProtoScope::from((self.scope.clone(), name)).encode_to_vec());
        head.text(3, self.scope.schema_url().unwrap_or_default());
        head
    }
}

/// What is the same in every request of a signal.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// What is before the scopes.
    head: Wire,
}

impl Frame {
    pub(super) fn new(resource: &Resource, tidy: Tidy) -> Self {
        let mut message = ProtoResource::from(resource);
        tidy.resource(&mut message);
        let mut head = Wire::default();
        head.bytes_set(1, &message.encode_to_vec());
        head.text(3, resource.schema_url().unwrap_or_default());
        Self { head }
    }

    /// The `ExportTraceServiceRequest` or `ExportLogsServiceRequest` with these entries.
    pub(super) fn request(&self, batch: &Batch) -> Bytes {
        let scopes: Vec<(Wire, &Wire)> = batch
            .scopes
            .iter()
            .filter(|scope| scope.wire.length() > 0)
            .map(|scope| (scope.head(), &scope.wire))
            .collect();
        let length_of = |(head, entries): &(Wire, &Wire)| head.length() + entries.length();
        let length: usize = scopes.iter().map(|scope| field_length(2, length_of(scope))).sum();
        let length = self.head.length() + length;
        let mut request = Wire::with_capacity(field_length(1, length));
        request.head(1, length);
        request.append(&self.head);
        for scope in &scopes {
            request.head(2, length_of(scope));
            request.append(&scope.0);
            request.append(scope.1);
        }
        request.into_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::Span;

    use super::*;

    fn add(batch: &mut Batch, scope: &str, name: &str) {
        let span = Span {
            name: name.to_owned(),
            ..Span::default()
        };
        let mut entry = Wire::default();
        entry.bytes_set(2, &span.encode_to_vec());
        let scope = InstrumentationScope::builder(scope.to_owned()).build();
        batch.add(&scope, None, &entry);
    }

    /// The names of the scopes and of their spans.
    fn names(batch: &Batch) -> Vec<(String, Vec<String>)> {
        let tidy = Tidy {
            masking: false,
            value_limit: None,
            attribute_limit: None,
        };
        let request = Frame::new(&Resource::builder_empty().build(), tidy).request(batch);
        let mut request = ExportTraceServiceRequest::decode(request).unwrap();
        let group = request.resource_spans.remove(0);
        let names = |spans: Vec<Span>| spans.into_iter().map(|span| span.name).collect();
        group
            .scope_spans
            .into_iter()
            .map(|scope| (scope.scope.unwrap().name, names(scope.spans)))
            .collect()
    }

    #[test]
    fn a_batch_that_is_used_again_has_nothing_of_the_last_one() {
        let mut batch = Batch::default();
        for number in 0..2 * KEPT_SCOPES {
            add(&mut batch, &format!("scope {number}"), &"x".repeat(KEPT_BYTES));
        }
        assert_eq!(batch.count(), 2 * KEPT_SCOPES);
        batch.clear();
        assert_eq!((batch.count(), names(&batch)), (0, vec![]));
        assert!(batch.scopes.len() <= KEPT_SCOPES);
        add(&mut batch, "scope 1", "a");
        add(&mut batch, "new", "b");
        add(&mut batch, "scope 1", "c");
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let expected = [
            ("scope 1".to_owned(), texts(&["a", "c"])),
            ("new".to_owned(), texts(&["b"])),
        ];
        assert_eq!(names(&batch), expected);
    }
}
