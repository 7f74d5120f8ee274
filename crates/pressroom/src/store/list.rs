//! The statements of the list of articles, which both databases build from the parts that a query needs. A
//! single statement for all queries would have a bad query plan for each of them.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use telemetry::Statement;

use super::sql::summarized;
use crate::domain::{ListOrder, ListQuery, PageStart};

/// The parts of a query that determine the text of its statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape {
    pub(super) search: bool,
    pub(super) author: bool,
    pub(super) favorited: Option<bool>,
    pub(super) order: ListOrder,
    /// Whether the page starts after a cursor, not at an offset.
    pub(super) after: bool,
}

impl Shape {
    pub(super) fn of(query: &ListQuery) -> Self {
        Self {
            search: query.search.is_some(),
            author: query.author.is_some(),
            favorited: query.favorited,
            order: query.order,
            after: matches!(query.start, PageStart::After(_)),
        }
    }

    /// Whether the query may leave articles out.
    pub(super) fn filters(self) -> bool {
        self.search || self.author || self.favorited.is_some()
    }

    /// Returns the shape that lists the same articles in the opposite order.
    pub(super) fn reversed(self) -> Self {
        let order = match self.order {
            ListOrder::Newest => ListOrder::Oldest,
            ListOrder::Oldest => ListOrder::Newest,
        };
        Self { order, ..self }
    }

    /// Returns the sort direction of the columns `created_at` and `id`.
    pub(super) fn direction(self) -> &'static str {
        match self.order {
            ListOrder::Newest => "DESC",
            ListOrder::Oldest => "ASC",
        }
    }

    /// Returns the comparison operator that selects the articles after a cursor.
    pub(super) fn beyond(self) -> char {
        match self.order {
            ListOrder::Newest => '<',
            ListOrder::Oldest => '>',
        }
    }
}

/// Statements by the shape of their query. Each is built when it is first needed, and never freed, so `K` must
/// have few values.
pub(super) struct Statements<K> {
    build: fn(K) -> String,
    built: Mutex<BTreeMap<K, &'static Statement>>,
}

impl<K: Copy + Ord> Statements<K> {
    pub(super) const fn new(build: fn(K) -> String) -> Self {
        Self {
            build,
            built: Mutex::new(BTreeMap::new()),
        }
    }

    pub(super) fn get(&self, key: K) -> &'static Statement {
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        built.entry(key).or_insert_with(|| {
            let text = (self.build)(key).leak();
            Box::leak(Box::new(summarized("SELECT articles", text)))
        })
    }
}
