//! Sources of telemetry: a resource and an instrumentation scope, which batches of entries share.

use std::sync::Arc;

use opentelemetry_proto::tonic::{
    common::v1::{InstrumentationScope, KeyValue, any_value},
    resource::v1::Resource,
};
use prost::Message as _;

use super::{
    intern::{Footprint, InternId, Interner},
    memory,
};

/// Service name of resources without `service.name`.
const UNKNOWN_SERVICE: &str = "unknown_service";

/// Resource and instrumentation scope of telemetry.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) service: Arc<str>,
    pub(crate) scope: Arc<str>,
    /// `service.instance.id`; empty if it is missing.
    pub(crate) instance: Arc<str>,
    /// The resource in OTLP's protobuf encoding.
    resource: Arc<[u8]>,
}

impl Source {
    /// Returns the size of the names and the encoded resource, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.service.len() + self.scope.len() + self.resource.len()
    }

    /// Returns the encoded resource, which is the same for all telemetry of a process.
    pub(crate) fn process(&self) -> &Arc<[u8]> {
        &self.resource
    }

    /// Decodes the resource's attributes.
    pub(crate) fn resource(&self) -> Vec<KeyValue> {
        // The resource was encoded by `intern`, and a page should not fail because of a bug there.
        Resource::decode(&*self.resource).unwrap_or_default().attributes
    }

    /// Interns `resource` and `scope`; returns `None` if they need more than `allowance` bytes.
    pub(crate) fn intern(
        sources: &mut Interner<Self>,
        resource: Option<&Resource>,
        scope: Option<&InstrumentationScope>,
        allowance: usize,
    ) -> Option<InternId> {
        let encoded = resource.map(Resource::encode_to_vec).unwrap_or_default();
        let scope = scope.map_or("", |scope| scope.name.as_str());
        // Twice the size of the resource is an upper bound, because names are copied from it.
        if 2 * memory::shared(encoded.len()) + memory::shared(scope.len()) > allowance {
            return None;
        }
        let same = |source: &Self| *source.resource == *encoded && &*source.scope == scope;
        let make = || Self {
            service: service_of(resource).into(),
            scope: scope.into(),
            instance: resource
                .and_then(|resource| text_in(resource, "service.instance.id"))
                .unwrap_or_default()
                .into(),
            resource: encoded.as_slice().into(),
        };
        Some(sources.intern(&(&encoded, scope), same, make))
    }
}

impl Footprint for Source {
    fn heap_bytes(&self) -> usize {
        let lengths = [
            self.service.len(),
            self.scope.len(),
            self.instance.len(),
            self.resource.len(),
        ];
        lengths.map(memory::shared).iter().sum()
    }
}

/// Returns the name of the service of a resource.
pub(crate) fn service_of(resource: Option<&Resource>) -> &str {
    resource.and_then(service_name).unwrap_or(UNKNOWN_SERVICE)
}

/// Returns `service.name` if it is a string that is not empty.
fn service_name(resource: &Resource) -> Option<&str> {
    text_in(resource, "service.name").filter(|name| !name.is_empty())
}

/// Returns an attribute of a resource if it is a string.
fn text_in<'a>(resource: &'a Resource, key: &str) -> Option<&'a str> {
    let mut attributes = resource.attributes.iter();
    text_of(attributes.find(|attribute| attribute.key == key)?)
}

/// Returns the value of `attribute` if it is a string.
pub(crate) fn text_of(attribute: &KeyValue) -> Option<&str> {
    match attribute.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text),
        _ => None,
    }
}
