//! Articles and favourites: what may be done with them, and by whom.
//!
//! Pure types and decisions; SQL is in [`crate::store`], HTTP in [`crate::api`].

mod entities;
mod idempotency;
mod service;
mod slug;

use jiff::Timestamp;

pub use self::{
    idempotency::{FirstAnswer, IdempotencyKey, OnceOnly, forgotten_before},
    service::{ArticleError, Articles, Draft, OwnArticle},
    slug::slug,
};
use crate::accounts::UserId;

/// An article's row number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ArticleId(pub i32);

impl std::fmt::Display for ArticleId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The part of a user that an article shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    pub id: UserId,
    pub email: String,
    pub name: String,
}

/// An article with its author, as one caller sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Article {
    pub id: ArticleId,
    pub slug: String,
    pub title: String,
    pub description: String,
    pub body: String,
    pub author: Author,
    pub favorites_count: i32,
    /// Whether the caller has favourited it; false for an anonymous one.
    pub favorited: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// An article about to be inserted.
#[derive(Debug, Clone)]
pub struct NewArticle {
    pub slug: String,
    pub title: String,
    pub description: String,
    pub body: String,
    pub author: UserId,
    pub created_at: Timestamp,
}

/// What an update changes; `None` leaves a column as it is. The slug never changes.
#[derive(Debug, Clone, Default)]
pub struct ArticleChanges {
    pub title: Option<String>,
    pub description: Option<String>,
    pub body: Option<String>,
}

/// What a change demands of the version that it replaces. A version is an article's `updated_at`,
/// which every change moves on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Precondition {
    /// It must be one of these; `None` is any.
    pub one_of: Option<Vec<Timestamp>>,
    /// It must be none of these.
    pub none_of: Vec<Timestamp>,
}

impl Precondition {
    /// No version will do.
    pub const NEVER: Self = Self {
        one_of: Some(Vec::new()),
        none_of: Vec::new(),
    };

    /// Whether this version may be replaced.
    #[must_use]
    pub fn holds(&self, version: Timestamp) -> bool {
        self.one_of.as_ref().is_none_or(|list| list.contains(&version)) && !self.none_of.contains(&version)
    }
}

/// A place in the list: everything older than this article follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    pub created_at: Timestamp,
    pub id: ArticleId,
}

/// Where a page of the list begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageStart {
    /// After this many articles.
    Offset(i64),
    /// After this article; costs the same at any depth.
    After(Cursor),
}

/// Which articles to list, newest first (`created_at`, then id).
#[derive(Debug, Clone)]
pub struct ListQuery {
    pub start: PageStart,
    /// At most this many articles.
    pub limit: i64,
    /// Case-insensitive substring of the title, taken literally.
    pub search: Option<String>,
    /// Whose favourites `favorited` shows.
    pub viewer: Option<UserId>,
}

/// One page of the list.
#[derive(Debug, Clone)]
pub struct ArticlePage {
    pub articles: Vec<Article>,
    /// How many articles match in all.
    pub total: i64,
    /// Whether older articles than these match.
    pub more: bool,
}
