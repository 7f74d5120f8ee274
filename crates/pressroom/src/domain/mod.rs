//! The domain of the service: accounts, articles, idempotency keys and background tasks.
//!
//! Plain types and the rules that need neither a database nor a request. All other modules may use these
//! types, which depend on no other module.

mod account;
mod article;
mod email;
mod idempotency;
mod task;

pub use self::{
    account::{
        Credentials, EndedSessions, NewUser, PasswordHash, Session, SessionEnd, SessionGeneration, TokenKey,
        User, UserChanges, UserId,
    },
    article::{
        Article, ArticleChanges, ArticleId, ArticlePage, Author, Cursor, Draft, ListOrder, ListQuery,
        NewArticle, PageStart, Precondition,
    },
    email::{Email, InvalidEmail},
    idempotency::{Fingerprint, IdempotencyKey, IdempotentRequest, StoredResponse, keys_expired_by},
    task::{
        ARTICLE_NOTIFICATION, ArticleEvent, Backlog, DeliveryClaim, DeliveryKey, NewOutboxTask,
        NotifiedEvent, OutboxTask, PublishedBatch, PublishedTask, Recipient,
    },
};
