//! Starts of services: the time at which the newest instance of each service was first seen.

use std::{collections::HashMap, sync::Arc};

use opentelemetry_proto::tonic::common::v1::KeyValue;

use crate::store::source::Source;

/// Maximum number of instances.
const MAX_INSTANCES: usize = 10_000;

/// Resource attributes of which the first one that is present identifies an instance.
const IDENTIFIERS: [&str; 4] = [
    "service.instance.id",
    "process.creation.time",
    "process.pid",
    "container.id",
];

/// Instances with the time at which each was first seen.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    first_seen: HashMap<(Arc<str>, String), u64>,
}

/// Returns the text that identifies the instance.
pub(super) fn instance(source: &Source) -> String {
    let resource = source.resource();
    let find = |key: &&str| {
        resource
            .iter()
            .find(|attribute: &&KeyValue| attribute.key == **key)
    };
    let value = IDENTIFIERS.iter().find_map(|key| find(key)?.value.clone());
    value.map_or_else(String::new, |value| format!("{:?}", value.value))
}

impl Restarts {
    pub(super) fn see(&mut self, service: &Arc<str>, instance: &str, time: u64) {
        let key = (service.clone(), instance.to_owned());
        if self.first_seen.len() < MAX_INSTANCES || self.first_seen.contains_key(&key) {
            let first = self.first_seen.entry(key).or_insert(time);
            *first = time.min(*first);
        }
    }

    /// Returns the latest start of a service.
    pub(super) fn of(&self, service: &Arc<str>) -> Option<u64> {
        let of_service = self.first_seen.iter().filter(|((known, _), _)| known == service);
        of_service.map(|(_, first)| *first).max()
    }

    /// Returns a row for each service, with its latest start and whether it had several instances.
    pub(super) fn into_rows<R>(self, row: impl Fn(Arc<str>, u64, bool) -> R) -> Vec<R> {
        let mut services: std::collections::BTreeMap<Arc<str>, (u64, usize)> = Default::default();
        for ((service, _), first) in self.first_seen {
            let (latest, instances) = services.entry(service).or_default();
            *latest = first.max(*latest);
            *instances += 1;
        }
        let rows = services.into_iter();
        rows.map(|(service, (latest, instances))| row(service, latest, instances > 1))
            .collect()
    }
}
