//! The names of the OpenTelemetry semantic conventions, from `upstream.txt`.

use std::collections::BTreeMap;

use crate::value;

/// The declarations of one version of the semantic conventions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Upstream {
    pub(crate) version: String,
    pub(crate) attributes: BTreeMap<String, UpstreamAttribute>,
    pub(crate) metrics: BTreeMap<String, MetricDefinition>,
    /// Names of events; the value is whether the event is deprecated.
    pub(crate) events: BTreeMap<String, bool>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct UpstreamAttribute {
    pub(crate) value_type: &'static str,
    /// Whether the name is a template for attributes `NAME.<key>`.
    pub(crate) template: bool,
    pub(crate) deprecated: bool,
}

/// Properties of a metric that upstream declares too.
#[derive(Clone, Debug)]
pub(crate) struct MetricDefinition {
    pub(crate) instrument: String,
    pub(crate) unit: String,
    pub(crate) deprecated: bool,
}

impl Upstream {
    /// Parses the file; the error is the first malformed line.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut upstream = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["version", version] => version.clone_into(&mut upstream.version),
                ["attribute", name, value_type, stability] => {
                    let template_type = value_type
                        .strip_prefix("template[")
                        .and_then(|rest| rest.strip_suffix(']'));
                    let attribute = UpstreamAttribute {
                        value_type: value::parse(template_type.unwrap_or(value_type)).ok_or(line)?,
                        template: template_type.is_some(),
                        deprecated: stability == "deprecated",
                    };
                    upstream.attributes.insert(name.to_owned(), attribute);
                }
                ["metric", name, instrument, unit, stability] => {
                    let metric = MetricDefinition {
                        instrument: instrument.to_owned(),
                        unit: unit.to_owned(),
                        deprecated: stability == "deprecated",
                    };
                    upstream.metrics.insert(name.to_owned(), metric);
                }
                ["event", name, stability] => {
                    upstream.events.insert(name.to_owned(), stability == "deprecated");
                }
                _ => return Err(line.to_owned()),
            }
        }
        Ok(upstream)
    }

    /// Returns the type of the attributes of a template.
    pub(crate) fn template(&self, name: &str) -> Option<&'static str> {
        let attribute = self.attributes.get(name)?;
        attribute.template.then_some(attribute.value_type)
    }

    /// Returns the attribute with this name, or the template that covers it.
    pub(crate) fn attribute(&self, name: &str) -> Option<&UpstreamAttribute> {
        if let Some(attribute) = self.attributes.get(name) {
            return Some(attribute).filter(|attribute| !attribute.template);
        }
        let mut prefix = name;
        while let Some((parent, _)) = prefix.rsplit_once('.') {
            if let Some(attribute) = self.attributes.get(parent)
                && attribute.template
            {
                return Some(attribute);
            }
            prefix = parent;
        }
        None
    }
}
