//! Users and revoked tokens.

use std::fmt::Debug;

use async_trait::async_trait;
use jiff::Timestamp;

use super::error::Result;
use crate::domain::{
    Credentials, Email, NewUser, PasswordHash, Session, TokenKey, User, UserChanges, UserId,
};

/// Keeps users and the tokens that they revoked.
#[async_trait]
pub trait AccountStore: Debug + Send + Sync + 'static {
    /// Inserts a user.
    ///
    /// # Errors
    /// [`Constraint::UserEmail`](super::Constraint::UserEmail) when the address is taken, ignoring letter
    /// case.
    async fn insert_user(&self, user: NewUser) -> Result<User>;

    /// Finds the account with this address, ignoring letter case. Where a database written by other
    /// programs has several, the one with the same spelling is preferred.
    async fn find_credentials(&self, email: &Email) -> Result<Option<Credentials>>;

    /// Changes a user; `None` when there is no such user.
    ///
    /// # Errors
    /// [`Constraint::UserEmail`](super::Constraint::UserEmail) when another user has the new address.
    async fn update_user(&self, id: UserId, changes: UserChanges, now: Timestamp) -> Result<Option<User>>;

    /// Replaces a password hash, unless it is no longer `old`.
    async fn upgrade_password_hash(&self, id: UserId, old: &PasswordHash, new: &PasswordHash) -> Result<()>;

    /// Finds the user that a token names and whether the token was revoked, in one statement.
    async fn find_session(&self, user: UserId, token: &TokenKey) -> Result<Option<Session>>;

    /// Revokes a token; idempotent.
    async fn revoke_token(&self, token: &TokenKey, expires_at: Timestamp) -> Result<()>;

    /// Deletes revoked tokens that have expired; returns their number.
    async fn purge_revoked_tokens(&self, now: Timestamp) -> Result<u64>;
}
