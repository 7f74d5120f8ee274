//! The id of a task, which is also the id of its result.

use std::{borrow::Borrow, fmt, ops::Deref, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// Id of a task, and of its result. Cheap to clone.
///
/// Senders use random UUIDs by default, but an id may be any text.
///
/// ```
/// use celeriac::TaskId;
///
/// let id = TaskId::from("9b83d466-f412-4357-8563-2b2dedf45e4e");
/// assert_eq!(id, *"9b83d466-f412-4357-8563-2b2dedf45e4e");
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(Arc<str>);

impl TaskId {
    /// Returns the id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for TaskId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

impl From<String> for TaskId {
    fn from(id: String) -> Self {
        Self(id.into())
    }
}

impl From<Uuid> for TaskId {
    fn from(id: Uuid) -> Self {
        Self(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).into())
    }
}

impl From<&String> for TaskId {
    fn from(id: &String) -> Self {
        Self::from(id.as_str())
    }
}

impl From<&Self> for TaskId {
    fn from(id: &Self) -> Self {
        id.clone()
    }
}

impl From<TaskId> for String {
    fn from(id: TaskId) -> Self {
        id.as_str().to_owned()
    }
}

impl From<TaskId> for Value {
    fn from(id: TaskId) -> Self {
        Self::from(id.as_str())
    }
}

impl AsRef<str> for TaskId {
    fn as_ref(&self) -> &str {
        self
    }
}

impl Borrow<str> for TaskId {
    fn borrow(&self) -> &str {
        self
    }
}

impl Deref for TaskId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for TaskId {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for TaskId {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialEq<String> for TaskId {
    fn eq(&self, other: &String) -> bool {
        self.as_str() == other
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}
