//! The outer messages of a request, which spans and log records share but for their names: the resource, the scopes, and
//! in them what was recorded.

use opentelemetry::InstrumentationScope;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope as ProtoScope;
use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
use opentelemetry_sdk::Resource;
use prost::Message;
use prost::bytes::Bytes;

use super::tidy::Tidy;
use super::wire::Wire;

/// More than the heads of the fields around entries take.
const HEADS: usize = 64;

/// What is the same in every request of a signal.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    resource: Vec<u8>,
    schema_url: String,
}

/// The entries of one scope, as a `ScopeSpans` or `ScopeLogs` has them.
#[derive(Debug)]
pub(super) struct ScopeEntries {
    scope: InstrumentationScope,
    /// Where the name is not the scope's own.
    name: Option<String>,
    wire: Wire,
}

impl ScopeEntries {
    /// `capacity` in bytes.
    pub(super) fn new(scope: &InstrumentationScope, name: Option<&str>, capacity: usize) -> Self {
        Self {
            scope: scope.clone(),
            name: name.map(str::to_owned),
            wire: Wire::with_capacity(capacity),
        }
    }

    pub(super) fn is_of(&self, scope: &InstrumentationScope, name: Option<&str>) -> bool {
        self.name.as_deref() == name && self.scope == *scope
    }

    /// Writes one entry.
    pub(super) fn add(&mut self, write: impl FnOnce(&mut Wire)) {
        self.wire.long_message(2, write);
    }

    fn into_bytes(self) -> Vec<u8> {
        let mut wire = self.wire;
        wire.text(3, self.scope.schema_url().unwrap_or_default());
        let name = self.name.map(Into::into);
        wire.bytes_set(1, &ProtoScope::from((self.scope, name)).encode_to_vec());
        wire.into_bytes()
    }
}

impl Frame {
    pub(super) fn new(resource: &Resource, tidy: Tidy) -> Self {
        let mut message = ProtoResource::from(resource);
        tidy.resource(&mut message);
        Self {
            resource: message.encode_to_vec(),
            schema_url: resource.schema_url().unwrap_or_default().to_owned(),
        }
    }

    /// The request with these entries.
    pub(super) fn request(&self, scopes: Vec<ScopeEntries>) -> Bytes {
        let scopes: Vec<Vec<u8>> = scopes.into_iter().map(ScopeEntries::into_bytes).collect();
        let length: usize = scopes.iter().map(|scope| scope.len() + HEADS).sum();
        let mut request = Wire::with_capacity(self.resource.len() + length + HEADS);
        request.message(1, |wire| {
            wire.bytes_set(1, &self.resource);
            for scope in &scopes {
                wire.bytes_set(2, scope);
            }
            wire.text(3, &self.schema_url);
        });
        request.into_bytes().into()
    }
}
