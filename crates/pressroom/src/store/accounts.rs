//! Users, revoked tokens and ended sessions.

use std::fmt::Debug;

use async_trait::async_trait;
use jiff::Timestamp;

use super::error::Result;
use crate::domain::{
    Credentials, Email, NewUser, PasswordHash, Session, SessionEnd, TokenKey, User, UserChanges, UserId,
};

/// Stores users, revoked tokens and ended sessions.
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

    /// Finds the credentials of a user.
    async fn find_credentials_by_id(&self, id: UserId) -> Result<Option<Credentials>>;

    /// Returns up to `limit` schemes of the stored password hashes, with their costs, such as
    /// `pbkdf2:sha256:600000` and `$argon2id$v=19$m=12288,t=3,p=1`.
    ///
    /// Schemes that this program cannot verify are left out. The duration does not depend on the number of users.
    async fn password_schemes(&self, limit: i64) -> Result<Vec<String>>;

    /// Changes a user. Returns `None` if the user does not exist, or if the user's sessions have ended since
    /// [`UserChanges::verified_in`].
    ///
    /// # Errors
    /// [`Constraint::UserEmail`](super::Constraint::UserEmail) when another user has the new address.
    async fn update_user(&self, id: UserId, changes: UserChanges, now: Timestamp) -> Result<Option<User>>;

    /// Replaces a password hash if it is still `old`.
    async fn upgrade_password_hash(&self, id: UserId, old: &PasswordHash, new: &PasswordHash) -> Result<()>;

    /// Finds the user of a token, and determines whether the token was revoked and the user's sessions have ended,
    /// in one statement.
    async fn find_session(&self, user: UserId, token: &TokenKey) -> Result<Option<Session>>;

    /// Ends the user's sessions and starts a new generation.
    async fn end_sessions(&self, user: UserId, end: SessionEnd) -> Result<()>;

    /// Revokes a token. Idempotent.
    async fn revoke_token(&self, token: &TokenKey, expires_at: Timestamp) -> Result<()>;

    /// Deletes revoked tokens that have expired, and returns their number.
    async fn purge_revoked_tokens(&self, now: Timestamp) -> Result<u64>;
}
