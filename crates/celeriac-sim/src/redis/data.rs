//! Keys and values of the only database, with their expiry.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{reply::Reply, zset::Zset};

pub(super) type Bytes = Vec<u8>;

#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(Bytes),
    List(VecDeque<Bytes>),
    Set(BTreeSet<Bytes>),
    Hash(BTreeMap<Bytes, Bytes>),
    Zset(Zset),
}

#[derive(Debug, Clone)]
struct Entry {
    value: Value,
    /// Time at which the key expires, in milliseconds since the Unix epoch.
    expires: Option<i64>,
}

/// The data, which a snapshot clones.
#[derive(Debug, Clone, Default)]
pub(super) struct Data {
    entries: BTreeMap<Bytes, Entry>,
    /// A time before which no key expires.
    next_expiry: i64,
}

/// A kind of values, for access by type.
pub(super) trait Kind: Default {
    fn wrap(self) -> Value;
    fn of(value: &mut Value) -> Option<&mut Self>;
    fn is_empty(&self) -> bool;
}

macro_rules! kind {
    ($type:ty, $variant:ident, $empty:expr) => {
        impl Kind for $type {
            fn wrap(self) -> Value {
                Value::$variant(self)
            }

            fn of(value: &mut Value) -> Option<&mut Self> {
                match value {
                    Value::$variant(value) => Some(value),
                    _ => None,
                }
            }

            fn is_empty(&self) -> bool {
                let empty: fn(&Self) -> bool = $empty;
                empty(self)
            }
        }
    };
}

kind!(Bytes, Text, |_| false);
kind!(VecDeque<Bytes>, List, |list| list.len() == 0);
kind!(BTreeSet<Bytes>, Set, |set| set.len() == 0);
kind!(BTreeMap<Bytes, Bytes>, Hash, |hash| hash.len() == 0);
kind!(Zset, Zset, |zset| zset.len() == 0);

impl Data {
    /// Deletes the keys that have expired.
    pub(super) fn expire(&mut self, now: i64) {
        if now < self.next_expiry {
            return;
        }
        self.entries
            .retain(|_, entry| entry.expires.is_none_or(|expires| expires > now));
        let next = self.entries.values().filter_map(|entry| entry.expires).min();
        self.next_expiry = next.unwrap_or(i64::MAX);
    }

    pub(super) fn get<T: Kind>(&mut self, key: &[u8]) -> Result<Option<&mut T>, Reply> {
        match self.entries.get_mut(key) {
            None => Ok(None),
            Some(entry) => T::of(&mut entry.value).map(Some).ok_or_else(wrong_type),
        }
    }

    /// Changes a value, which is created if it does not exist and deleted if it is empty afterwards.
    pub(super) fn change<T: Kind, R>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(&mut T) -> R,
    ) -> Result<R, Reply> {
        let entry = self.entries.entry(key.to_vec()).or_insert_with(|| Entry {
            value: T::default().wrap(),
            expires: None,
        });
        let value = T::of(&mut entry.value).ok_or_else(wrong_type)?;
        let result = change(value);
        if value.is_empty() {
            self.entries.remove(key);
        }
        Ok(result)
    }

    /// Replaces a value and its expiry.
    pub(super) fn set(&mut self, key: &[u8], text: &[u8], expires: Option<i64>) {
        self.next_expiry = self.next_expiry.min(expires.unwrap_or(i64::MAX));
        let value = Value::Text(text.to_vec());
        self.entries.insert(key.to_vec(), Entry { value, expires });
    }

    pub(super) fn delete(&mut self, key: &[u8]) -> bool {
        self.entries.remove(key).is_some()
    }

    pub(super) fn exists(&self, key: &[u8]) -> bool {
        self.entries.contains_key(key)
    }

    pub(super) fn set_expiry(&mut self, key: &[u8], expires: i64) -> bool {
        self.next_expiry = self.next_expiry.min(expires);
        let entry = self.entries.get_mut(key);
        entry.map(|entry| entry.expires = Some(expires)).is_some()
    }

    /// Returns the expiry of a key: `None` if there is no such key.
    pub(super) fn expiry(&self, key: &[u8]) -> Option<Option<i64>> {
        self.entries.get(key).map(|entry| entry.expires)
    }

    pub(super) fn kind(&self, key: &[u8]) -> &'static str {
        match self.entries.get(key).map(|entry| &entry.value) {
            None => "none",
            Some(Value::Text(_)) => "string",
            Some(Value::List(_)) => "list",
            Some(Value::Set(_)) => "set",
            Some(Value::Hash(_)) => "hash",
            Some(Value::Zset(_)) => "zset",
        }
    }
}

fn wrong_type() -> Reply {
    Reply::error("WRONGTYPE Operation against a key holding the wrong kind of value")
}
