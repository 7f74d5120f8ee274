//! Articles and favourites: their operations, permissions and slugs.
//!
//! SQL is in [`crate::store`], HTTP in [`crate::api`].

mod entities;
mod service;
mod slug;

pub use self::{
    service::{ArticleError, Articles, Creation, OwnArticle},
    slug::slug,
};
