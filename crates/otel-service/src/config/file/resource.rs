//! The resource of a configuration file.

use opentelemetry::{Array, KeyValue, StringValue, Value as AttributeValue};
use opentelemetry_sdk::Resource;

use super::metrics::patterns;
use super::reader::{Section, Value};
use crate::resource::{Detector, base, detected, parse};
use crate::service::Service;

/// Reads `resource`. `added` are attributes of the program, which the file overrides; `lookup` returns variables.
pub(super) fn resource(
    section: Option<Value<'_>>,
    service: Service,
    added: Vec<KeyValue>,
    lookup: &mut dyn FnMut(&str) -> Option<String>,
) -> Resource {
    let mut builder = base(service).with_attributes(added);
    let Some(mut section) = section.map(Value::section) else {
        return builder.build();
    };
    if let Some(detection) = section.get("detection/development") {
        builder = builder.with_attributes(detection_of(detection.section(), lookup));
    }
    if let Some(value) = section.get("attributes_list")
        && let Some(list) = value.text()
    {
        match parse(&list) {
            Some(attributes) => builder = builder.with_attributes(attributes),
            None => value.refuse("has an entry that is not key=value with valid escapes"),
        }
    }
    let attributes: Vec<KeyValue> = section
        .get("attributes")
        .iter()
        .flat_map(Value::items)
        .filter_map(attribute)
        .collect();
    builder = builder.with_attributes(attributes);
    match section.text("schema_url") {
        Some(schema_url) => builder.with_schema_url([], schema_url).build(),
        None => builder.build(),
    }
}

fn detection_of(mut section: Section<'_>, lookup: &mut dyn FnMut(&str) -> Option<String>) -> Vec<KeyValue> {
    let patterns = section.get("attributes").map(patterns);
    let mut attributes = Vec::new();
    for item in section.get("detectors").iter().flat_map(Value::items) {
        let Some((name, value)) = item.section().component() else {
            continue;
        };
        let detector = match name {
            "service" => {
                let name = lookup("OTEL_SERVICE_NAME");
                attributes.extend(name.map(|name| KeyValue::new("service.name", name)));
                Detector::Instance
            }
            "host" => Detector::Host,
            "process" => Detector::Process,
            "container" => Detector::Container,
            _ => {
                value.refuse("is not a supported detector");
                continue;
            }
        };
        drop(value.section());
        attributes.extend(detected(detector));
    }
    if let Some(patterns) = patterns {
        attributes.retain(|attribute| patterns.includes(attribute.key.as_str()));
    }
    attributes
}

fn attribute(entry: Value<'_>) -> Option<KeyValue> {
    let mut section = entry.section();
    let name = section.required("name").and_then(|name| name.text());
    let kind = section.get("type").map_or(Some(Kind::Text), |value| {
        value.choice(&[
            ("string", Kind::Text),
            ("bool", Kind::Boolean),
            ("int", Kind::Integer),
            ("double", Kind::Double),
            ("string_array", Kind::Texts),
            ("bool_array", Kind::Booleans),
            ("int_array", Kind::Integers),
            ("double_array", Kind::Doubles),
        ])
    });
    let value = section.take("value");
    if value.is_none() {
        section.required("value");
    }
    // The entry is ignored if its value is null.
    let value = value.filter(|value| !value.is_null())?;
    let value = match kind? {
        Kind::Text => value.text()?.into(),
        Kind::Boolean => value.boolean()?.into(),
        Kind::Integer => value.any_integer()?.into(),
        Kind::Double => value.number()?.into(),
        Kind::Texts => array(&value, |item| item.text().map(StringValue::from)),
        Kind::Booleans => array(&value, Value::boolean),
        Kind::Integers => array(&value, Value::any_integer),
        Kind::Doubles => array(&value, Value::number),
    };
    Some(KeyValue::new(name?, value))
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Boolean,
    Integer,
    Double,
    Texts,
    Booleans,
    Integers,
    Doubles,
}

fn array<'a, T>(value: &Value<'a>, read: impl Fn(&Value<'a>) -> Option<T>) -> AttributeValue
where
    Array: From<Vec<T>>,
{
    let items: Vec<T> = value.items().iter().filter_map(read).collect();
    AttributeValue::Array(items.into())
}
