//! Users and revoked tokens.

use std::fmt::Debug;

use async_trait::async_trait;
use jiff::Timestamp;

use super::error::Result;
use crate::domain::{
    Credentials, Email, NewUser, PasswordHash, Session, TokenKey, User, UserChanges, UserId,
};

/// Stores users and revoked tokens.
#[async_trait]
pub trait AccountStore: Debug + Send + Sync + 'static {
    /// Inserts a user.
    ///
    /// # Errors
    /// [`Constraint::UserEmail`](super::Constraint::UserEmail) when another user has the address, ignoring
    /// letter case.
    async fn insert_user(&self, user: NewUser) -> Result<User>;

    /// Finds the account with this address, ignoring letter case. If a database written by other programs
    /// has several, the one with the same spelling is preferred.
    async fn find_credentials(&self, email: &Email) -> Result<Option<Credentials>>;

    /// Changes a user. Returns `None` if the user does not exist.
    ///
    /// # Errors
    /// [`Constraint::UserEmail`](super::Constraint::UserEmail) when another user has the new address.
    async fn update_user(&self, id: UserId, changes: UserChanges, now: Timestamp) -> Result<Option<User>>;

    /// Replaces a password hash if it is still `old`.
    async fn upgrade_password_hash(&self, id: UserId, old: &PasswordHash, new: &PasswordHash) -> Result<()>;

    /// Finds the user of a token and whether the token was revoked, in one statement.
    async fn find_session(&self, user: UserId, token: &TokenKey) -> Result<Option<Session>>;

    /// Revokes a token. Idempotent.
    async fn revoke_token(&self, token: &TokenKey, expires_at: Timestamp) -> Result<()>;

    /// Deletes revoked tokens that have expired, and returns their number.
    async fn purge_revoked_tokens(&self, now: Timestamp) -> Result<u64>;
}
