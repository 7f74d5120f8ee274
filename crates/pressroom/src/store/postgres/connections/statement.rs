//! Parameters and prepared forms of statements.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use telemetry::Statement;
use tokio_postgres::types::{ToSql, Type};

/// Parameters of a statement.
pub(in crate::store::postgres) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A statement that can be sent.
pub(super) enum Prepared {
    /// Name of a prepared statement, valid on its connection.
    Named(tokio_postgres::Statement),
    /// Text and types, which are sent each time.
    InFull(&'static str, Arc<StatementTypes>),
}

/// Types of a statement, as described by the server.
#[derive(Debug)]
pub(super) struct StatementTypes {
    pub(super) parameters: Vec<Type>,
    pub(super) returns_rows: bool,
}

/// A map from statements to values. The key is the address and length of a statement's text, which is a
/// constant: hashing a kilobyte of SQL would cost more than the rest of the look-up.
pub(super) struct StatementMap<V>(RwLock<HashMap<(usize, usize), V>>);

impl<V> Default for StatementMap<V> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<V: Clone> StatementMap<V> {
    pub(super) fn get(&self, statement: &Statement) -> Option<V> {
        let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
        map.get(&key(statement)).cloned()
    }

    pub(super) fn insert(&self, statement: &Statement, value: V) {
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        map.insert(key(statement), value);
    }

    pub(super) fn remove(&self, statement: &Statement) {
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        map.remove(&key(statement));
    }
}

fn key(statement: &Statement) -> (usize, usize) {
    (statement.text.as_ptr().addr(), statement.text.len())
}
