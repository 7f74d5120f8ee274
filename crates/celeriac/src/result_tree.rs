//! Tree of the results of a canvas, in the format in which Celery stores a group.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::task_id::TaskId;

/// Result of a task or a group, with the results before it and inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResultTree {
    pub id: TaskId,
    /// Previous result of the chain, or the header of the chord.
    pub parent: Option<Arc<ResultTree>>,
    /// Members, for a group.
    pub children: Option<Vec<Arc<ResultTree>>>,
}

impl ResultTree {
    pub(crate) fn task(id: impl Into<TaskId>) -> Self {
        Self {
            id: id.into(),
            parent: None,
            children: None,
        }
    }

    pub(crate) fn group(id: impl Into<TaskId>, parts: Vec<Arc<Self>>) -> Self {
        Self {
            children: Some(parts),
            ..Self::task(id)
        }
    }

    /// Collects the ids of the tasks whose results form this result.
    pub(crate) fn tasks(&self, ids: &mut Vec<TaskId>) {
        match &self.children {
            Some(children) => children.iter().for_each(|child| child.tasks(ids)),
            None => ids.push(self.id.clone()),
        }
    }

    /// Collects the ids of this result, of the results before it and inside it.
    pub(crate) fn all(&self, ids: &mut Vec<TaskId>) {
        ids.push(self.id.clone());
        let parts = self.children.iter().flatten();
        parts.chain(&self.parent).for_each(|part| part.all(ids));
    }

    /// Returns Celery's encoding, `[[id, parent], members]`.
    pub(crate) fn as_tuple(&self) -> Value {
        let parent = self.parent.as_ref().map(|parent| parent.as_tuple());
        let tuples = |parts: &Vec<Arc<Self>>| parts.iter().map(|part| part.as_tuple()).collect::<Vec<_>>();
        let children = self.children.as_ref().map(tuples);
        json!([[self.id, parent], children])
    }

    /// Returns the result of the first task sent, in Celery's encoding, which Celery counts as the child.
    pub(crate) fn trail(&self) -> Value {
        let mut first = self;
        while let Some(parent) = &first.parent {
            first = parent;
        }
        first.as_tuple()
    }

    /// Decodes a tuple encoded by [`as_tuple`](Self::as_tuple) or a Python worker.
    pub(crate) fn from_tuple(tuple: &Value) -> Option<Self> {
        let (own, parts) = (tuple.get(0)?, tuple.get(1)?);
        let (id, parent) = match own {
            Value::String(id) => (id.clone(), None),
            pair => {
                let parent = pair.get(1).and_then(Self::from_tuple).map(Arc::new);
                (pair.get(0)?.as_str()?.to_owned(), parent)
            }
        };
        let children = match parts {
            Value::Null => None,
            parts => {
                let parts = parts.as_array()?.iter();
                let decoded = parts.map(|part| Self::from_tuple(part).map(Arc::new));
                Some(decoded.collect::<Option<_>>()?)
            }
        };
        Some(Self {
            id: id.into(),
            parent,
            children,
        })
    }
}
