//! Articles and favourites: who may change them, and how an article gets its slug.
//!
//! SQL is in [`crate::store`], HTTP in [`crate::api`].

mod entities;
mod service;
mod slug;

pub use self::{
    service::{ArticleError, Articles, OwnArticle},
    slug::slug,
};
