//! The service's own terms: accounts, articles, idempotency keys and background tasks.
//!
//! Plain types and the rules that hold for them without a database or a request. Every other module may
//! use them; they use none.

mod account;
mod article;
mod email;
mod idempotency;
mod task;

pub use self::{
    account::{Credentials, NewUser, PasswordHash, Session, TokenKey, User, UserChanges, UserId},
    article::{
        Article, ArticleChanges, ArticleId, ArticlePage, Author, Cursor, Draft, ListQuery, NewArticle,
        PageStart, Precondition,
    },
    email::{Email, InvalidEmail},
    idempotency::{Fingerprint, IdempotencyKey, IdempotentRequest, StoredResponse, keys_expired_by},
    task::{
        ARTICLE_NOTIFICATION, ArticleEvent, Backlog, DeliveryClaim, DeliveryKey, NewOutboxTask, OutboxTask,
        Recipient,
    },
};
