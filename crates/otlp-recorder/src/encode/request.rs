//! Export requests: a [`Batch`] groups encoded spans or log records by scope, and a [`RequestEncoder`] turns
//! it into a request. The requests of both signals have the same structure.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry::InstrumentationScope;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope as ProtoScope;
use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
use opentelemetry_sdk::Resource;
use prost::Message;
use prost::bytes::Bytes;

use super::fields::{export_request, resource_group, scope_group};
use super::wire::{Writer, field_length};
use crate::queue::Entries;
use crate::text::TextRules;

/// Maximum number of unregistered scopes whose memory a cleared batch keeps.
const MAX_KEPT_SCOPES: usize = 4;

/// Maximum memory in bytes that a cleared batch keeps for each scope.
const MAX_KEPT_BYTES: usize = 1024 * 1024;

/// The scopes of a recorder's tracers, identified by number to avoid comparing names when a span ends.
#[derive(Debug, Default)]
pub(crate) struct Scopes(Mutex<Vec<InstrumentationScope>>);

/// Number of a registered scope.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct ScopeId(usize);

impl Scopes {
    pub(crate) fn register(&self, scope: InstrumentationScope) -> ScopeId {
        let mut scopes = self.lock();
        let known = scopes.iter().position(|known| *known == scope);
        ScopeId(known.unwrap_or_else(|| {
            scopes.push(scope);
            scopes.len() - 1
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<InstrumentationScope>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Encoded spans or log records by scope.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Entries of registered scopes, indexed by [`ScopeId`].
    registered: Vec<Writer>,
    /// Entries of the scopes of SDK tracers and loggers.
    others: Vec<ScopeEntries>,
    count: usize,
    bytes: usize,
}

#[derive(Debug)]
struct ScopeEntries {
    scope: InstrumentationScope,
    /// Name that replaces the name of the scope.
    name: Option<String>,
    entries: Writer,
}

impl Batch {
    /// Adds an encoded entry, the concatenation of the pieces in `entry`, to a registered scope.
    pub(crate) fn add(&mut self, ScopeId(index): ScopeId, entry: &[&[u8]]) {
        if index >= self.registered.len() {
            self.registered.resize_with(index + 1, Writer::default);
        }
        self.registered[index].message_of(scope_group::ENTRIES, entry);
        self.count += 1;
        self.bytes += size(entry);
    }

    /// Adds an encoded entry, the concatenation of the pieces in `entry`, to `scope`. If present, `name`
    /// replaces the name of the scope.
    pub(crate) fn add_to_scope(&mut self, scope: &InstrumentationScope, name: Option<&str>, entry: &[&[u8]]) {
        let is_same = |known: &ScopeEntries| known.name.as_deref() == name && known.scope == *scope;
        let index = self.others.iter().rposition(is_same).unwrap_or_else(|| {
            self.others.push(ScopeEntries {
                scope: scope.clone(),
                name: name.map(str::to_owned),
                entries: Writer::default(),
            });
            self.others.len() - 1
        });
        self.others[index].entries.message_of(scope_group::ENTRIES, entry);
        self.count += 1;
        self.bytes += size(entry);
    }
}

/// Returns the size in bytes of an entry that consists of `pieces`.
pub(crate) fn size(pieces: &[&[u8]]) -> usize {
    pieces.iter().map(|piece| piece.len()).sum()
}

impl Entries for Batch {
    fn count(&self) -> usize {
        self.count
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn clear(&mut self) {
        self.count = 0;
        self.bytes = 0;
        for entries in &mut self.registered {
            entries.clear(MAX_KEPT_BYTES);
        }
        self.others.truncate(MAX_KEPT_SCOPES);
        for scope in &mut self.others {
            scope.entries.clear(MAX_KEPT_BYTES);
        }
    }
}

/// Encoder of the requests of one signal.
#[derive(Clone, Debug)]
pub(crate) struct RequestEncoder {
    /// The resource and its schema URL.
    resource: Writer,
    rules: TextRules,
    scopes: Arc<Scopes>,
}

impl RequestEncoder {
    pub(crate) fn new(resource: &Resource, rules: TextRules, scopes: Arc<Scopes>) -> Self {
        let mut message = ProtoResource::from(resource);
        rules.apply_to_resource(&mut message);
        let mut writer = Writer::default();
        writer.bytes_always(resource_group::RESOURCE, &message.encode_to_vec());
        writer.string(
            resource_group::SCHEMA_URL,
            resource.schema_url().unwrap_or_default(),
        );
        Self {
            resource: writer,
            rules,
            scopes,
        }
    }

    /// Returns the `ExportTraceServiceRequest` or `ExportLogsServiceRequest` with the entries of `batch`.
    pub(crate) fn encode(&self, batch: &Batch) -> Bytes {
        let registered = self.scopes.lock();
        let registered = registered
            .iter()
            .zip(&batch.registered)
            .map(|(scope, entries)| (scope, None, entries));
        let others = batch
            .others
            .iter()
            .map(|other| (&other.scope, other.name.as_deref(), &other.entries));
        let groups: Vec<(Writer, &Writer)> = registered
            .chain(others)
            .filter(|(_, _, entries)| !entries.bytes().is_empty())
            .map(|(scope, name, entries)| (self.scope_head(scope, name), entries))
            .collect();

        let group_length = |(head, entries): &(Writer, &Writer)| head.bytes().len() + entries.bytes().len();
        let length_of_groups: usize = groups
            .iter()
            .map(|group| field_length(resource_group::SCOPE_GROUPS, group_length(group)))
            .sum();
        let length = self.resource.bytes().len() + length_of_groups;
        let mut request = Writer::default();
        request.reserve(field_length(export_request::RESOURCE_GROUPS, length));
        request.length_prefix(export_request::RESOURCE_GROUPS, length);
        request.append(self.resource.bytes());
        for (head, entries) in &groups {
            request.message_of(resource_group::SCOPE_GROUPS, &[head.bytes(), entries.bytes()]);
        }
        request.into_bytes().into()
    }

    /// Returns the fields of a scope group without its entries.
    fn scope_head(&self, scope: &InstrumentationScope, name: Option<&str>) -> Writer {
        let name = name.map(|name| name.to_owned().into());
        let mut head = Writer::default();
        let mut message = ProtoScope::from((scope.clone(), name));
        self.rules.apply_to_scope(&mut message);
        head.bytes_always(scope_group::SCOPE, &message.encode_to_vec());
        head.string(scope_group::SCHEMA_URL, scope.schema_url().unwrap_or_default());
        head
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::Span;

    use super::*;

    fn scope(name: &str) -> InstrumentationScope {
        InstrumentationScope::builder(name.to_owned()).build()
    }

    fn with_span(name: &str, add: impl FnOnce(&[&[u8]])) {
        let span = Span {
            name: name.to_owned(),
            ..Span::default()
        };
        let encoded = span.encode_to_vec();
        let (first, last) = encoded.split_at(encoded.len() / 2);
        add(&[first, last]);
    }

    fn add(batch: &mut Batch, scope_name: &str, name: &str) {
        with_span(name, |span| batch.add_to_scope(&scope(scope_name), None, span));
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

    fn expected(scope: &str, spans: &[&str]) -> (String, Vec<String>) {
        (
            scope.to_owned(),
            spans.iter().map(|span| (*span).to_owned()).collect(),
        )
    }

    #[test]
    fn a_reused_batch_has_no_entries_of_the_previous_one() {
        let scopes = Arc::new(Scopes::default());
        let [first, second] = ["first", "second"].map(|name| scopes.register(scope(name)));
        assert_eq!(scopes.register(scope("first")), first);
        let encoder = RequestEncoder::new(&Resource::builder_empty().build(), TextRules::default(), scopes);
        let mut batch = Batch::default();
        for number in 0..2 * MAX_KEPT_SCOPES {
            add(
                &mut batch,
                &format!("scope {number}"),
                &"x".repeat(MAX_KEPT_BYTES),
            );
        }
        with_span("left behind", |span| batch.add(first, span));
        assert_eq!(batch.count(), 2 * MAX_KEPT_SCOPES + 1);
        batch.clear();
        assert_eq!(batch.count(), 0);
        assert!(batch.others.len() <= MAX_KEPT_SCOPES);
        assert_eq!(names(encoder.encode(&batch)), []);

        for (name, of_scope) in [("scope 1", "a"), ("new", "b"), ("scope 1", "c")] {
            add(&mut batch, name, of_scope);
        }
        let others = [expected("scope 1", &["a", "c"]), expected("new", &["b"])];
        assert_eq!(names(encoder.encode(&batch)), others);

        with_span("d", |span| batch.add(second, span));
        let [one, new] = others;
        let all = [expected("second", &["d"]), one, new];
        assert_eq!(names(encoder.encode(&batch)), all);
    }
}
