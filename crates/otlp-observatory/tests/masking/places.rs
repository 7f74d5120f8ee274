//! The places of telemetry that take text, each with the text of one form.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

pub const SIGNALS: [&str; 3] = ["traces", "logs", "metrics"];

/// Key of the resource attribute with the number of the form.
pub const FORM: &str = "form";

/// Value of attributes whose keys are the text.
pub const MARK: i64 = -7;

pub struct Place {
    pub name: &'static str,
    pub signal: &'static str,
    /// Returns the text in this place of a group: a resource with its spans, log records or metrics.
    pub find: fn(&Value) -> Option<String>,
}

const fn place(name: &'static str, signal: &'static str, find: fn(&Value) -> Option<String>) -> Place {
    Place { name, signal, find }
}

pub const PLACES: &[Place] = &[
    place("span: name", "traces", |group| text(&span(group)["name"])),
    place("span: status", "traces", |group| {
        text(&span(group)["status"]["message"])
    }),
    place("span: tracestate", "traces", |group| {
        member(&span(group)["traceState"])
    }),
    place("span: attribute", "traces", |group| value(span(group), "text")),
    place("span: list", "traces", |group| list(span(group))),
    place("span: attribute key", "traces", |group| key(span(group))),
    place("event: name", "traces", |group| {
        text(&span(group)["events"][0]["name"])
    }),
    place("event: attribute", "traces", |group| {
        value(&span(group)["events"][0], "text")
    }),
    place("event: attribute key", "traces", |group| {
        key(&span(group)["events"][0])
    }),
    place("link: tracestate", "traces", |group| {
        member(&span(group)["links"][0]["traceState"])
    }),
    place("link: attribute", "traces", |group| {
        value(&span(group)["links"][0], "text")
    }),
    place("link: attribute key", "traces", |group| {
        key(&span(group)["links"][0])
    }),
    place("resource: attribute", "traces", |group| {
        value(&group["resource"], "text")
    }),
    place("resource: attribute key", "traces", |group| {
        key(&group["resource"])
    }),
    place("scope: name", "traces", |group| {
        text(&group["scopeSpans"][0]["scope"]["name"])
    }),
    place("scope: version", "traces", |group| {
        text(&group["scopeSpans"][0]["scope"]["version"])
    }),
    place("scope: attribute", "traces", |group| {
        value(&group["scopeSpans"][0]["scope"], "text")
    }),
    place("log: text body", "logs", |group| {
        text(&body(group, 0)["stringValue"])
    }),
    place("log: map body", "logs", |group| {
        text(&attribute(&body(group, 1)["kvlistValue"]["values"], "text")?["stringValue"])
    }),
    place("log: map body, key", "logs", |group| {
        marked(&body(group, 1)["kvlistValue"]["values"])
    }),
    place("log: map within a map body", "logs", |group| {
        let inner = attribute(&body(group, 1)["kvlistValue"]["values"], "inner")?;
        text(&attribute(&inner["kvlistValue"]["values"], "text")?["stringValue"])
    }),
    place("log: map within a map body, key", "logs", |group| {
        let inner = attribute(&body(group, 1)["kvlistValue"]["values"], "inner")?;
        marked(&inner["kvlistValue"]["values"])
    }),
    place("log: list body", "logs", |group| {
        text(&body(group, 2)["arrayValue"]["values"][0]["stringValue"])
    }),
    place("log: bytes body", "logs", |group| bytes(body(group, 3))),
    place("log: event name", "logs", |group| {
        text(&record(group, 0)["eventName"])
    }),
    place("log: attribute", "logs", |group| value(record(group, 0), "text")),
    place("log: attribute key", "logs", |group| key(record(group, 0))),
    place("log: map attribute", "logs", |group| {
        let map = attribute(&record(group, 0)["attributes"], "map")?;
        match map["stringValue"].as_str() {
            Some(json) => Some(json.to_owned()),
            None => text(&attribute(&map["kvlistValue"]["values"], "text")?["stringValue"]),
        }
    }),
    place("metric: description", "metrics", |group| {
        text(&metric(group)["description"])
    }),
    place("point: attribute", "metrics", |group| value(point(group), "text")),
    place("point: attribute key", "metrics", |group| key(point(group))),
    place("exemplar: attribute", "metrics", |group| {
        let attributes = &point(group)["exemplars"][0]["filteredAttributes"];
        text(&attribute(attributes, "text")?["stringValue"])
    }),
];

fn span(group: &Value) -> &Value {
    &group["scopeSpans"][0]["spans"][0]
}

/// Returns the record with this number, whatever the order of the records.
fn record(group: &Value, number: u64) -> &Value {
    let scopes = group["scopeLogs"].as_array().unwrap().iter();
    let mut records = scopes.flat_map(|scope| scope["logRecords"].as_array().unwrap());
    let found = records.find(|record| record["severityNumber"] == number + 1);
    found.unwrap_or(&Value::Null)
}

fn body(group: &Value, number: u64) -> &Value {
    &record(group, number)["body"]
}

fn metric(group: &Value) -> &Value {
    &group["scopeMetrics"][0]["metrics"][0]
}

fn point(group: &Value) -> &Value {
    &metric(group)["sum"]["dataPoints"][0]
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn bytes(value: &Value) -> Option<String> {
    let bytes = BASE64_STANDARD.decode(value["bytesValue"].as_str()?).unwrap();
    Some(String::from_utf8(bytes).unwrap())
}

/// Returns the value of the only member of a `tracestate`.
fn member(state: &Value) -> Option<String> {
    let state = state.as_str().filter(|state| !state.is_empty())?;
    Some(state.strip_prefix("vendor=").unwrap_or(state).to_owned())
}

/// Returns the value of an attribute of `parent`.
fn value(parent: &Value, name: &str) -> Option<String> {
    text(&attribute(&parent["attributes"], name)?["stringValue"])
}

fn attribute<'a>(attributes: &'a Value, name: &str) -> Option<&'a Value> {
    let mut attributes = attributes.as_array()?.iter();
    Some(&attributes.find(|attribute| attribute["key"] == name)?["value"])
}

/// Returns the text of the attribute `list`, which is a list or its JSON.
fn list(parent: &Value) -> Option<String> {
    let list = attribute(&parent["attributes"], "list")?;
    text(&list["arrayValue"]["values"][0]["stringValue"]).or_else(|| text(&list["stringValue"]))
}

fn key(parent: &Value) -> Option<String> {
    marked(&parent["attributes"])
}

/// Returns the key of the attribute with [`MARK`].
fn marked(attributes: &Value) -> Option<String> {
    let mark = MARK.to_string();
    let mut attributes = attributes.as_array()?.iter();
    text(&attributes.find(|attribute| attribute["value"]["intValue"] == *mark)?["key"])
}

/// Returns a request of each signal with `form` in each place.
pub fn requests(index: usize, form: &str) -> [(&'static str, Value); 3] {
    let id = |digits| format!("{:0digits$x}", index + 1);
    let string = json!({"stringValue": form});
    let attributes = json!([
        {"key": "text", "value": string},
        {"key": form, "value": {"intValue": MARK}},
        {"key": "list", "value": {"arrayValue": {"values": [string]}}},
        {"key": "map", "value": {"kvlistValue": {"values": [
            {"key": "text", "value": string}, {"key": form, "value": {"intValue": MARK}},
        ]}}},
    ]);
    let number = json!({"key": FORM, "value": {"intValue": index}});
    let resource = json!({"attributes": [number, attributes[0], attributes[1]]});
    let scope = json!({"name": form, "version": form, "attributes": [attributes[0]]});
    // A value of `tracestate` has no equals sign.
    let state = if form.contains('=') {
        String::new()
    } else {
        format!("vendor={form}")
    };
    let span = json!({
        "traceId": id(32), "spanId": id(16), "traceState": state, "name": form, "kind": 1,
        "startTimeUnixNano": "1795342907000000000", "endTimeUnixNano": "1795342907001000000",
        "attributes": attributes, "status": {"code": 2, "message": form},
        "events": [{"timeUnixNano": "1795342907000000000", "name": form, "attributes": attributes}],
        "links": [{"traceId": id(32), "spanId": id(16), "traceState": state, "attributes": attributes}],
    });
    let bodies = [
        string.clone(),
        json!({"kvlistValue": {"values": [
            attributes[0], attributes[1], {"key": "inner", "value": attributes[3]["value"]},
        ]}}),
        attributes[2]["value"].clone(),
        json!({"bytesValue": BASE64_STANDARD.encode(form)}),
    ];
    let records = bodies.iter().enumerate().map(|(number, body)| {
        json!({
            "timeUnixNano": "1795342907000000000", "severityNumber": number + 1, "eventName": form, "body": body,
            "attributes": attributes,
        })
    });
    let point = json!({
        "startTimeUnixNano": "1795342907000000000", "timeUnixNano": "1795342907001000000", "asInt": "1",
        "attributes": [attributes[0], attributes[1]],
        "exemplars": [{"timeUnixNano": "1795342907000000000", "asInt": "1", "filteredAttributes": [attributes[0]]}],
    });
    let metric = json!({
        "name": "points", "description": form,
        "sum": {"aggregationTemporality": 2, "isMonotonic": true, "dataPoints": [point]},
    });
    let group = |scopes: &str, scoped: Value| json!({"resource": resource, scopes: [scoped]});
    [
        (
            "traces",
            json!({"resourceSpans": [group("scopeSpans", json!({"scope": scope, "spans": [span]}))]}),
        ),
        (
            "logs",
            json!({"resourceLogs": [
                group("scopeLogs", json!({"scope": scope, "logRecords": records.collect::<Vec<_>>()})),
            ]}),
        ),
        (
            "metrics",
            json!({"resourceMetrics": [group("scopeMetrics", json!({"scope": scope, "metrics": [metric]}))]}),
        ),
    ]
}
