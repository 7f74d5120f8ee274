//! Resolves declarations into a registry. Reports all problems of the declarations together.

use std::collections::{BTreeMap, BTreeSet};

use crate::declaration::{Attribute, AttributeType, File, Group, Signal, name};
use crate::naming::{self, Naming};
use crate::registry::{Event, Logs, Metric, OwnAttribute, Registry, Span, Use};
use crate::upstream::{MetricDefinition, Upstream};
use crate::value::{self, ANY, STRING};

/// Resolves files, each with its name; the error lists their problems.
pub(crate) fn resolve(
    upstream: Upstream,
    contract: &BTreeSet<String>,
    files: &[(&str, File)],
) -> Result<Registry, Vec<String>> {
    let mut naming = Naming {
        contract: contract.clone(),
        ..Naming::default()
    };
    upstream.attributes.keys().for_each(|name| naming.add(name));
    let mut resolution = Resolution {
        registry: Registry {
            upstream,
            naming,
            ..Registry::default()
        },
        groups: BTreeMap::new(),
        problems: Vec::new(),
    };
    resolution.run(files);
    if resolution.problems.is_empty() {
        Ok(resolution.registry)
    } else {
        Err(resolution.problems)
    }
}

struct Resolution<'a> {
    registry: Registry,
    groups: BTreeMap<&'a str, &'a Group>,
    problems: Vec<String>,
}

impl<'a> Resolution<'a> {
    fn run(&mut self, files: &'a [(&'a str, File)]) {
        for (area, file) in files {
            for group in &file.groups {
                if self.groups.insert(&group.id, group).is_some() {
                    self.problem(format!("{}: the group is defined twice", group.id));
                }
                for attribute in &group.attributes {
                    self.declare(area, group, attribute);
                }
            }
        }
        for (area, file) in files {
            for group in &file.groups {
                self.resolve(area, group);
            }
            self.import(file);
        }
        self.check_names();
    }

    fn check_names(&mut self) {
        let Registry {
            naming,
            attributes,
            metrics,
            ..
        } = &mut self.registry;
        attributes.keys().for_each(|name| naming.add(name));
        let malformed = attributes.keys().flat_map(|name| naming.violations(name));
        let bare = attributes
            .keys()
            .filter_map(|name| naming.without_namespace(name));
        let metrics = metrics.keys().filter(|name| !naming::is_well_formed(name));
        let metrics = metrics.map(|name| format!("the name {name} is malformed"));
        self.problems.extend(malformed.chain(bare).chain(metrics));
    }

    fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    fn redeclared(&mut self, at: &str) {
        self.problem(format!("{at} is defined upstream and cannot be redeclared"));
    }

    fn declare(&mut self, area: &str, group: &Group, attribute: &Attribute) {
        let Some(name) = &attribute.id else { return };
        let at = format!("{}: {name}", group.id);
        if attribute.reference.is_some() {
            self.problem(format!("{at} has both an id and a ref"));
        }
        if self.registry.upstream.attributes.contains_key(name)
            || self.registry.upstream.attribute(name).is_some()
        {
            self.redeclared(&at);
        }
        let (value_type, members) = match &attribute.value_type {
            Some(AttributeType::Simple(text)) => match value::parse(text).filter(|_| text != "enum") {
                Some(value_type) => (value_type, Vec::new()),
                None => return self.problem(format!("{at} has the unknown type {text}")),
            },
            Some(AttributeType::Enumeration { members }) => (STRING, members.clone()),
            None => return self.problem(format!("{at} has no type")),
        };
        let (Some(stability), Some(brief)) = (attribute.stability, &attribute.brief) else {
            return self.problem(format!("{at} has no stability or no brief"));
        };
        let examples = attribute.examples.clone().unwrap_or_default();
        if value_type == STRING && members.is_empty() && examples.is_empty() {
            self.problem(format!("{at} is a string without examples"));
        }
        let own = OwnAttribute {
            value_type,
            members,
            brief: brief.clone(),
            note: attribute.note.clone(),
            stability: self::name(stability),
            examples,
            area: area.to_owned(),
        };
        if self.registry.attributes.insert(name.clone(), own).is_some() {
            self.problem(format!("{at} is declared twice"));
        }
    }

    fn resolve(&mut self, area: &str, group: &'a Group) {
        let attributes = self.attributes(group);
        if group.signal != Signal::AttributeGroup && group.stability.is_none() {
            self.problem(format!("{} has no stability", group.id));
        }
        match group.signal {
            Signal::AttributeGroup => self.attribute_group(group, &attributes),
            Signal::Span => self.span(area, group, attributes),
            Signal::Metric => self.metric(area, group, attributes),
            Signal::Event => self.event(area, group, attributes),
        }
    }

    fn attribute_group(&mut self, group: &Group, attributes: &[Use]) {
        for metric in &group.annotations.measures {
            if metric != "*" && !self.registry.upstream.metrics.contains_key(metric) {
                self.problem(format!("{}: upstream has no metric {metric}", group.id));
            }
            let uses = self.registry.measures.entry(metric.clone()).or_default();
            uses.extend_from_slice(attributes);
        }
        if group.annotations.resource {
            self.registry.resource.extend_from_slice(attributes);
        }
        if let Some(source) = &group.annotations.logs {
            self.registry.logs.push(Logs {
                source: source.clone(),
                brief: group.brief.clone(),
                attributes: attributes.to_vec(),
            });
        }
    }

    fn span(&mut self, area: &str, group: &Group, attributes: Vec<Use>) {
        let Some(kind) = group.span_kind.filter(|_| !group.annotations.names.is_empty()) else {
            return self.problem(format!("{} has no kind or no names", group.id));
        };
        self.registry.spans.push(Span {
            names: group.annotations.names.clone(),
            kind: name(kind),
            parent: group.annotations.parent.clone(),
            brief: group.brief.clone(),
            note: group.note.clone(),
            attributes,
            area: area.to_owned(),
        });
    }

    fn metric(&mut self, area: &str, group: &Group, attributes: Vec<Use>) {
        let (Some(name), Some(instrument), Some(unit)) = (&group.metric_name, group.instrument, &group.unit)
        else {
            return self.problem(format!("{} has no name, instrument or unit", group.id));
        };
        if self.registry.upstream.metrics.contains_key(name) {
            self.redeclared(&group.id);
        }
        let metric = Metric {
            definition: MetricDefinition {
                instrument: self::name(instrument),
                unit: unit.clone(),
                deprecated: false,
            },
            brief: group.brief.clone(),
            attributes,
            area: area.to_owned(),
        };
        if self.registry.metrics.insert(name.clone(), metric).is_some() {
            self.problem(format!("{} is declared twice", group.id));
        }
    }

    fn event(&mut self, area: &str, group: &Group, attributes: Vec<Use>) {
        let Some(name) = &group.name else {
            return self.problem(format!("{} has no name", group.id));
        };
        if self.registry.upstream.events.contains_key(name) {
            self.redeclared(&group.id);
        }
        let event = Event {
            brief: group.brief.clone(),
            attributes,
            area: area.to_owned(),
        };
        if self.registry.events.insert(name.clone(), event).is_some() {
            self.problem(format!("{} is declared twice", group.id));
        }
    }

    fn import(&mut self, file: &File) {
        for name in &file.imports.metrics {
            match self.registry.upstream.metrics.get(name) {
                Some(metric) if !metric.deprecated => {
                    self.registry.imported_metrics.insert(name.clone());
                }
                _ => self.problem(format!(
                    "{name}: upstream has no such metric, or it is deprecated"
                )),
            }
        }
        for name in &file.imports.events {
            match self.registry.upstream.events.get(name) {
                Some(false) => {
                    self.registry.imported_events.insert(name.clone());
                }
                _ => self.problem(format!("{name}: upstream has no such event, or it is deprecated")),
            }
        }
    }

    /// Returns the attributes of a group, preceded by the attributes of the groups it extends.
    fn attributes(&mut self, group: &'a Group) -> Vec<Use> {
        let mut chain = vec![group];
        let mut last = group;
        while let Some(base) = &last.extends {
            let Some(found) = self.groups.get(base.as_str()).filter(|_| chain.len() < 10) else {
                self.problem(format!("{}: {base} does not exist or extends itself", last.id));
                break;
            };
            last = found;
            chain.push(last);
        }
        let mut uses: Vec<Use> = Vec::new();
        for (group, attribute) in chain
            .iter()
            .rev()
            .flat_map(|group| group.attributes.iter().map(move |attribute| (group, attribute)))
        {
            if let Some(used) = self.used(group, attribute) {
                uses.retain(|earlier| earlier.name != used.name);
                uses.push(used);
            }
        }
        uses
    }

    fn used(&mut self, group: &Group, attribute: &Attribute) -> Option<Use> {
        let name = attribute.id.as_ref().or(attribute.reference.as_ref())?;
        let template = self.registry.upstream.template(name);
        let Some(declared) = self.registry.value_type(name).or(template) else {
            if attribute.reference.is_some() {
                self.problem(format!("{}: {name} is not declared", group.id));
            }
            return None;
        };
        if attribute.reference.is_some() && (attribute.value_type.is_some() || attribute.stability.is_some())
        {
            self.problem(format!(
                "{}: a reference to {name} has a type or stability",
                group.id
            ));
        }
        if self
            .registry
            .upstream
            .attribute(name)
            .is_some_and(|attribute| attribute.deprecated)
        {
            self.problem(format!("{}: {name} is deprecated", group.id));
        }
        let narrowed = match &attribute.annotations.value_type {
            Some(text) if declared == ANY => value::parse(text),
            Some(_) => None,
            None => Some(declared),
        };
        if narrowed.is_none() {
            self.problem(format!("{}: {name} has a type other than {declared}", group.id));
        }
        let own_brief = self.registry.attributes.get(name).map(|own| own.brief.clone());
        Some(Use {
            name: name.clone(),
            value_type: narrowed?,
            brief: attribute.brief.clone().or(own_brief),
            requirement_level: attribute.requirement_level.clone(),
        })
    }
}
