//! Results of chord headers in the in-process broker, kept until the header is complete and its body runs.

use std::collections::{HashMap, VecDeque};

use serde_json::{Value, json};

use crate::{
    broker::{ChordPart, ChordState, Publication},
    task_id::TaskId,
};

#[derive(Default)]
pub(super) struct Chords {
    headers: HashMap<String, Header>,
    /// Ids of the headers, oldest first.
    order: VecDeque<String>,
}

#[derive(Default)]
struct Header {
    size: Option<u64>,
    structure: Option<Value>,
    parts: Vec<ChordPart>,
    /// Id of the task that completed the header, whose worker runs the body.
    claimed_by: Option<TaskId>,
    done: bool,
}

impl Chords {
    pub(super) fn begin(&mut self, publication: &Publication, capacity: usize) {
        for (group, size) in &publication.chord_sizes {
            let header = self.header(group);
            *header = Header {
                size: Some(*size),
                structure: header.structure.take(),
                ..Header::default()
            };
        }
        for (group, added) in &publication.chord_additions {
            let header = self.headers.get_mut(group);
            if let Some(size) = header.and_then(|header| header.size.as_mut()) {
                *size += added;
            }
        }
        for (group, structure) in &publication.groups {
            self.header(group).structure = Some(structure.clone());
        }
        while self.order.len() > capacity.max(1)
            && let Some(oldest) = self.order.pop_front()
        {
            self.headers.remove(&oldest);
        }
    }

    /// Returns the stored structure of a group.
    pub(super) fn structure(&self, group: &str) -> Option<&Value> {
        self.headers.get(group)?.structure.as_ref()
    }

    fn header(&mut self, group: &str) -> &mut Header {
        self.headers.entry(group.to_owned()).or_insert_with(|| {
            self.order.push_back(group.to_owned());
            Header::default()
        })
    }

    pub(super) fn record(&mut self, part: &ChordPart) -> ChordState {
        let Some(header) = self.headers.get_mut(&part.group).filter(|header| !header.done) else {
            return ChordState::Waiting;
        };
        let order = |part: &ChordPart| part.index.unwrap_or(u64::MAX);
        header
            .parts
            .retain(|other| other.task_id != part.task_id || other.index != part.index);
        let position = header.parts.partition_point(|other| order(other) <= order(part));
        header.parts.insert(position, part.clone());
        if header.size != Some(header.parts.len() as u64) {
            return ChordState::Waiting;
        }
        let claimed_by = header.claimed_by.get_or_insert_with(|| part.task_id.clone());
        if *claimed_by != part.task_id {
            return ChordState::Waiting;
        }
        let encoded = |part: &ChordPart| json!([1, part.task_id, part.status, part.result]);
        ChordState::Complete {
            parts: header.parts.iter().map(encoded).collect(),
            group: header.structure.clone(),
        }
    }

    /// Marks a header as done: its body runs, and later results are ignored.
    pub(super) fn end(&mut self, group: &str) {
        if let Some(header) = self.headers.get_mut(group) {
            *header = Header {
                done: true,
                ..Header::default()
            };
        }
    }
}
