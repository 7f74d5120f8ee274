//! The resource, which identifies the process that sends the telemetry. `OTEL_RESOURCE_ATTRIBUTES` overrides
//! detected attributes, and `OTEL_SERVICE_NAME` overrides both.

use std::borrow::Cow;
use std::fs;

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{ResourceBuilder, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

use crate::service::Service;

/// Builds the resource from the defaults of the service, `added` attributes and the values of the two
/// variables.
///
/// Adds a warning to `warnings` if the attributes are malformed.
pub(crate) fn resource(
    service: Service,
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
        ])
}

/// A source of detected attributes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Detector {
    /// The instance of the service.
    Instance,
    Process,
    Host,
    #[cfg(feature = "config-file")]
    Container,
}

/// Returns the attributes that the platform provides.
pub(crate) fn detected(detector: Detector) -> Vec<KeyValue> {
    let known = |key: &'static str, value: Option<String>| value.map(|value| KeyValue::new(key, value));
    match detector {
        Detector::Instance => vec![KeyValue::new("service.instance.id", instance_id())],
        Detector::Process => {
            let mut attributes = vec![
                KeyValue::new("process.pid", i64::from(std::process::id())),
                KeyValue::new("process.runtime.name", "rust"),
            ];
            attributes.extend(known("process.executable.name", executable_name()));
            attributes
        }
        Detector::Host => {
            let mut attributes = vec![
                KeyValue::new("os.type", std::env::consts::OS),
                KeyValue::new("host.arch", host_arch()),
            ];
            attributes.extend(known("host.name", host_name()));
            attributes
        }
        #[cfg(feature = "config-file")]
        Detector::Container => {
            let read = |path| fs::read_to_string(path).unwrap_or_default();
            let mounts = read("/proc/self/mountinfo");
            known("container.id", container_id(&read("/proc/self/cgroup"), &mounts))
                .into_iter()
                .collect()
        }
    }
}

/// Returns the id of the container from the control groups of the process (version 1) or from its mounts.
#[cfg(feature = "config-file")]
fn container_id(control_groups: &str, mounts: &str) -> Option<String> {
    let mounts = mounts.lines().filter(|line| line.contains("/containers/"));
    control_groups.lines().chain(mounts).find_map(|line| {
        let mut words = line.split(|character: char| !character.is_ascii_alphanumeric());
        let is_id = |word: &&str| word.len() == 64 && word.bytes().all(|digit| digit.is_ascii_hexdigit());
        words.find(is_id).map(str::to_owned)
    })
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

fn host_name() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| fs::read_to_string("/etc/hostname"))
        .ok()?;
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

fn executable_name() -> Option<String> {
    let path = std::env::current_exe().ok()?;
    Some(path.file_name()?.to_str()?.to_owned())
}

/// Returns the architecture as the `host.arch` convention names it.
fn host_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "x86",
        "arm" => "arm32",
        other => other,
    }
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
        assert_eq!(warnings, Vec::<String>::new());
    }

    #[cfg(feature = "config-file")]
    #[test]
    fn the_id_of_a_container_is_found() {
        let id = "0123456789abcdef".repeat(4);
        for (control_groups, mounts) in [
            (format!("0::/\n12:memory:/docker/{id}"), String::new()),
            (
                format!("1:cpu:/kubepods.slice/cri-containerd-{id}.scope"),
                String::new(),
            ),
            (
                "0::/".to_owned(),
                format!("1 2 8:1 /lib/containers/{id}/hostname /etc/hostname rw"),
            ),
        ] {
            assert_eq!(container_id(&control_groups, &mounts).as_ref(), Some(&id));
        }
        let layer = format!("1 2 0:1 / / rw overlay lowerdir=/var/lib/overlay2/{id}/diff");
        assert_eq!(container_id("0::/", &layer), None);
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
            let resource = resource(SERVICE, Vec::new(), None, Some(broken), &mut warnings);
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
            None,
            Some("service.name=other"),
            &mut Vec::new(),
        );
        assert_eq!(get(&resource, "service.name"), Some("other".into()));
    }
}
