//! Messages of `opentelemetry/proto/common/v1/common.proto` and `resource.proto`.

use opentelemetry_proto::tonic::{
    common::v1::{
        AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList, any_value::Value,
    },
    resource::v1::Resource,
};

use super::{
    fields::{List, Object, message},
    scalars::{Base64, Double, Flag, Integer, Text, Texts},
};

message!(AnyValue {
    "stringValue" => value = Value::StringValue: Text,
    "boolValue" => value = Value::BoolValue: Flag,
    "intValue" => value = Value::IntValue: Integer<i64>,
    "doubleValue" => value = Value::DoubleValue: Double,
    "arrayValue" => value = Value::ArrayValue: Object<ArrayValue>,
    "kvlistValue" => value = Value::KvlistValue: Object<KeyValueList>,
    "bytesValue" => value = Value::BytesValue: Base64,
});

message!(ArrayValue {
    "values" => values: List<AnyValue>,
});

message!(KeyValueList {
    "values" => values: List<KeyValue>,
});

message!(KeyValue {
    "key" => key: Text,
    "value" => optional value: Object<AnyValue>,
});

message!(InstrumentationScope {
    "name" => name: Text,
    "version" => version: Text,
    "attributes" => attributes: List<KeyValue>,
    "droppedAttributesCount" => dropped_attributes_count: Integer<u32>,
});

message!(Resource {
    "attributes" => attributes: List<KeyValue>,
    "droppedAttributesCount" => dropped_attributes_count: Integer<u32>,
    "entityRefs" => entity_refs: List<EntityRef>,
});

message!(EntityRef {
    "schemaUrl" => schema_url: Text,
    "type" => r#type: Text,
    "idKeys" => id_keys: Texts,
    "descriptionKeys" => description_keys: Texts,
});
