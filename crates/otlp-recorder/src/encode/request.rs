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
use crate::component::in_component;
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
    /// Entries of registered scopes, indexed by [`ScopeId`]: of the process's own service, and of its component.
    registered: Vec<[Writer; 2]>,
    /// Entries of the scopes of SDK tracers and loggers.
    others: Vec<ScopeEntries>,
    count: usize,
    bytes: usize,
}

#[derive(Debug)]
struct ScopeEntries {
    in_component: bool,
    scope: InstrumentationScope,
    /// Name that replaces the name of the scope.
    name: Option<String>,
    entries: Writer,
}

impl Batch {
    /// Adds an encoded entry, the concatenation of the pieces in `entry`, to a registered scope.
    pub(crate) fn add(&mut self, in_component: bool, ScopeId(index): ScopeId, entry: &[&[u8]]) {
        if index >= self.registered.len() {
            self.registered.resize_with(index + 1, Default::default);
        }
        let entries = &mut self.registered[index][usize::from(in_component)];
        entries.message_of(scope_group::ENTRIES, entry);
        self.count += 1;
        self.bytes += size(entry);
    }

    /// Adds an encoded entry of the calling thread, the concatenation of the pieces in `entry`, to `scope`. If
    /// present, `name` replaces the name of the scope.
    pub(crate) fn add_to_scope(&mut self, scope: &InstrumentationScope, name: Option<&str>, entry: &[&[u8]]) {
        let in_component = in_component();
        let is_same = |known: &ScopeEntries| {
            known.in_component == in_component && known.name.as_deref() == name && known.scope == *scope
        };
        let index = self.others.iter().rposition(is_same).unwrap_or_else(|| {
            self.others.push(ScopeEntries {
                in_component,
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
        for entries in self.registered.as_flattened_mut() {
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
    /// The resources of the process's own service and of its component, each with its schema URL.
    resources: [Writer; 2],
    rules: TextRules,
    scopes: Arc<Scopes>,
}

impl RequestEncoder {
    pub(crate) fn new(resource: &Resource, rules: TextRules, scopes: Arc<Scopes>) -> Self {
        let resource = encoded_resource(resource, rules);
        Self {
            resources: [resource.clone(), resource],
            rules,
            scopes,
        }
    }

    /// Sets the resource of the component.
    pub(crate) fn component(mut self, resource: &Resource) -> Self {
        self.resources[1] = encoded_resource(resource, self.rules);
        self
    }

    /// Returns the `ExportTraceServiceRequest` or `ExportLogsServiceRequest` with the entries of `batch`.
    pub(crate) fn encode(&self, batch: &Batch) -> Bytes {
        let mut request = Writer::default();
        let registered = self.scopes.lock();
        for (index, resource) in self.resources.iter().enumerate() {
            let registered = registered
                .iter()
                .zip(&batch.registered)
                .map(|(scope, entries)| (scope, None, &entries[index]));
            let others = batch
                .others
                .iter()
                .filter(|other| usize::from(other.in_component) == index);
            let others = others.map(|other| (&other.scope, other.name.as_deref(), &other.entries));
            let groups: Vec<(Writer, &Writer)> = registered
                .chain(others)
                .filter(|(_, _, entries)| !entries.bytes().is_empty())
                .map(|(scope, name, entries)| (self.scope_head(scope, name), entries))
                .collect();
            if !groups.is_empty() {
                write_resource_group(&mut request, resource, &groups);
            }
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

fn encoded_resource(resource: &Resource, rules: TextRules) -> Writer {
    let mut message = ProtoResource::from(resource);
    rules.apply_to_resource(&mut message);
    let mut writer = Writer::default();
    writer.bytes_always(resource_group::RESOURCE, &message.encode_to_vec());
    writer.string(
        resource_group::SCHEMA_URL,
        resource.schema_url().unwrap_or_default(),
    );
    writer
}

/// Writes a resource group with the heads and entries in `groups`.
fn write_resource_group(request: &mut Writer, resource: &Writer, groups: &[(Writer, &Writer)]) {
    let group_length = |(head, entries): &(Writer, &Writer)| head.bytes().len() + entries.bytes().len();
    let length_of_groups: usize = groups
        .iter()
        .map(|group| field_length(resource_group::SCOPE_GROUPS, group_length(group)))
        .sum();
    let length = resource.bytes().len() + length_of_groups;
    request.reserve(field_length(export_request::RESOURCE_GROUPS, length));
    request.length_prefix(export_request::RESOURCE_GROUPS, length);
    request.append(resource.bytes());
    for (head, entries) in groups {
        request.message_of(resource_group::SCOPE_GROUPS, &[head.bytes(), entries.bytes()]);
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};

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
        let request = ExportTraceServiceRequest::decode(request).unwrap();
        let names = |spans: Vec<Span>| spans.into_iter().map(|span| span.name).collect();
        request
            .resource_spans
            .into_iter()
            .flat_map(|group| group.scope_spans)
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
        with_span("left behind", |span| batch.add(false, first, span));
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

        with_span("d", |span| batch.add(false, second, span));
        let [one, new] = others;
        let all = [expected("second", &["d"]), one, new];
        assert_eq!(names(encoder.encode(&batch)), all);
    }
    #[test]
    fn entries_of_the_component_have_its_resource() {
        let scopes = Arc::new(Scopes::default());
        let id = scopes.register(scope("tracer"));
        let [own, component] =
            ["app", "app-worker"].map(|name| Resource::builder_empty().with_service_name(name).build());
        let encoder = RequestEncoder::new(&own, TextRules::default(), scopes).component(&component);
        let mut batch = Batch::default();
        with_span("run", |span| batch.add(true, id, span));
        let worker = std::thread::spawn(move || {
            crate::enter_component();
            add(&mut batch, "logger", "done");
            batch
        });
        let mut batch = worker.join().unwrap();
        // The names of the services and of their spans.
        let services = |batch: &Batch| {
            let request = ExportTraceServiceRequest::decode(encoder.encode(batch)).unwrap();
            let spans = |group: &ResourceSpans| -> Vec<_> {
                let spans = group.scope_spans.iter().flat_map(|scope| &scope.spans);
                spans.map(|span| span.name.clone()).collect()
            };
            let name =
                |group: &ResourceSpans| format!("{:?}", group.resource.as_ref().unwrap().attributes[0].value);
            let groups = request.resource_spans.iter();
            groups
                .map(|group| (name(group).contains("app-worker"), spans(group)))
                .collect::<Vec<_>>()
        };
        let of_component = (true, vec!["run".to_owned(), "done".to_owned()]);
        assert_eq!(services(&batch), std::slice::from_ref(&of_component));
        with_span("request", |span| batch.add(false, id, span));
        add(&mut batch, "logger", "saved");
        let of_service = (false, vec!["request".to_owned(), "saved".to_owned()]);
        assert_eq!(services(&batch), [of_service, of_component]);
        batch.clear();
        assert!(services(&batch).is_empty());
    }
}
