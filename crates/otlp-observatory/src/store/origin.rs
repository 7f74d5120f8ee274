//! Where telemetry comes from: the resource and the instrumentation scope, which whole batches have in common.

use std::sync::Arc;

use opentelemetry_proto::tonic::{
    common::v1::{InstrumentationScope, KeyValue, any_value},
    resource::v1::Resource,
};
use prost::Message as _;

use super::{
    intern::{Footprint, Interner, Shared},
    memory,
};

/// The service of those that do not say it.
const UNKNOWN_SERVICE: &str = "unknown_service";

/// A resource and a scope.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) service: Arc<str>,
    pub(crate) scope: Arc<str>,
    /// The resource in OTLP's protobuf.
    resource: Arc<[u8]>,
}

impl Origin {
    /// How long its texts are, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.service.len() + self.scope.len() + self.resource.len()
    }

    /// The resource's attributes.
    pub(crate) fn resource(&self) -> Vec<KeyValue> {
        // It was encoded here; that it cannot be read would be a mistake of ours, and no reason to fail a page.
        Resource::decode(&*self.resource).unwrap_or_default().attributes
    }

    /// The origin of what comes with `resource` and `scope`; `None` when it would take more than `allowance`.
    pub(crate) fn intern(
        origins: &mut Interner<Self>,
        resource: Option<&Resource>,
        scope: Option<&InstrumentationScope>,
        allowance: usize,
    ) -> Option<Shared> {
        let encoded = resource.map(Resource::encode_to_vec).unwrap_or_default();
        let scope = scope.map_or("", |scope| scope.name.as_str());
        // The service's name is a part of the resource.
        if 2 * memory::shared(encoded.len()) + memory::shared(scope.len()) > allowance {
            return None;
        }
        let same = |origin: &Self| *origin.resource == *encoded && &*origin.scope == scope;
        let make = || Self {
            service: service_name(resource).into(),
            scope: scope.into(),
            resource: encoded.as_slice().into(),
        };
        Some(origins.intern(&(&encoded, scope), same, make).0)
    }
}

impl Footprint for Origin {
    fn heap_bytes(&self) -> usize {
        memory::shared(self.service.len())
            + memory::shared(self.scope.len())
            + memory::shared(self.resource.len())
    }
}

fn service_name(resource: Option<&Resource>) -> &str {
    resource
        .and_then(|resource| text(&resource.attributes, "service.name"))
        .filter(|name| !name.is_empty())
        .unwrap_or(UNKNOWN_SERVICE)
}

/// The text of the first attribute `key`.
fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    text_of(attribute)
}

/// The value of `attribute`, when it is text.
pub(crate) fn text_of(attribute: &KeyValue) -> Option<&str> {
    match attribute.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text),
        _ => None,
    }
}
