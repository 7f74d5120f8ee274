//! Articles, their versions, and pages of the article list.

use jiff::Timestamp;

use super::account::UserId;

/// An article's primary key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ArticleId(pub i32);

/// The author of an article.
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
    /// Whether the caller has favourited the article; false for an anonymous caller.
    pub favorited: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Article {
    /// Returns the size of the texts that count towards [`ListQuery::MAX_BYTES`], in bytes.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.title.len() + self.description.len() + self.body.len()
    }
}

/// Text of an article, as submitted by its author.
#[derive(Debug, Clone)]
pub struct Draft {
    pub title: String,
    pub description: String,
    pub body: String,
}

/// An article to insert.
#[derive(Debug, Clone)]
pub struct NewArticle {
    pub slug: String,
    pub draft: Draft,
    pub author: UserId,
    pub created_at: Timestamp,
}

/// Changes to an article; `None` leaves a column unchanged. The slug never changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArticleChanges {
    pub title: Option<String>,
    pub description: Option<String>,
    pub body: Option<String>,
}

impl ArticleChanges {
    /// Whether these changes would alter the article.
    #[must_use]
    pub fn alter(&self, article: &Article) -> bool {
        let differs = |new: &Option<String>, old: &String| new.as_ref().is_some_and(|new| new != old);
        differs(&self.title, &article.title)
            || differs(&self.description, &article.description)
            || differs(&self.body, &article.body)
    }
}

/// The versions of an article that a change may replace.
///
/// A version is the article's `updated_at`, which every change increases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Precondition {
    /// Allowed versions; `None` allows all.
    pub one_of: Option<Vec<Timestamp>>,
    /// Versions that are not allowed.
    pub none_of: Vec<Timestamp>,
}

impl Precondition {
    /// A precondition that no version meets.
    pub const NEVER: Self = Self {
        one_of: Some(Vec::new()),
        none_of: Vec::new(),
    };

    /// Returns whether this version may be replaced.
    #[must_use]
    pub fn holds(&self, version: Timestamp) -> bool {
        self.one_of.as_ref().is_none_or(|list| list.contains(&version)) && !self.none_of.contains(&version)
    }
}

/// Position in the list, after the article with this time and id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    pub created_at: Timestamp,
    pub id: ArticleId,
}

/// Start of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageStart {
    /// Skips this many articles.
    Offset(i64),
    /// Starts after this position. Unlike with an offset, later pages cost no more than the first.
    After(Cursor),
}

impl Default for PageStart {
    fn default() -> Self {
        Self::Offset(0)
    }
}

/// Order of the list, by `created_at`, then id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListOrder {
    #[default]
    Newest,
    Oldest,
}

/// A query for a page of the list.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    pub start: PageStart,
    /// Maximum number of articles on the page, at most [`ListQuery::MAX_LIMIT`].
    pub limit: i64,
    pub order: ListOrder,
    /// Case-insensitive substring of the title, without wildcards.
    pub search: Option<String>,
    pub author: Option<UserId>,
    /// Whether the viewer has favourited the articles; `None` selects all articles.
    pub favorited: Option<bool>,
    /// User for whom `favorited` is determined.
    pub viewer: Option<UserId>,
}

impl ListQuery {
    /// Maximum number of articles on a page.
    pub const MAX_LIMIT: i64 = 100;
    /// Maximum size of the texts on a page, in bytes. A page of larger articles ends early, but contains at
    /// least one article.
    pub const MAX_BYTES: usize = 2 << 20;

    /// Returns the number of articles to read: one more than the page can contain, to find out whether more
    /// follow.
    #[must_use]
    pub fn fetched(&self) -> i64 {
        self.page_size() + 1
    }

    fn page_size(&self) -> i64 {
        self.limit.clamp(0, Self::MAX_LIMIT)
    }
}

/// One page of the list.
#[derive(Debug, Clone)]
pub struct ArticlePage {
    pub articles: Vec<Article>,
    /// Number of articles that match the query, on all pages.
    pub total: i64,
    /// Whether articles after the page also match.
    pub more: bool,
}

impl ArticlePage {
    /// Builds the page.
    ///
    /// `found` is the number of articles found, up to [`ListQuery::fetched`]. `articles` are the first of
    /// them, without those that exceed [`ListQuery::MAX_BYTES`].
    #[must_use]
    pub fn new(query: &ListQuery, mut articles: Vec<Article>, found: usize, total: i64) -> Self {
        let limit = usize::try_from(query.page_size()).unwrap_or(usize::MAX);
        articles.truncate(limit);
        let more = found > articles.len();
        Self {
            articles,
            total,
            more,
        }
    }
}
