//! The fields of JSON messages, and the messages that all signals share.

use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, EntityRef, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use serde_json::{Map, Value, json};

pub(super) fn key_value(attribute: &KeyValue) -> Fields {
    Fields::new()
        .text("key", &attribute.key)
        .message("value", attribute.value.as_ref().map(any_value))
        .number("keyStrindex", attribute.key_strindex)
}

/// Writes the member of a `oneof`, even at its default.
pub(super) fn any_value(value: &AnyValue) -> Fields {
    let fields = Fields::new();
    let Some(value) = &value.value else {
        return fields;
    };
    match value {
        Any::StringValue(text) => fields.put("stringValue", text.as_str()),
        Any::BoolValue(truth) => fields.put("boolValue", *truth),
        Any::IntValue(number) => fields.put("intValue", number.to_string()),
        Any::DoubleValue(number) => fields.put("doubleValue", double(*number)),
        Any::ArrayValue(array) => {
            let array = Fields::new().list("values", &array.values, any_value);
            fields.message("arrayValue", Some(array))
        }
        Any::KvlistValue(list) => {
            let list = Fields::new().list("values", &list.values, key_value);
            fields.message("kvlistValue", Some(list))
        }
        Any::BytesValue(bytes) => fields.put("bytesValue", base64(bytes)),
        Any::StringValueStrindex(index) => fields.put("stringValueStrindex", *index),
    }
}

fn base64(bytes: &[u8]) -> String {
    use ::base64::Engine;
    ::base64::engine::general_purpose::STANDARD.encode(bytes)
}

pub(super) fn double(number: f64) -> Value {
    if number.is_finite() {
        return json!(number);
    }
    if number.is_nan() {
        return json!("NaN");
    }
    json!(if number > 0.0 { "Infinity" } else { "-Infinity" })
}

/// The fields of one message.
pub(super) struct Fields(pub(super) Map<String, Value>);

impl Fields {
    pub(super) fn new() -> Self {
        Self(Map::new())
    }

    pub(super) fn put(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    pub(super) fn text(self, name: &str, text: &str) -> Self {
        if text.is_empty() {
            self
        } else {
            self.put(name, text)
        }
    }

    pub(super) fn id(self, name: &str, bytes: &[u8]) -> Self {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.text(name, &hex)
    }

    pub(super) fn number(self, name: &str, number: impl Into<i64>) -> Self {
        match number.into() {
            0 => self,
            number => self.put(name, number),
        }
    }

    pub(super) fn long(self, name: &str, number: u64) -> Self {
        if number == 0 {
            self
        } else {
            self.put(name, number.to_string())
        }
    }

    pub(super) fn truth(self, name: &str, truth: bool) -> Self {
        if truth { self.put(name, true) } else { self }
    }

    /// Writes a field with presence, even at its default.
    pub(super) fn optional(self, name: &str, number: Option<f64>) -> Self {
        match number {
            Some(number) => self.put(name, double(number)),
            None => self,
        }
    }

    pub(super) fn message(self, name: &str, fields: Option<Self>) -> Self {
        match fields {
            Some(fields) => self.put(name, fields.0),
            None => self,
        }
    }

    pub(super) fn list<T>(self, name: &str, items: &[T], fields: impl Fn(&T) -> Self) -> Self {
        self.values(name, items, |item| Value::Object(fields(item).0))
    }

    pub(super) fn values<T>(self, name: &str, items: &[T], value: impl Fn(&T) -> Value) -> Self {
        if items.is_empty() {
            return self;
        }
        self.put(name, items.iter().map(value).collect::<Vec<_>>())
    }

    pub(super) fn attributes(self, attributes: &[KeyValue], dropped: u32) -> Self {
        self.list("attributes", attributes, key_value)
            .number("droppedAttributesCount", dropped)
    }

    pub(super) fn resource(self, resource: Option<&Resource>) -> Self {
        let fields = |resource: &Resource| {
            Self::new()
                .attributes(&resource.attributes, resource.dropped_attributes_count)
                .list("entityRefs", &resource.entity_refs, entity)
        };
        self.message("resource", resource.map(fields))
    }

    pub(super) fn scope(self, scope: Option<&InstrumentationScope>) -> Self {
        let fields = |scope: &InstrumentationScope| {
            Self::new()
                .text("name", &scope.name)
                .text("version", &scope.version)
                .attributes(&scope.attributes, scope.dropped_attributes_count)
        };
        self.message("scope", scope.map(fields))
    }
}

fn entity(entity: &EntityRef) -> Fields {
    let text = |text: &String| Value::from(text.as_str());
    Fields::new()
        .text("schemaUrl", &entity.schema_url)
        .text("type", &entity.r#type)
        .values("idKeys", &entity.id_keys, text)
        .values("descriptionKeys", &entity.description_keys, text)
}
