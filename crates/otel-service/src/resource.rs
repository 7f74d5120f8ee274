//! The resource, which identifies the process that sends the telemetry. `OTEL_RESOURCE_ATTRIBUTES` overrides
//! detected attributes, and `OTEL_SERVICE_NAME` overrides both.

use std::borrow::Cow;

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{ResourceBuilder, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

use crate::names::SCHEMA_URL;
use crate::platform;
use crate::service::Service;

/// Builds the resource from the defaults of the service, the attributes of the platform and of `kubernetes`, `added`
/// attributes and the values of the two variables.
///
/// Adds a warning to `warnings` if the attributes are malformed.
pub(crate) fn resource(
    service: Service,
    kubernetes: Vec<KeyValue>,
    added: Vec<KeyValue>,
    service_name: Option<String>,
    attributes: Option<&str>,
    warnings: &mut Vec<String>,
) -> Resource {
    let attributes = parse(attributes.unwrap_or_default()).unwrap_or_else(|| {
        warnings.push(
            "OTEL_RESOURCE_ATTRIBUTES is ignored: it has an entry that is not key=value with valid escapes"
                .to_owned(),
        );
        Vec::new()
    });
    let mut builder = base(service)
        .with_attributes(detected(Detector::Instance))
        .with_attributes(detected(Detector::Process))
        .with_attributes(detected(Detector::Host))
        .with_attributes(detected(Detector::Container))
        .with_schema_url(kubernetes, SCHEMA_URL)
        .with_attributes(added)
        .with_attributes(attributes);
    if let Some(name) = service_name {
        builder = builder.with_service_name(name);
    }
    builder.build()
}

/// Returns a builder with the attributes of the service and of the SDK.
pub(crate) fn base(service: Service) -> ResourceBuilder {
    Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes([
            KeyValue::new("service.name", service.name),
            KeyValue::new("service.version", service.version),
            KeyValue::new("telemetry.distro.name", env!("CARGO_PKG_NAME")),
            KeyValue::new("telemetry.distro.version", env!("CARGO_PKG_VERSION")),
        ])
}

/// A source of detected attributes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Detector {
    /// The instance of the service.
    Instance,
    Process,
    Host,
    Container,
}

/// Returns the attributes that the platform provides.
pub(crate) fn detected(detector: Detector) -> Vec<KeyValue> {
    match detector {
        Detector::Instance => vec![KeyValue::new("service.instance.id", instance_id())],
        Detector::Process => platform::process(),
        Detector::Host => platform::host(),
        Detector::Container => platform::container().into_iter().collect(),
    }
}

/// Parses comma-separated, percent-encoded `key=value` pairs. Returns `None` if any pair is malformed: the resource
/// specification requires that all are ignored then.
pub(crate) fn parse(text: &str) -> Option<Vec<KeyValue>> {
    let entries = text.split(',').filter(|entry| !entry.trim().is_empty());
    entries.map(attribute).collect()
}

fn attribute(entry: &str) -> Option<KeyValue> {
    let (key, value) = entry.split_once('=')?;
    let (key, value) = (decoded(key.trim())?, decoded(value.trim())?);
    (!key.is_empty()).then(|| KeyValue::new(key.into_owned(), value.into_owned()))
}

/// Decodes percent-encoded text; returns `None` if an escape is malformed.
fn decoded(text: &str) -> Option<Cow<'_, str>> {
    let is_hexadecimal = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let mut escapes = text.split('%').skip(1);
    escapes
        .all(|escape| escape.get(..2).is_some_and(is_hexadecimal))
        .then(|| percent_encoding::percent_decode_str(text).decode_utf8().ok())?
}

/// Returns a random UUID (version 4), which distinguishes this process from its replicas.
fn instance_id() -> String {
    let mut bytes = RandomIdGenerator::default().new_trace_id().to_bytes();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::{Key, Value};

    const SERVICE: Service = Service::new("app", "1.2.3");

    fn get(resource: &Resource, key: &'static str) -> Option<Value> {
        resource.get(&Key::new(key))
    }

    #[test]
    fn the_variables_override_the_defaults() {
        let mut warnings = Vec::new();
        let resource = resource(
            SERVICE,
            vec![KeyValue::new("k8s.pod.name", "detected")],
            vec![KeyValue::new("x", "added"), KeyValue::new("added", true)],
            Some("named".to_owned()),
            Some("service.name=other,deployment.environment.name=a%2Cb, , %78 = 1 "),
            &mut warnings,
        );
        assert_eq!(get(&resource, "service.name"), Some("named".into()));
        assert_eq!(get(&resource, "deployment.environment.name"), Some("a,b".into()));
        assert_eq!(get(&resource, "x"), Some("1".into()));
        assert_eq!(get(&resource, "added"), Some(true.into()));
        assert_eq!(get(&resource, "service.version"), Some("1.2.3".into()));
        assert_eq!(get(&resource, "telemetry.sdk.language"), Some("rust".into()));
        assert_eq!(
            get(&resource, "telemetry.distro.name"),
            Some("otel-service".into())
        );
        assert_eq!(get(&resource, "k8s.pod.name"), Some("detected".into()));
        assert_eq!(resource.schema_url(), Some(SCHEMA_URL));
        assert_eq!(warnings, Vec::<String>::new());
    }

    #[test]
    fn malformed_attributes_are_ignored_as_a_whole() {
        for broken in [
            "x=1,broken",
            "x=1,=2",
            "x=1,broken=%zz",
            "x=1,broken=%4",
            "x=1,broken=%ff",
        ] {
            let mut warnings = Vec::new();
            let resource = resource(SERVICE, Vec::new(), Vec::new(), None, Some(broken), &mut warnings);
            assert_eq!(get(&resource, "x"), None);
            assert_eq!(warnings.len(), 1);
            assert!(!warnings[0].contains("broken"), "{warnings:?}");
        }
    }

    #[test]
    fn resource_attributes_override_the_default_service_name() {
        let resource = resource(
            SERVICE,
            Vec::new(),
            Vec::new(),
            None,
            Some("service.name=other"),
            &mut Vec::new(),
        );
        assert_eq!(get(&resource, "service.name"), Some("other".into()));
    }
}
