//! The YAML format of a registry: a subset of the semantic convention definition language (version 1) of
//! OpenTelemetry Weaver. Unknown fields are errors.

use serde::{Deserialize, Serialize};

/// A file of the registry.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    #[serde(default)]
    pub(crate) groups: Vec<Group>,
    #[serde(default)]
    pub(crate) imports: Imports,
}

/// Upstream metrics and events in use.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Imports {
    #[serde(default)]
    pub(crate) metrics: Vec<String>,
    #[serde(default)]
    pub(crate) events: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Group {
    pub(crate) id: String,
    #[serde(rename = "type")]
    pub(crate) signal: Signal,
    pub(crate) brief: String,
    pub(crate) note: Option<String>,
    pub(crate) stability: Option<Stability>,
    pub(crate) extends: Option<String>,
    #[serde(default)]
    pub(crate) attributes: Vec<Attribute>,
    #[serde(default)]
    pub(crate) annotations: Annotations,
    pub(crate) span_kind: Option<SpanKind>,
    pub(crate) metric_name: Option<String>,
    pub(crate) instrument: Option<Instrument>,
    pub(crate) unit: Option<String>,
    /// Name of an event.
    pub(crate) name: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Signal {
    AttributeGroup,
    Event,
    Metric,
    Span,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stability {
    Alpha,
    Beta,
    Development,
    ReleaseCandidate,
    Stable,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SpanKind {
    Client,
    Consumer,
    Internal,
    Producer,
    Server,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Instrument {
    Counter,
    Gauge,
    Histogram,
    #[serde(rename = "updowncounter")]
    UpDownCounter,
}

/// Returns the name of a value of [`Stability`], [`SpanKind`] or [`Instrument`].
pub(crate) fn name(value: impl Serialize) -> String {
    let name = serde_json::to_value(value).ok();
    let name = name.as_ref().and_then(serde_json::Value::as_str);
    name.expect("unit variants serialize as their name").to_owned()
}

/// The declaration of an attribute (`id`) or a reference to one (`ref`).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Attribute {
    pub(crate) id: Option<String>,
    #[serde(rename = "ref")]
    pub(crate) reference: Option<String>,
    #[serde(rename = "type")]
    pub(crate) value_type: Option<AttributeType>,
    pub(crate) brief: Option<String>,
    pub(crate) note: Option<String>,
    pub(crate) stability: Option<Stability>,
    #[serde(default)]
    pub(crate) requirement_level: RequirementLevel,
    pub(crate) examples: Option<Vec<serde_json::Value>>,
    #[serde(default)]
    pub(crate) annotations: Annotations,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum AttributeType {
    Simple(String),
    Enumeration { members: Vec<Member> },
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Member {
    #[expect(dead_code, reason = "required by the format, but not shown in the document")]
    id: String,
    pub(crate) value: String,
    pub(crate) brief: Option<String>,
    #[expect(
        dead_code,
        reason = "required by the format, but the stability of the attribute is shown instead"
    )]
    stability: Stability,
}

#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RequirementLevel {
    Required,
    ConditionallyRequired(String),
    #[default]
    Recommended,
    OptIn,
}

/// Annotations of this project; the README of the registry describes them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Annotations {
    #[serde(default)]
    pub(crate) names: Vec<String>,
    pub(crate) parent: Option<String>,
    #[serde(default)]
    pub(crate) measures: Vec<String>,
    #[serde(default)]
    pub(crate) resource: bool,
    pub(crate) logs: Option<String>,
    #[serde(rename = "type")]
    pub(crate) value_type: Option<String>,
}
